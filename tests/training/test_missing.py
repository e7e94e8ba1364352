"""Training on images of which pixels are missing."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from convvae import TrainConfig, evaluate, load_images
from convvae.api import train as train_on
from convvae.data.pixels import to_unit
from convvae.distributions import Head, Likelihood, register_likelihood
from convvae.errors import ConfigError
from convvae.model.checkpoint import load_metadata, load_tensors
from convvae.model.objectives import elbo
from convvae.training.augment import draw_moves, moved
from convvae.training.cuda_graph import PlainStep, StepInputs
from convvae.training.learner import Learner
from convvae.training.run import train
from convvae.training.schedules import step_settings

TINY = {
    "max_filters": 8,
    "latent_dims": 2,
    "epochs": 1,
    "batch_size": 32,
    "preview": False,
    "report": False,
    "device": "cpu",
}


@pytest.fixture
def holes(tmp_path):
    """Two files of the same images, what is at the missing pixels apart."""
    images = (load_digits().images[:100] / 16).astype(np.float32)
    missing = np.random.default_rng(0).random(images.shape) < 0.5
    np.save(tmp_path / "nan.npy", np.where(missing, np.nan, images))
    np.savez(tmp_path / "beside.npz", images=np.where(missing, 0.7, images), missing=missing)
    return tmp_path / "nan.npy", tmp_path / "beside.npz"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))


def run_of(data, out, **settings):
    wanted = {**TINY, "data": str(data), "split": "none", "out": out, **settings}
    return train(TrainConfig.checked(wanted, "test"))


@pytest.mark.parametrize(
    "settings",
    [
        {"output_bias": "mean", "augment": "flip-shift"},
        {"likelihood": "gaussian-optimal"},
        {"objective": "iwae", "mc_samples": 2, "likelihood": "discretized-logistic"},
    ],
)
def test_missing_pixels_take_no_part(holes, tmp_path, settings, capsys):
    runs = [
        run_of(data, tmp_path / name, mask="marked", validation=0, **settings)
        for data, name in zip(holes, ("a", "b"), strict=True)
    ]
    first, second = (load_tensors(run.model)[0] for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [json.loads(line) for line in runs[0].metrics.read_text().splitlines()]
    assert rows[-1]["val_observed"] == pytest.approx(0.5, abs=0.02)
    assert rows[-1]["val_squared_error_and_kl"] is None
    assert load_metadata(runs[0].path).mask == "marked"
    said = capsys.readouterr().out
    assert "of the training pixels; every bound is of the observed ones" in said


def test_a_step_minimises_the_bound_of_the_observed_pixels(tiny_config, tiny_model):
    """Moved with their images, and shared among processes with them."""
    learner = Learner(tiny_config, tiny_model, torch.device("cpu"), 100)
    before = copy.deepcopy(learner.vae)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (6, 1, 12, 10), generator=generator, dtype=torch.uint8)
    observed = torch.rand(6, 1, 12, 10, generator=generator) < 0.5
    eps = torch.randn(1, 6, 3, generator=generator)
    inputs = StepInputs(eps, draw_moves("flip-shift", 6, (12, 10), 0, 0), observed=observed)
    loss = PlainStep(learner)(pixels, inputs, step_settings(tiny_config, 0, 100))
    x, there = (moved(part, inputs.moves) for part in (to_unit(pixels), observed))
    expected = -elbo(before.observing(there), x, eps).bound.mean()
    torch.testing.assert_close(loss, expected.detach())
    assert not torch.equal(there, observed)
    share = inputs.share(slice(2, 5))
    assert torch.equal(share.observed, observed[2:5])
    assert torch.equal(share.moves, inputs.moves[2:5])


def test_the_recorded_bound_is_that_of_the_observed_pixels(holes, tmp_path):
    run = run_of(holes[0], tmp_path / "run", mask="marked", validation=0)
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    from convvae import load_model

    vae, _ = load_model(run.path)
    found = evaluate(vae, load_images(holes[0], split="none", mask="marked"))
    assert found.bound.mean == pytest.approx(rows[-1]["val_bound"], rel=1e-5)
    assert found.observed == pytest.approx(0.5, abs=0.02)
    assert found.ssim.not_defined == "pixels are missing"


def test_arrays_in_memory(holes):
    from rich.console import Console

    quiet = Console(quiet=True)
    made = train_on(np.load(holes[0]), quiet, mask="marked", **{**TINY, "validation": 0.2})
    assert made.metadata.mask == "marked"
    assert {"val_observed"} <= made.metrics[-1].keys()


def test_a_random_mask_is_drawn_by_the_seed(tmp_path):
    settings = {"limit": 100, "validation": 0, "split": "auto"}
    runs = [
        run_of("digits", tmp_path / f"{name}", mask="random:0.5", seed=seed, **settings)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, same, other = (load_tensors(run.model)[0]["encoder.conv1.weight"] for run in runs)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


class Whole(Likelihood):
    def __init__(self, mean):
        self._mean = mean

    @property
    def mean(self):
        return self._mean

    def log_prob(self, x):
        return -(x - self._mean).square().sum((-3, -2, -1))

    def sample(self, generator=None):
        return self._mean.cpu()


class WholeHead(Head):
    def forward(self, output):
        return Whole(output.sigmoid())


def test_what_cannot_be_is_said_before_there_is_a_folder(holes, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="no pixel of digits is missing; leave out `mask`"):
        run_of("digits", out, mask="marked", split="auto")
    register_likelihood("whole", WholeHead)
    with pytest.raises(ConfigError, match="Whole scores whole images only"):
        run_of(holes[0], out, mask="marked", likelihood="whole")
    with pytest.raises(ConfigError, match="no mask 'half'"):
        run_of("digits", out, mask="half", split="auto")
    assert not Path(out).exists()
