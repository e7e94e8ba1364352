"""`convvae edit`: images moved toward a label, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from convvae import encode, errors
from convvae.cli.main import main
from convvae.config import Condition
from convvae.data import load
from convvae.evaluation.encode import decode
from convvae.images.sheets import save_png
from convvae.model.checkpoint import load_model, save_model
from convvae.model.vae import VAE


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))


def test_images_of_the_training_toward_a_label(finished_run, capsys):
    words = ["edit", str(finished_run.path), "--limit", "4", "--toward", "3", "--away", "0"]
    assert main(words) == 0
    said = capsys.readouterr().out
    # Of the 1,437 training images, not of the test images that are edited.
    count = [int((load("digits").labels == label).sum()) for label in (0, 3)]
    assert f"direction from 0 ({count[0]} images) toward 3 ({count[1]}): midway" in said
    assert "4 images of digits at 6 strengths" in said
    with np.load("edited/edited.npz") as file:
        found = dict(file)
    assert found["edited"].shape == (6, 4, 1, 8, 8)
    assert found["strength"].tolist() == [-1, -0.5, 0, 0.5, 1, 1.5]
    vae, _ = load_model(finished_run.path)
    train = load("digits")
    codes = encode(vae, train.images)
    step = codes[train.labels == 3].mean(0) - codes[train.labels == 0].mean(0)
    np.testing.assert_allclose(found["direction"], step, atol=1e-4)
    moved = torch.from_numpy(found["z"]) + 1.5 * torch.from_numpy(found["direction"])
    np.testing.assert_allclose(found["edited"][5], decode(vae, moved).numpy(), atol=1e-5)
    assert Path("edited/edited.png").stat().st_size > 2000


def test_one_file_is_edited_with_labels_from_elsewhere(finished_run, capsys):
    images = load("digits", "test", limit=30)
    for number, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        folder = Path("all") / ("even", "odd")[int(label) % 2]
        folder.mkdir(parents=True, exist_ok=True)
        save_png(folder / f"{number}.png", image)
    save_png(Path("mine.png"), images.images[0])
    words = ["edit", str(finished_run.path), "mine.png", "--labels-from", "all", "--toward", "odd"]
    words += ["--method", "logistic", "--strength", "-0.8", "0.8", "--outdir", "out"]
    assert main(words) == 0
    assert "1 images of mine.png at 2 strengths" in capsys.readouterr().out
    with np.load("out/edited.npz") as file:
        assert file["edited"].shape == (2, 1, 1, 8, 8)
        np.testing.assert_array_equal(file["images"][0], images.images[0])
        assert file["strength"].tolist() == pytest.approx([-0.8, 0.8])


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["run"], errors.UsageError, "Missing: --toward"),
        (["run", "--toward", "ten"], errors.ConfigError, "none of the images of digits has the"),
        (["run", "--toward", "3", "--away", "3"], errors.ConfigError, "needs images of another"),
        (["run", "--toward", "a", "--labels-from", "plain"], errors.ConfigError, "--labels-from"),
        (["run", "--toward", "3", "--strength", "far"], errors.UsageError, "'far' is not a number"),
        (["run", "--toward", "3", "--strength"], errors.ConfigError, "strength"),
        (["run", "nothing.png", "--toward", "3"], errors.UnknownDataError, "no file or folder"),
    ],
)
def test_what_is_refused(run_like, words, error, says, capsys):
    run_like("run", 1)
    Path("plain").mkdir()
    save_png(Path("plain/0.png"), load("digits", limit=1).images[0])
    assert main(["edit", *words]) == error.exit_code
    said = capsys.readouterr().err.splitlines()
    assert says in said[-1]
    assert len([line for line in said if line.startswith("convvae: ")]) == 1
    assert not Path("edited").exists()


def test_a_model_that_is_told_labels_points_to_generate(finished_run, capsys):
    vae, metadata = load_model(finished_run.path)
    told = Condition(labels=tuple("0123456789"), counts=(1,) * 10)
    config = vae.config.model_copy(update={"condition": told})
    save_model("told.safetensors", VAE(config), metadata.model_copy(update={"model": config}))
    assert main(["edit", "told.safetensors", "--toward", "3"]) == errors.UsageError.exit_code
    assert "use `convvae generate` with --label, or the choice of the label" in (
        capsys.readouterr().err
    )
