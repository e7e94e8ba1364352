"""Calibrations that a model's file carries, heat maps, and PyOD's face of the estimator."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from convvae import errors
from convvae.anomalies.calibration import p_values
from convvae.anomalies.carried import carried
from convvae.anomalies.heatmaps import PixelCalibration, local_error
from convvae.anomalies.quantities import complexity, dissimilarity
from convvae.anomalies.scores import Reference, combination, corrected_error, gather, neighbours
from convvae.cli.main import main
from convvae.estimator import ConvVAE
from convvae.model.checkpoint import load_model
from convvae.model.vae import VAE

WORDS = ["--samples", "2", "--worst", "3", "--limit", "30"]


@pytest.fixture
def model(finished_run, tmp_path):
    """A copy of a trained model's file."""
    return shutil.copy(finished_run.path / "model.safetensors", tmp_path / "model.safetensors")


def said(model, tmp_path, name, *words):
    """The report and the lines of a call."""
    folder = tmp_path / name
    assert main(["anomalies", str(model), *WORDS, "--outdir", str(folder), *words]) == 0
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    return json.loads((folder / "report.json").read_text()), rows


def test_a_calibration_is_written_once_and_used_later(model, tmp_path, capsys):
    before = load_model(model)[0].state_dict()
    train = ("--normal", "digits", "--normal-part", "train", "--normal-limit", "90")
    first, rows = said(model, tmp_path, "a", *train, "--calibrate", "--score", "auto")
    score = first["score"]
    assert first["chosen_by"][score] == max(first["chosen_by"].values())
    assert "chosen by normal images made abnormal" in capsys.readouterr().out
    after = load_model(model)[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()
    later, same = said(model, tmp_path, "b")
    assert (later["score"], later["normal_images"]) == (score, 90)
    assert said(model, tmp_path, "c", "--score", "auto")[0]["score"] == score
    assert "carried by the model" in later["normal"]
    for row, other in zip(rows, same, strict=True):
        assert row["combination_p"] == other["combination_p"]
        assert float(row["neighbours"]) == pytest.approx(float(other["neighbours"]), rel=1e-6)
    capsys.readouterr()
    for words, reason in (
        (["--calibrate"], "carries a calibration; --overwrite replaces it"),
        (["--samples", "3"], "carries a calibration by 2"),
        (["--normal-limit", "5"], "no normal images are read"),
    ):
        line = ["anomalies", str(model), "--outdir", str(tmp_path / "no"), *words]
        assert main(line) == errors.UsageError.exit_code
        assert reason in capsys.readouterr().err


def test_what_cannot_be_done_is_one_line(model, tmp_path, capsys):
    out = ["--outdir", str(tmp_path / "no")]
    for line, reason in (
        (["anomalies", "mnist-2d", "--calibrate", *out], "shipped with convvae and stays as it is"),
        (["anomalies", str(model), "--score", "bounds_ratio", *out], "groups of latents"),
    ):
        assert main(line) == errors.UsageError.exit_code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert reason in lines[0]
    assert not (tmp_path / "no").exists()


def test_a_cut_calibration_is_said(model, tmp_path):
    from convvae.model.checkpoint import load_tensors, save_tensors

    said(model, tmp_path, "a", "--calibrate")
    assert carried(model) is not None
    tensors, header = load_tensors(model)
    del tensors["anomalies.whiten"]
    save_tensors(model, tensors, header)
    with pytest.raises(errors.ModelFileError, match="is not whole"):
        carried(model)


def test_heat_maps_are_written_as_array_and_picture(model, tmp_path):
    said(model, tmp_path, "a", "--heatmaps")
    with np.load(tmp_path / "a" / "heatmaps.npz") as found:
        assert found["p"].shape == (30, 8, 8)
        assert 0 < found["p"].min() < found["p"].max() <= 1
        assert sorted(found["order"]) == list(range(30))
    assert (tmp_path / "a" / "heatmaps.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def smooth():
    """An untrained model, and images of one kind: blurred noise."""
    from convvae.config import ModelConfig

    torch.manual_seed(0)
    vae = VAE(ModelConfig(image_size=(12, 10), channels=1, latent_dims=2, max_filters=8)).eval()
    noise = torch.rand(12_500, 1, 12, 10, generator=torch.Generator().manual_seed(1))
    images = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    return vae, (255 * images).round().to(torch.uint8)


def test_p_values_of_normal_images_are_uniform(smooth):
    vae, images = smooth
    evidence = gather(vae, images)
    normal, new = (type(evidence)(*part) for part in zip(
        *((values[:2500], values[2500:]) for values in evidence), strict=True))  # fmt: skip
    reference = Reference.of(normal)

    def score(some, member):
        far = neighbours(some, reference, member)
        return combination(corrected_error(some, reference), far, reference)

    members = torch.ones(2500, dtype=torch.bool)
    none = torch.zeros(10_000, dtype=torch.bool)
    p = p_values(score(new, none), score(normal, members), none)
    shares = torch.linspace(0.05, 0.95, 19, dtype=torch.double)
    found = torch.stack([(p <= share).double().mean() for share in shares])
    # 4 standard errors of a share, of 2,500 images that calibrate and 10,000 new ones.
    assert (found - shares).abs().max() < 4 * 0.5 * (1 / 2500 + 1 / 10_000) ** 0.5


def test_p_values_of_normal_pixels_are_uniform(smooth):
    vae, images = smooth
    errors_of = local_error(vae, images)
    pixels = PixelCalibration.of(errors_of[:2500])
    p = pixels.p_values(errors_of[2500:])
    assert p.shape == (10_000, 12, 10)
    for rank in pixels.ranks[::10].tolist():
        share = rank / 2501
        spread = (share * (1 - share) * (1 / 2500 + 1 / 10_000)) ** 0.5
        found = (p <= share + 1e-7).double().mean(0)
        assert (found - share).abs().max() < 5 * spread
        assert (found.mean() - share).abs() < 3 * spread


def test_pixels_by_some_ranks_are_never_too_small_and_exact_where_all_are_kept():
    generator = torch.Generator().manual_seed(3)
    normal, new = torch.rand(400, 2, 3, generator=generator), torch.rand(50, 2, 3)
    exact = (1 + (normal >= new.unsqueeze(1)).sum(1)) / 401
    found = PixelCalibration.of(normal).p_values(new)
    assert (found >= exact - 1e-6).all()
    assert (found <= 1.2 * exact + 1e-6).all()
    few = PixelCalibration.of(normal[:20]).p_values(new)
    torch.testing.assert_close(few, (1 + (normal[:20] >= new.unsqueeze(1)).sum(1)) / 21)


def test_a_blot_is_found_where_it_is(smooth):
    vae, images = smooth
    pixels = PixelCalibration.of(local_error(vae, images[:1000]))
    blotted = images[2000:2010].clone()
    blotted[:, :, 2:5, 6:9] = 255
    p = pixels.p_values(local_error(vae, blotted))
    assert (p[:, 3, 7] <= 2 / 1001).all()
    assert p[:, 8:, :3].mean() > 0.3


def test_quantities_are_those_of_their_equations():
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 4:8, 4:8] = 1.0
    torch.testing.assert_close(complexity(x).expm1(), torch.tensor([[16.0, 32 / 2]]))
    assert dissimilarity(x, x).item() == pytest.approx(0, abs=1e-6)
    assert dissimilarity(x, 1 - x).item() > dissimilarity(x, 0.5 * x).item() > 0.01


def test_the_estimator_has_the_face_of_pyod():
    generator = np.random.default_rng(0)
    normal = generator.normal(0.3, 0.05, (120, 64)).clip(0, 1)
    odd = normal[:10].copy()
    odd[:, 20:36] = 1.0
    model = ConvVAE(
        2, max_filters=8, epochs=2, random_state=0, pixel_range=(0, 1), contamination=0.2
    )
    with pytest.raises(NotFittedError):
        model.decision_function(normal)
    model.fit(normal)
    assert model.labels_.shape == model.decision_scores_.shape == (120,)
    assert model.labels_.sum() == 24
    assert ((model.decision_scores_ > model.threshold_) == model.labels_).all()
    assert model.predict(odd).tolist() == [1] * 10
    assert (model.predict(normal) == (model.decision_function(normal) > model.threshold_)).all()
    chances = model.predict_proba(odd)
    np.testing.assert_allclose(chances.sum(1), 1)
    assert (chances[:, 1] == 1).all()
    assert model.p_values(odd) == pytest.approx(1 / 121)
    model.calibrate(normal[:40])
    assert model.p_values(odd) == pytest.approx(1 / 41)
    with pytest.raises(errors.ConfigError, match="contamination"):
        model.set_params(contamination=0.9).fit(normal)
