"""`convvae impute` and `convvae denoise`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from convvae import data, errors
from convvae.cli.main import main
from convvae.evaluation.masks import missing_pixels
from convvae.model.checkpoint import load_model, save_model


@pytest.fixture
def run(finished_run, tmp_path, capsys):
    def command(name, *words):
        line = [name, str(finished_run.path), "digits", "--limit", "6", "--outdir", str(tmp_path)]
        code = main([*line, "--overwrite", *words])
        return code, capsys.readouterr()

    return command


def test_missing_pixels_are_completed_and_the_others_stay(run, tmp_path):
    words = ("--mask", "box:0,4,8,4", "--completions", "3", "--steps", "4")
    assert run("impute", *words)[0] == 0
    with np.load(tmp_path / "imputed.npz") as found:
        arrays = {name: found[name] for name in found.files}
    assert arrays["completions"].shape == (3, 6, 1, 8, 8)
    assert arrays["missing"][:, 0, 4:].all()
    assert not arrays["missing"][:, 0, :4].any()
    images = data.load("digits", "test", limit=6).images.numpy() / 255
    for name in ("completions", "mean"):
        np.testing.assert_allclose(arrays[name][..., :4, :], np.broadcast_to(
            images[..., :4, :], arrays[name][..., :4, :].shape), atol=1e-6)  # fmt: skip
        assert np.abs(arrays[name][..., 4:, :] - images[..., 4:, :]).max() > 0.01
    assert (arrays["spread"][..., :4, :] == 0).all()
    assert (arrays["spread"][..., 4:, :] > 0).all()
    written = (tmp_path / "imputed.npz").read_bytes()
    assert run("impute", *words)[0] == 0
    assert (tmp_path / "imputed.npz").read_bytes() == written
    with Image.open(tmp_path / "imputed.png") as picture:
        assert picture.width > 400


def test_noise_is_taken_away(run, tmp_path):
    code, said = run("denoise", "--noise", "0.3", "--samples", "5")
    assert code == 0
    assert "of 5 draws carry the weight" in said.out
    with np.load(tmp_path / "denoised.npz") as found:
        assert found["mean"].shape == found["spread"].shape == (6, 1, 8, 8)
        assert ((found["effective"] >= 1 - 1e-4) & (found["effective"] <= 5 + 1e-4)).all()
    assert (tmp_path / "denoised.png").exists()


def test_a_mask_that_cannot_be_is_one_line(run, tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((8, 9)))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n")
    for mask, error, reason in (
        (tmp_path / "wide.npy", errors.ConfigError, "is 8x9, and the 6 images are 8x8"),
        (tmp_path / "words.npy", errors.ConfigError, "holds no numbers"),
        (tmp_path / "cut.png", errors.CorruptDataError, "cannot read the mask"),
        ("box:0,0,8,8", errors.ConfigError, "leaves no pixel"),
        ("box:1,0,8,8", errors.ConfigError, "inside of 8x8"),
        ("random:1.5", errors.ConfigError, "between 0 and 1"),
        ("random:0.001", errors.ConfigError, "nothing is missing"),
        ("all", errors.ConfigError, "no mask 'all'"),
    ):
        code, said = run("impute", "--mask", str(mask))
        assert code == error.exit_code
        assert reason in said.err
        assert len(said.err.splitlines()) == 1


def test_masks_are_what_they_say(tmp_path):
    picture = np.zeros((4, 6), np.uint8)
    picture[1, 2] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", picture > 0)
    for name in ("mask.png", "mask.npy", "box"):
        mask = str(tmp_path / name) if name != "box" else "box:2,1,1,1"
        found = missing_pixels(mask, 3, (4, 6), 0)
        assert found.shape == (3, 1, 4, 6)
        assert torch.equal(found, torch.from_numpy(picture > 0).expand(3, 1, 4, 6))
    drawn = missing_pixels("random:0.5", 5, (4, 6), 1)
    assert drawn.flatten(1).sum(1).tolist() == [12] * 5
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[:2], missing_pixels("random:0.5", 2, (4, 6), 1))


@pytest.fixture
def holes(tmp_path):
    """Six digits of which pixels are NaN."""
    images = data.load("digits", "test", limit=6).images.numpy()[:, 0] / 255
    missing = np.random.default_rng(0).random(images.shape) < 0.4
    np.save(tmp_path / "holes.npy", np.where(missing, np.nan, images))
    return tmp_path / "holes.npy", missing


def test_marked_pixels_are_completed_and_left_out_of_bounds(finished_run, holes, tmp_path, capsys):
    path, missing = holes
    line = [str(finished_run.path), str(path), "--mask", "marked"]
    words = ["--completions", "2", "--steps", "2", "--outdir", str(tmp_path / "o")]
    assert main(["impute", *line, *words]) == 0
    with np.load(tmp_path / "o" / "imputed.npz") as found:
        assert set(map(bytes, found["missing"][:, 0])) == set(map(bytes, missing))
    assert main(["evaluate", *line, "--json", str(tmp_path / "e.json")]) == 0
    said = capsys.readouterr().out
    assert "nats per image, of observed pixels" in said
    assert f"note: {missing.mean():.1%} of the pixels are missing" in said
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["protocol"]["mask"] == "marked"
    assert found["observed"] == pytest.approx(1 - missing.mean())


def test_what_needs_whole_images_is_one_line(finished_run, holes, tmp_path, capsys):
    path, _ = holes
    model, out = str(finished_run.path), ["--outdir", str(tmp_path / "no")]
    for line, error, reason in (
        (["impute", model, "digits", "--mask", "marked", *out], errors.UsageError, "no pixel of"),
        (
            ["impute", model, str(path), "--mask", "random:0.5", *out],
            errors.CorruptDataError,
            "NaN",
        ),
        (
            ["evaluate", model, "digits", "--mask", "random:0.5", "--quality", "30"],
            errors.UsageError,
            "whole images",
        ),
        (["anomalies", model, str(path), *out], errors.CorruptDataError, "--mask marked"),
    ):
        assert main(line) == error.exit_code
        lines = capsys.readouterr().err.splitlines()
        assert reason in lines[-1]
    assert not (tmp_path / "no").exists()


def test_a_model_of_marked_images_asks_for_whole_ones(finished_run, holes, tmp_path, capsys):
    model = tmp_path / "model.safetensors"
    vae, facts = load_model(finished_run.path)
    update = {"data": str(holes[0]), "split": "none", "mask": "marked"}
    save_model(model, vae, facts.model_copy(update=update))
    for line in (["denoise", "--noise", "0.1"], ["anomalies", "--normal", "digits"]):
        words = [line[0], str(model), *line[1:], "--outdir", str(tmp_path / "no")]
        assert main(words) == errors.UsageError.exit_code
        last = capsys.readouterr().err.splitlines()[-1]
        assert "are missing, and" in last
        assert "complete them before (convvae impute)" in last
    assert not (tmp_path / "no").exists()
