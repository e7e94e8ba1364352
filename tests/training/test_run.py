import os
import signal
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from convvae.config import TrainConfig
from convvae.data.pixels import mean_pixel, to_unit
from convvae.errors import (
    ConfigError,
    ImageSizeError,
    NonFiniteLossError,
    RunExistsError,
    StoppedError,
)
from convvae.evaluation.bounds import mean_terms
from convvae.model.checkpoint import load_metadata, load_model, load_tensors
from convvae.model.run_folder import RunFolder
from convvae.training import run as train_module
from convvae.training.holdout import load_images
from convvae.training.loop import BatchPlan
from convvae.training.recipes import load_recipe
from convvae.training.run import resolve, train


def assert_same_model(a, b):
    first, second = load_tensors(a.model)[0], load_tensors(b.model)[0]
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_run_folder_holds_everything(finished_run):
    run = finished_run
    config = run.read_config()
    assert config["settings"]["data"] == "digits"
    assert config["model"]["image_size"] == [8, 8]
    assert {"torch", "convvae", "python"} <= config["ran_on"][0]["versions"].keys()
    assert sorted(path.name for path in run.pictures.iterdir()) == [
        "epoch-0001.png", "epoch-0002.png", "joint.png", "loss.png", "reconstructions-test.png",
        "reconstructions-train.png", "samples.png",
    ]  # fmt: skip
    rows = run.read_metrics()
    assert [row["event"] for row in rows] == ["log", "log", "epoch"] * 2
    assert [row["images"] for row in rows] == [100, 200, 200, 300, 400, 400]
    metadata = load_metadata(run.path)
    assert (metadata.epochs, metadata.images, metadata.bound) == (2, 400, rows[-1]["val_bound"])


def test_training_lowers_the_loss(finished_run):
    first, last = (row for row in finished_run.read_metrics() if row["event"] == "epoch")
    assert last["train_loss"] < first["train_loss"]
    assert last["val_bound"] > first["val_bound"]


def test_the_recorded_validation_is_that_of_the_saved_model(finished_run):
    vae, metadata = load_model(finished_run.path)
    config = TrainConfig.model_validate(finished_run.read_config()["settings"])
    terms = mean_terms(vae, load_images(config, "test").images, seed=config.seed)
    assert terms.bound.item() == pytest.approx(metadata.bound, rel=1e-5)


def test_the_tutorials_loss_is_the_bound_less_its_constant(finished_run):
    row = finished_run.read_metrics()[-1]
    constant = 0.5 * 64 * 1.1447298858494002
    per_image = -row["train_bound"] - constant
    assert row["train_squared_error_and_kl"] == pytest.approx(50 * per_image, rel=1e-9)


def test_the_same_settings_give_the_same_run(tiny_config, tmp_path, pictures):
    runs = [train(tiny_config.model_copy(update={"out": tmp_path / name})) for name in "ab"]
    assert_same_model(*runs)
    first, second = (run.pictures / "joint.png" for run in runs)
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_another_run(tiny_config, tmp_path):
    a, b = (
        train(tiny_config.model_copy(update={"out": tmp_path / str(seed), "seed": seed}))
        for seed in (0, 1)
    )
    assert not torch.equal(
        load_tensors(a.model)[0]["encoder.conv1.weight"],
        load_tensors(b.model)[0]["encoder.conv1.weight"],
    )


def stop_after(monkeypatch, steps):
    """Send the process a Ctrl-C in its given step."""
    step, seen = train_module.Learner.step, []

    def counted(self, *args, **kwargs):
        seen.append(1)
        if len(seen) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(train_module.Learner, "step", counted)


def poison(monkeypatch, number):
    """Make the images of a given step not a number."""
    step, seen = train_module.Learner.step, []

    def poisoned(self, x, *args, **kwargs):
        seen.append(1)
        return step(self, x * float("nan") if len(seen) == number else x, *args, **kwargs)

    monkeypatch.setattr(train_module.Learner, "step", poisoned)


@pytest.mark.parametrize("steps", [1, 3, 4, 6, 8])
@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "float32"},
        {"precision": "bfloat16", "ema_images": 64, "schedule": "cosine"},
        {"precision": "float32", "optimizer": "muon", "binarize": "dynamic"},
        {"precision": "float32", "validation": 0.2, "augment": "flip-shift", "batch_size": 20},
    ],
)
def test_stopped_anywhere_and_resumed_it_ends_the_same_to_the_bit(
    steps, settings, tiny_config, tmp_path, monkeypatch
):
    config = tiny_config.model_copy(update=settings)
    whole = train(config.model_copy(update={"out": tmp_path / "whole"}))
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(StoppedError, match=f"`resume='{config.out}'`"):
            train(config)
    assert RunFolder(config.out).read_config()["settings"]["precision"] == settings["precision"]
    handler = signal.getsignal(signal.SIGINT)
    resumed = train(config, resume=config.out)
    assert signal.getsignal(signal.SIGINT) is handler
    assert_same_model(whole, resumed)
    assert load_metadata(whole.path).model_copy(update={"versions": {}}) == load_metadata(
        resumed.path
    ).model_copy(update={"versions": {}})
    times = {"seconds", "images_per_second"}
    rows = [
        [{k: v for k, v in row.items() if k not in times} for row in run.read_metrics()]
        for run in (whole, resumed)
    ]
    assert rows[0] == rows[1]


SCRIPT = """
import sys, os, signal
from pathlib import Path
from convvae.config import TrainConfig
from convvae.training import run as module
finish = module.finish_epoch
def finish_and_die(saves, means, plan, images, progress, watch):
    finish(saves, means, plan, images, progress, watch)
    if progress.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
module.finish_epoch = finish_and_die
module.train(TrainConfig.model_validate_json(sys.argv[1]))
"""


def test_killed_after_epoch_two_and_resumed_it_ends_the_same_to_the_bit(tiny_config, tmp_path):
    config = tiny_config.model_copy(update={"epochs": 3})
    whole = train(config.model_copy(update={"out": tmp_path / "whole"}))
    killed = subprocess.run([sys.executable, "-c", SCRIPT, config.model_dump_json()], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert load_metadata(config.out).epochs == 2
    assert_same_model(whole, train(config, resume=config.out))


def test_a_crash_between_metrics_and_state_repeats_the_epoch(tiny_config, tmp_path, monkeypatch):
    whole = train(tiny_config.model_copy(update={"out": tmp_path / "whole"}))
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_model", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            train(tiny_config)
    run = train(tiny_config, resume=tiny_config.out)
    assert_same_model(whole, run)
    assert [row["images"] for row in run.read_metrics()] == [
        row["images"] for row in whole.read_metrics()
    ]


def test_more_epochs_continue_a_finished_run(tiny_config, tmp_path):
    longer = tiny_config.model_copy(update={"epochs": 3})
    whole = train(longer.model_copy(update={"out": tmp_path / "whole"}))
    train(tiny_config)
    assert_same_model(whole, train(longer, resume=tiny_config.out))


def test_a_taken_folder_is_refused_untouched(finished_run, tiny_config):
    before = {path: path.stat().st_mtime_ns for path in finished_run.path.rglob("*")}
    with pytest.raises(RunExistsError):
        train(tiny_config.model_copy(update={"out": finished_run.path}))
    assert before == {path: path.stat().st_mtime_ns for path in finished_run.path.rglob("*")}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(tiny_config, monkeypatch):
    poison(monkeypatch, 6)
    with pytest.raises(NonFiniteLossError, match=r"epoch 2; .*keeps the weights of epoch 1"):
        train(tiny_config)
    run = RunFolder(tiny_config.out)
    vae, metadata = load_model(run.path)
    assert metadata.epochs == 1
    assert all(torch.isfinite(value).all() for value in vae.state_dict().values())


def test_a_kill_after_a_stop_at_an_epochs_end_leaves_one_row_an_epoch(tiny_config, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(StoppedError):
            train(tiny_config)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_model", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            train(tiny_config, resume=tiny_config.out)
    rows = train(tiny_config, resume=tiny_config.out).read_metrics()
    assert [row["epoch"] for row in rows if row["event"] == "epoch"] == [1, 2]


def test_a_stop_after_a_loss_that_is_not_finite_keeps_the_good_state(tiny_config, monkeypatch):
    poison(monkeypatch, 6)
    stop_after(monkeypatch, 7)
    with pytest.raises(NonFiniteLossError):
        train(tiny_config)
    tensors, _ = load_tensors(RunFolder(tiny_config.out).resume)
    assert all(torch.isfinite(value).all() for value in tensors.values())


@pytest.mark.parametrize("settings", [{"lr": 1e30}, {"beta": 1e300}, {"variance": 1e-40}])
def test_settings_that_explode_stop_with_the_error_of_their_kind(settings, tiny_config):
    with pytest.raises(NonFiniteLossError, match="start a new run") as caught:
        train(tiny_config.model_copy(update=settings))
    assert "\n" not in str(caught.value)
    rows = RunFolder(tiny_config.out).read_metrics()
    assert all(row.get("val_loss", 0.0) < float("inf") for row in rows)


def test_fewer_epochs_than_done_are_refused(finished_run):
    config = TrainConfig.model_validate(finished_run.read_config()["settings"])
    with pytest.raises(ConfigError, match="has 2 epochs already"):
        train(config.model_copy(update={"epochs": 1}), resume=finished_run.path)


def test_config_json_tells_every_machine_that_the_run_saw(tiny_config):
    train(tiny_config)
    run = train(tiny_config.model_copy(update={"epochs": 3}), resume=tiny_config.out)
    assert [entry["from_image"] for entry in run.read_config()["ran_on"]] == [0, 200]


def test_a_folder_with_someones_files_is_refused_untouched(tiny_config):
    tiny_config.out.mkdir()
    theirs = tiny_config.out / "model.safetensors"
    theirs.write_text("theirs")
    with pytest.raises(RunExistsError, match=r"model\.safetensors is there"):
        train(tiny_config)
    assert theirs.read_text() == "theirs"


def test_each_epoch_shows_every_image_once():
    config = TrainConfig(data="digits", batch_size=4)
    plan = BatchPlan(config, torch.arange(10))
    epochs = [plan.batches(epoch) for epoch in range(2)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted(torch.cat(batches).tolist()) == list(range(10))
    assert torch.cat(epochs[0]).tolist() != torch.cat(epochs[1]).tolist()
    assert plan.total_images == 10 * config.epochs


def test_an_incomplete_batch_can_be_left_out():
    plan = BatchPlan(
        TrainConfig(data="digits", batch_size=4, drop_last=True, epochs=2), torch.arange(10)
    )
    assert [len(batch) for batch in plan.batches(0)] == [4, 4]
    assert plan.total_images == 16


def test_a_single_image_joins_the_last_batch():
    plan = BatchPlan(TrainConfig(data="digits", batch_size=4), torch.arange(9))
    assert [len(batch) for batch in plan.batches(0)] == [4, 5]


@pytest.mark.parametrize(("count", "drop_last"), [(1, False), (3, True)])
def test_too_few_images_are_refused(count, drop_last):
    with pytest.raises(ConfigError, match="lower `batch_size`"):
        BatchPlan(
            TrainConfig(data="digits", batch_size=4, drop_last=drop_last), torch.arange(count)
        )


def test_images_are_limited_and_resized(tiny_config):
    config = tiny_config.model_copy(update={"image_size": (16, 24)})
    assert load_images(config, "train").images.shape == (100, 1, 16, 24)
    assert len(load_images(config, "test")) > 300


def test_the_mean_pixel_is_of_each_channel():
    images = torch.randint(0, 256, (2500, 3, 8, 9), dtype=torch.uint8)
    rows = torch.arange(0, 2500, 2)
    torch.testing.assert_close(
        mean_pixel(images[rows].split(7)), (images[rows] / 255).mean((0, 2, 3))
    )


def test_too_small_images_leave_nothing_behind(tiny_config):
    with pytest.raises(ImageSizeError):
        train(tiny_config.model_copy(update={"image_size": (4, 4)}))
    assert not tiny_config.out.exists()


def test_every_setting_is_printed_at_the_start(tiny_config, capsys):
    train(tiny_config, Console(width=200))
    text = capsys.readouterr().out
    for name, value in resolve(tiny_config)[0].model_dump(mode="json").items():
        assert f"  {name} = {value}\n" in text
    assert "precision = auto" not in text
    assert "M trainable parameters" in text
    assert "epoch 2/2" in text
    assert "on cpu" in text
    assert "none held out; val_* are of the 360 test images, which choose nothing" in text


def test_a_call_from_python_shows_a_line_an_epoch_and_no_settings(tiny_config, capsys):
    train(tiny_config)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert lines[-1] == f"wrote {tiny_config.out}"
    assert not any(" = " in line for line in lines)


def test_a_quiet_call_shows_nothing(tiny_config, capsys):
    train(tiny_config, Console(quiet=True))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "pooled", "likelihood": "bernoulli", "mc_samples": 3, "optimizer": "adam"},
        {"network": "transposed", "clip_norm": 1.0, "schedule": "one-cycle", "beta": 4.0},
        {
            "drop_last": True,
            "head_bias": "zero",
            "output_bias": "mean",
            "preview": False,
            "ema_images": 100,
        },
        {"likelihood": "gaussian-learned", "posterior": "full", "objective": "iwae"},
        {"likelihood": "gaussian-optimal", "prior": "mixture", "prior_components": 5},
        {
            "likelihood": "discretized-logistic-mixture",
            "network": "residual",
            "prior": "vamp",
            "prior_components": 4,
            "objective": "dreg",
            "mc_samples": 2,
        },
        {"likelihood": "laplace", "free_bits": 0.1, "kl_schedule": "cyclical"},
        {"likelihood": "continuous-bernoulli", "optimizer": "muon", "output_bias": "mean"},
        {"likelihood": "discretized-logistic", "output_bias": "mean", "network": "transposed"},
        {"likelihood": "bernoulli", "binarize": "static"},
        {"posterior": "flow", "prior": "flow", "ema_images": 100},
        {"objective": "beta-tc", "beta": 6.0, "latent_dims": 3},
        {"capacity": 3.0, "beta": 10.0, "kl_warmup": 100},
        {"mmd": 100.0, "beta": 0.0, "posterior": "full"},
    ],
)
def test_combinations_of_settings_train(settings, tiny_config):
    run = train(tiny_config.model_copy(update=settings))
    assert load_metadata(run.path).epochs == 2


def test_real_mnist_learns_fast(fewer_digits, tmp_path):
    """After six epochs of 2,048 images the loss is half of what the mean image would give."""
    config = TrainConfig.checked(
        {
            **load_recipe("lux-cvae"),
            "data": "mnist",
            "image_size": (32, 32),
            "epochs": 6,
            "preview": False,
            "out": tmp_path / "run",
        },
        "test",
    )
    rows = [row for row in train(config).read_metrics() if row["event"] == "epoch"]
    x = to_unit(load_images(config, "train").images)
    mean_image = 128 * ((x - x.mean(0)) ** 2).sum((1, 2, 3)).mean().item()
    assert rows[-1]["train_squared_error_and_kl"] < 0.7 * mean_image
