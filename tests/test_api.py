"""The public face: arrays in, arrays out, and no run folder."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import convvae
from convvae import ModelConfig, TrainConfig
from convvae.api import Trained
from convvae.errors import (
    ConfigError,
    CorruptDataError,
    ImageSizeError,
    NonFiniteLossError,
    StoppedError,
)
from convvae.evaluation.evaluate import evaluate
from convvae.training.callbacks import Callback

QUIET = Console(quiet=True)
TINY = {"latent_dims": 2, "max_filters": 4, "batch_size": 16, "epochs": 1, "device": "cpu"}


@pytest.fixture
def pixels():
    """Images uint8 [N, H, W, C], higher than wide."""
    return np.random.default_rng(0).integers(0, 256, (12, 9, 8, 3), dtype=np.uint8)


@pytest.fixture
def model():
    config = ModelConfig(image_size=(9, 8), channels=3, latent_dims=2, max_filters=4)
    return convvae.VAE(config).eval()


def layouts(pixels):
    """The same images in every way in which they may come."""
    first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    read_only = pixels.view()
    read_only.flags.writeable = False
    return [
        pixels,
        first,
        read_only,
        pixels / 255,
        first.astype(np.float32) / 255,
        torch.from_numpy(pixels),
        torch.from_numpy(first) / 255,
        (pixels / 255)[:, ::-1][:, ::-1],
        pixels.astype(np.uint16) << 8,
        convvae.load_images(pixels),
    ]


def test_all_layouts_and_types_are_the_same_images(pixels):
    for given in layouts(pixels):
        found = convvae.load_images(given)
        assert found.images.dtype == torch.uint8
        assert torch.equal(found.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))


def test_grey_images_need_no_channel_axis(pixels):
    grey = pixels[..., 0]
    assert torch.equal(convvae.load_images(grey).images[:, 0], torch.from_numpy(grey))
    black_or_white = convvae.load_images(grey > 100).images
    assert set(black_or_white.unique().tolist()) == {0, 255}
    half = torch.tensor([[[0.5]]], dtype=torch.bfloat16).expand(2, 8, 8)
    assert convvae.load_images(half).images.unique().tolist() == [128]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3, 8, 4), np.uint8), "both axis 1 and axis 3 could be the channels"),
        (np.zeros((2, 8, 8, 8), np.uint8), r"expected \[N, H, W\]"),
        (np.zeros((8, 8), np.uint8), r"expected \[N, H, W\]"),
        (np.zeros((0, 8, 8), np.uint8), r"expected \[N, H, W\]"),
        (np.full((2, 8, 8), 255.0), r"floats from 255 to 255; expected \[0, 1\]"),
        (np.full((2, 8, 8), np.nan), "image 0 holds NaN"),
        (np.zeros((2, 8, 8), np.int64), "dtype int64"),
        (torch.full((2, 8, 8), -0.1), "floats from -0.1"),
    ],
)
def test_what_is_no_images_or_could_be_two_is_refused(values, message):
    with pytest.raises(CorruptDataError, match=f"the array .*{message}|{message}"):
        convvae.load_images(values)


def test_an_array_is_resized_and_cut_as_asked(pixels):
    assert convvae.load_images(pixels, image_size=16).images.shape == (12, 3, 16, 16)
    found = convvae.load_images(pixels, "test", image_size=(8, 8), channels=1, crop=True, limit=5)
    assert found.images.shape == (5, 1, 8, 8)
    assert found.split == "test"
    for wrong in ({"limit": 13}, {"limit": 0}, {"skip_bad": True}, {"split": "0.1"}):
        with pytest.raises(ConfigError):
            convvae.load_images(pixels, **wrong)


def test_a_source_is_loaded_as_by_data(tmp_path):
    digits = convvae.load_images("digits", "test", limit=7)
    assert digits.images.shape == (7, 1, 8, 8)
    assert digits.labels is not None
    np.save(path := tmp_path / "own.npy", digits.images.numpy())
    again = convvae.load_images(path, split="none")
    assert torch.equal(again.images, digits.images)


def test_the_numbers_are_those_of_the_rooms(model, pixels):
    given = convvae.load_images(pixels).images
    for images in (pixels, given, pixels / 255):
        found = convvae.evaluate(model, images, seed=3, mc_samples=2, samples=4)
        assert found == evaluate(model, given, seed=3, mc_samples=2, samples=4)
    codes = convvae.encode(model, pixels)
    assert codes.dtype == np.float32
    assert codes.shape == (12, 2)
    decoded = convvae.reconstruct(model, pixels)
    with torch.no_grad():
        x = given / 255
        np.testing.assert_allclose(codes, model.encode(x).location, atol=1e-5)
        np.testing.assert_allclose(decoded, model.decode(torch.tensor(codes)).mean, atol=1e-5)


def test_a_seed_draws_the_same_images(model):
    first = convvae.generate(model, 3, seed=1)
    assert first.shape == (3, 3, 9, 8)
    assert first.dtype == np.float32
    assert (first == convvae.generate(model, 3, seed=1)).all()
    assert (first != convvae.generate(model, 3, seed=2)).any()
    with pytest.raises(ConfigError, match="at least 1 image"):
        convvae.generate(model, 0)


@pytest.mark.parametrize("function", [convvae.evaluate, convvae.encode, convvae.reconstruct])
def test_images_that_do_not_fit_the_model_are_told_how_they_would(function, model):
    small = np.zeros((4, 16, 16), np.uint8)
    with pytest.raises(
        ImageSizeError, match=r"1x16x16.*3x9x8; load_images\(images, image_size=\(9"
    ):
        function(model, small)
    function(model, convvae.load_images(small, image_size=(9, 8), channels=3))


def test_training_on_an_array_leaves_nothing_behind(pixels, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trained = convvae.train(pixels, **TINY)
    assert isinstance(trained, Trained)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("convvae", "runs"))]
    out = capsys.readouterr().out
    assert "epoch 1/1" in out
    assert str(tmp_path) not in out
    assert not trained.model.training
    assert trained.model.config.image_size == (9, 8)
    assert trained.metadata.epochs == 1
    assert [row["event"] for row in trained.metrics] == ["epoch"]


def test_an_array_trains_as_its_file_does(pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    np.save(path := tmp_path / "own.npy", pixels)
    settings = {**TINY, "binarize": "dynamic", "augment": "flip", "optimizer": "muon"}
    own = convvae.train(pixels, QUIET, **settings)
    config = TrainConfig(
        data=str(path), split="none", preview=False, report=False, out=tmp_path / "run", **settings
    )
    run = convvae.train(config, QUIET)
    theirs, _ = convvae.load_model(run.path)
    for mine, other in zip(
        own.model.state_dict().values(), theirs.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, other)


def test_a_source_trains_into_a_folder_that_is_asked_for(tmp_path):
    trained = convvae.train(
        "digits", QUIET, recipe="mlx-cvae", limit=40, out=tmp_path / "run", report=False, **TINY
    )
    assert trained.metadata.data == "digits"
    assert trained.metadata.recipe == "mlx-cvae"
    assert trained.model.config.max_filters == 4
    assert convvae.load_model(tmp_path / "run")[1] == trained.metadata


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, r"no setting 'epoch' \(did you mean epochs\?\)"),
        ({"data": "digits"}, "no setting 'data'"),
        ({"out": "run"}, "out is for images on disk"),
        ({"split": "0.1"}, "split is for images on disk"),
        ({"epochs": 0}, "train: epochs"),
        ({"resume": Path("run")}, "give its TrainConfig"),
    ],
)
def test_a_bad_setting_is_one_line(settings, message, pixels):
    with pytest.raises(ConfigError, match=message):
        convvae.train(pixels, **settings)


def test_a_config_takes_no_settings_beside_it(tiny_config):
    with pytest.raises(ConfigError, match="epochs goes into the TrainConfig"):
        convvae.train(tiny_config, epochs=3)


def test_a_training_that_is_stopped_says_that_nothing_is_kept(pixels, tmp_path, monkeypatch):
    class Stop(Callback):
        def start(self, run):
            run.stop.set()

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(StoppedError, match="nothing of it is kept") as caught:
        convvae.train(pixels, QUIET, callbacks=[Stop()], **TINY)
    assert str(tmp_path) not in str(caught.value)
    assert not list(tmp_path.glob("convvae-*"))


def test_a_loss_that_is_not_finite_names_no_file(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(NonFiniteLossError, match="lower lr") as caught:
        convvae.train(pixels, QUIET, **{**TINY, "lr": 1e30, "epochs": 3})
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["train", "load_images", "evaluate", "generate", "reconstruct", "encode", "load_model"]
)
def test_help_says_shapes_errors_and_what_comes_back(name):
    text = getattr(convvae, name).__doc__
    assert "Args:" in text
    assert "Raises:" in text
    assert "[N, " in text or name in ("train", "load_model", "evaluate")
