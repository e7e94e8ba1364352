"""Every command on a ladder: a hierarchy is a model like any other."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from convvae.cli.main import main
from convvae.evaluation import groups
from convvae.evaluation.reconstruction import reconstruct
from convvae.model.checkpoint import load_model

PLAN = ["--network", "ladder", "--max-filters", "8", "--groups", "1", "2", "--group-channels", "2"]
TRAINED = ["train", "digits", "--image-size", "16", "--limit", "120", "--epochs", "1", "--cpu"]
QUIET = ["--no-preview", "--no-report", "--validation", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder") / "run"
    words = [*TRAINED, *PLAN, *QUIET, "--free-bits", "0.5", "--ema-images", "100"]
    assert main([*words, "--skip-norm", "1e9", "--out", str(folder)]) == 0
    return folder


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def test_it_is_evaluated_with_the_kl_of_every_group(run, tmp_path, capsys):
    out = tmp_path / "numbers.json"
    words = ["evaluate", str(run), "--limit", "20", "--samples", "5", "--json", str(out)]
    assert main(words) == 0
    assert "KL of 4x4.1" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert list(found["kl_per_group"]) == ["4x4.1", "8x8.1", "8x8.2"]
    total = sum(part["mean"] for part in found["kl_per_group"].values())
    assert total == pytest.approx(found["kl"]["mean"], rel=1e-4)
    assert found["kl_per_latent"] is None


def test_its_outline_is_the_embedding(run, tmp_path):
    vae, _ = load_model(run)
    assert main(["encode", str(run), "--out", str(tmp_path / "z.npz"), "--limit", "9"]) == 0
    found = np.load(tmp_path / "z.npz")
    assert found["mu"].shape == found["logvar"].shape == (9, vae.config.outline)
    assert np.isfinite(found["logvar"]).all()


def test_anomalies_are_scored(run, tmp_path):
    out = tmp_path / "odd"
    assert main(["anomalies", str(run), "--outdir", str(out), "--samples", "2"]) == 0
    assert (out / "scores.csv").exists()


def test_figures_show_what_each_level_holds(run, tmp_path):
    words = ["figures", str(run), "--only", "levels", "samples", "manifold", "traversals"]
    assert main([*words, "--limit", "40", "--out", str(tmp_path / "figures")]) == 0
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} >= {"levels", "manifold"}


def test_the_page_and_the_explorer_take_it(run, tmp_path):
    assert main(["explore", str(run), "--limit", "40", "--html", str(tmp_path / "e.html")]) == 0
    assert (tmp_path / "e.html").stat().st_size > 100_000


def test_samples_have_a_temperature_for_each_resolution(run, tmp_path):
    path = tmp_path / "cold.png"
    words = ["generate", str(run), "--count", "4", "--rows", "2", "--outfile", str(path)]
    assert main([*words, "--temperature", "0.7", "0"]) == 0
    assert size_of(path)[0] > 16


def test_a_temperature_of_none_gives_the_prior_its_mean_path(run):
    vae, _ = load_model(run)
    cold = groups.generate_at(vae, 3, seed=0, temperature=(0.0,))
    torch.testing.assert_close(cold[0], cold[2])
    warm = groups.generate_at(vae, 3, seed=0)
    assert not torch.equal(warm[0], warm[2])


def test_held_groups_are_the_same_in_all_samples(run):
    vae, _ = load_model(run)
    all_held = groups.generate_at(vae, 3, seed=0, hold=3)
    torch.testing.assert_close(all_held[0], all_held[2])
    one_held = groups.generate_at(vae, 3, seed=0, hold=1)
    assert not torch.allclose(one_held[0], one_held[2])


def test_reconstruction_from_all_groups_is_the_reconstruction(run):
    vae, _ = load_model(run)
    images = torch.randint(256, (5, 1, 16, 16), dtype=torch.uint8)
    whole = groups.reconstruct_from_top(vae, images, 3)
    torch.testing.assert_close(whole, reconstruct(vae, images))
    assert not torch.allclose(groups.reconstruct_from_top(vae, images, 1), whole)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "--temperature", "-1"], "give one of at least 0"),
        (["generate", "--temperature", "1", "1", "1"], "or 2, one for each resolution"),
        (["generate", "--hold", "4"], "the model has only 3"),
        (["generate", "--sampler", "mixture"], "leave out --sampler"),
        (["reconstruct", "--top", "4"], "the model has only 3"),
    ],
)
def test_what_a_ladder_cannot_do_is_said_in_a_line(run, words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([words[0], str(run), *words[1:]]) == 3
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_model_without_groups_has_a_temperature_but_nothing_to_hold(tmp_path, capsys):
    out = ["--outfile", str(tmp_path / "s.png")]
    assert main(["generate", "mnist-2d", "--count", "2", "--temperature", "0.5", *out]) == 0
    assert main(["generate", "mnist-2d", "--hold", "1", "--overwrite", *out]) == 3
    assert "none, being of network pooled" in capsys.readouterr().err


def test_training_goes_on_from_a_model_with_its_architecture(run, tmp_path):
    out = tmp_path / "tuned"
    words = ["train", "digits", "--init", str(run), "--limit", "64", "--epochs", "1", "--cpu"]
    assert main([*words, "--lr", "1e-30", *QUIET, "--out", str(out)]) == 0
    (before, _), (after, _) = load_model(run), load_model(out)
    assert after.config == before.config
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weight)


def test_init_of_another_architecture_names_both_values(run, tmp_path, capsys):
    words = ["train", "digits", "--init", str(run), "--max-filters", "12", "--epochs", "1"]
    assert main([*words, "--out", str(tmp_path / "no")]) == 11
    error = capsys.readouterr().err
    assert "--max-filters 12 where that has 8" in error
    assert not (tmp_path / "no").exists()
