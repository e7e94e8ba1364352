"""The loss on record is the loss that was minimised, for every objective and schedule."""

import io

import pytest
import torch
from rich.console import Console

from convvae.config import TrainConfig
from convvae.data.pixels import to_unit
from convvae.errors import StoppedError
from convvae.evaluation.encode import evaluating, own_noise
from convvae.model.checkpoint import load_model, load_tensors, save_tensors
from convvae.model.objectives import draw, training_loss
from convvae.training.holdout import load_images
from convvae.training.loop import BatchPlan, in_batches
from convvae.training.run import train
from convvae.training.schedules import kl_capacity, kl_weight

OBJECTIVES = {
    "beta": {"beta": 3.0},
    "iwae": {"objective": "iwae", "mc_samples": 4},
    "dreg": {"objective": "dreg", "mc_samples": 4, "network": "residual"},
    "beta-tc": {"objective": "beta-tc", "beta": 6.0, "latent_dims": 3},
    "capacity": {"capacity": 5.0, "beta": 10.0, "kl_warmup": 150},
    "free bits": {"free_bits": 0.5, "beta": 2.0},
    "mmd": {"mmd": 50.0, "beta": 0.5},
    "linear": {"kl_schedule": "linear", "kl_warmup": 150},
    "cyclical": {"kl_schedule": "cyclical"},
    "averaged": {"ema_images": 64, "kl_schedule": "linear", "kl_warmup": 150},
}


@pytest.fixture(scope="module", params=OBJECTIVES)
def recorded(request, tmp_path_factory):
    """A run of two epochs of 32 + 32 + 32 + 4 images that records every batch, and its settings."""
    settings = {
        "data": "digits", "limit": 100, "max_filters": 8, "latent_dims": 2, "epochs": 2,
        "batch_size": 32, "log_every": 1, "report": False, "preview": False, "device": "cpu",
        "precision": "float32", "validation": 0, "out": tmp_path_factory.mktemp("recorded") / "run",
    }  # fmt: skip
    config = TrainConfig.model_validate(settings | OBJECTIVES[request.param])
    return config, train(config, Console(quiet=True))


def test_train_loss_is_the_mean_of_the_losses_minimised(recorded):
    rows = recorded[1].read_metrics()
    logs = [row for row in rows if row["event"] == "log"]
    for epoch in (row for row in rows if row["event"] == "epoch"):
        own = [row for row in logs if row["epoch"] == epoch["epoch"]]
        sizes = [32, 32, 32, 4]
        mean = sum(size * row["loss"] for size, row in zip(sizes, own, strict=True)) / 100
        assert epoch["train_loss"] == pytest.approx(mean, rel=1e-6)


def test_val_loss_is_the_same_objective_in_evaluation_mode(recorded):
    config, run = recorded
    row = run.read_metrics()[-1]
    vae, _ = load_model(run.path)
    images = load_images(config, "test").images
    before = 196  # images seen before the last step, of the 200 of the run
    beta, capacity = kl_weight(config, before, before / 200), kl_capacity(config, before)
    total = 0.0
    with evaluating(vae):
        for part in images.split(32):
            draws = draw(vae, to_unit(part), own_noise(vae, part, 0)(config.mc_samples))
            total += len(part) * float(training_loss(config, vae, draws, beta, capacity, 100))
    assert row["val_loss"] == pytest.approx(total / len(images), rel=1e-5)


def test_the_bound_stays_the_evidence_lower_bound(recorded):
    row = recorded[1].read_metrics()[-1]
    for part in ("train", "val"):
        bound = row[f"{part}_log_px"] - row[f"{part}_kl"]
        assert row[f"{part}_bound"] == pytest.approx(bound, rel=1e-9)


def test_a_cyclical_weight_at_an_epochs_end_is_that_of_its_last_step(tiny_config):
    config = tiny_config.model_copy(update={"kl_schedule": "cyclical", "epochs": 4})
    for row in train(config, Console(quiet=True)).read_metrics():
        if row["event"] == "epoch":
            # The next step starts a cycle at 0; the last one, after 96 of 100 images, has all.
            assert row["val_loss"] == pytest.approx(-row["val_bound"], rel=1e-6)


@pytest.mark.parametrize(("settings", "epochs"), [({}, 2), ({"drop_last": True}, 2)])
def test_the_last_pace_is_that_of_the_last_step(settings, epochs):
    config = TrainConfig(data="digits", batch_size=4, epochs=epochs, schedule="cosine", **settings)
    plan = BatchPlan(config, torch.arange(10))
    assert plan.last_settings(0).images == (4 if settings else 8)
    assert plan.last_settings(1).images == (12 if settings else 18)


def test_a_single_image_left_over_joins_the_last_batch():
    assert [len(part) for part in in_batches(torch.arange(9), 4)] == [4, 5]
    assert [len(part) for part in in_batches(torch.arange(1), 4)] == [1]


@pytest.mark.parametrize("objective", [{"mmd": 10.0}, {"objective": "beta-tc"}])
def test_a_single_validation_image_has_a_loss(objective, tiny_config):
    config = tiny_config.model_copy(update=objective | {"validation": 0.01})
    row = train(config, Console(quiet=True)).read_metrics()[-1]
    assert row["val_loss"] < 1e6


class Halt:
    """Stops a run after so many images."""

    def __init__(self, images):
        self.images = images

    def __getattr__(self, _name):
        return lambda *_: None

    def start(self, run):
        self.stop = run.stop

    def step(self, progress, _means):
        if progress.images >= self.images:
            self.stop.set()


@pytest.mark.parametrize("images", [32, 100])
def test_a_state_of_before_the_losses_were_summed_resumes_and_says_so(images, tiny_config):
    whole = train(tiny_config.model_copy(update={"out": tiny_config.out.with_name("whole")}))
    with pytest.raises(StoppedError):
        train(tiny_config, callbacks=[Halt(images)])
    state = tiny_config.out / "resume.safetensors"
    tensors, header = load_tensors(state)
    tensors["sums"] = tensors["sums"][:2].clone()
    save_tensors(state, tensors, header)
    said = Console(file=io.StringIO(), width=1000)
    run = train(tiny_config, said, resume=tiny_config.out)
    assert f"-log p(x|z) + beta KL for its first {images} images" in said.file.getvalue()
    first, last = load_tensors(whole.model)[0], load_tensors(run.model)[0]
    assert all(torch.equal(first[name], last[name]) for name in first)
    losses = [[row["train_loss"] for row in each.read_metrics() if row["event"] == "epoch"]
              for each in (whole, run)]  # fmt: skip
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
