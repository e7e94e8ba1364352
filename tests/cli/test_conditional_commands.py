"""Every command on a model that is told labels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from convvae.cli.main import main
from convvae.errors import ConfigError
from convvae.estimator import ConvVAE
from convvae.model.checkpoint import load_model

TRAINED = ["train", "digits", "--limit", "150", "--epochs", "2", "--max-filters", "8", "--cpu"]
QUIET = ["--no-preview", "--batch-size", "50"]
LABELS = ["--condition", "label", "--prior", "conditional", "--ema-images", "100"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional") / "run"
    assert main([*TRAINED, *QUIET, *LABELS, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Images without labels."""
    path = tmp_path_factory.mktemp("bare") / "images.npy"
    pixels = torch.randint(0, 256, (20, 8, 8), dtype=torch.uint8)
    np.save(path, pixels.numpy())
    return str(path)


def test_the_file_and_the_report_know_the_labels(run):
    condition = load_model(run)[1].model.condition
    assert condition.labels == tuple("0123456789")
    assert sum(condition.counts) == 150
    assert "Samples of each label" in (run / "report.html").read_text()


def test_a_run_that_is_resumed_is_the_run_that_was_left_alone(tmp_path):
    words = ["--no-preview", "--no-report", *LABELS[:2], "--batch-size", "50"]
    for name, epochs in (("whole", "2"), ("parts", "1")):
        line = [*TRAINED[:4], "--epochs", epochs, *TRAINED[6:], *words]
        assert main([*line, "--out", str(tmp_path / name)]) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--epochs", "2"]) == 0
    whole, parts = (load_model(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_samples_have_the_label_that_is_asked_for(run, tmp_path, capsys):
    paths = [tmp_path / f"{name}.png" for name in ("three", "four", "any")]
    for path, label in zip(paths, (["--label", "3"], ["--label", "4"], []), strict=True):
        words = ["generate", str(run), "--count", "12", "--rows", "2", "--outfile", str(path)]
        assert main([*words, *label]) == 0
    assert "12 samples of" in capsys.readouterr().out
    three, four, drawn = (np.asarray(Image.open(path)) for path in paths)
    assert (three != four).any()
    assert (three != drawn).any()


def test_a_label_that_the_model_does_not_know_is_refused(run, tmp_path, capsys):
    out = tmp_path / "x.png"
    assert main(["generate", str(run), "--label", "cat", "--outfile", str(out)]) == 3
    said = capsys.readouterr().err
    assert "does not know the label 'cat'; it knows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in said
    assert not out.exists()


def test_an_unconditional_model_is_asked_for_no_label(tmp_path, capsys):
    out = ["--outfile", str(tmp_path / "x.png")]
    assert main(["generate", "mnist-2d", "--label", "3", *out]) == 3
    assert "leave out --label, or train with --condition label" in capsys.readouterr().err


def test_the_evaluation_has_the_bound_without_the_label_and_the_classifier(run, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    words = ["evaluate", str(run), "--limit", "30", "--samples", "2", "--json", str(path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "label accuracy" in said
    assert "the bounds above are of log p(x|y)" in said
    found = json.loads(path.read_text())["labels"]
    assert found["labels"] == 10
    assert 0 <= found["accuracy"]["mean"] <= 1
    assert found["samples"] == 2


def test_it_is_encoded_rebuilt_and_drawn(run, tmp_path):
    assert main(["encode", str(run), "--out", str(tmp_path / "z.npz"), "--limit", "9"]) == 0
    assert np.load(tmp_path / "z.npz")["mu"].shape == (9, 8)
    words = ["--count", "8", "--rows", "2", "--rec_testdata"]
    assert main(["reconstruct", str(run), "--outdir", str(tmp_path / "r"), *words]) == 0
    chosen = ["labels", "class-means", "extremes", "interpolations", "manifold"]
    out = str(tmp_path / "f")
    assert main(["figures", str(run), "--limit", "60", "--only", *chosen, "--out", out]) == 0
    assert {path.stem for path in (tmp_path / "f").glob("*.png")} == set(chosen)


@pytest.mark.parametrize(
    "command",
    [
        ["encode", "--out", "z.npz"],
        ["reconstruct", "--outdir", "r"],
        ["evaluate"],
        ["figures", "--out", "f"],
        ["report", "--out", "page.html"],
        ["explore", "--html", "page.html"],
    ],
)
def test_images_without_labels_are_refused_in_a_line(
    run, bare, tmp_path, monkeypatch, capsys, command
):
    monkeypatch.chdir(tmp_path)
    assert main([command[0], str(run), bare, *command[1:]]) == 3
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a conditional model needs the label of every image" in said
    assert not list(tmp_path.iterdir()) or command[0] in ("report", "figures")


def test_a_training_without_labels_is_refused_before_it_has_a_folder(bare, tmp_path, capsys):
    words = ["train", bare, "--condition", "label", "--out", str(tmp_path / "run"), "--cpu"]
    assert main(words) == 3
    assert "needs the label of every image" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_labels_of_some_images_only_are_refused(tmp_path, capsys):
    for place in range(12):
        Image.new("L", (8, 8), 20 * place).save(tmp_path / f"{place}.png")
    lines = [f"{place}.png,{'even' if place % 2 else ''}" for place in range(12)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]))
    words = ["train", str(tmp_path / "table.csv"), "--condition", "label", "--cpu"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 3
    assert "a conditional model needs that of every image" in capsys.readouterr().err


def test_a_tool_that_knows_no_labels_is_given_no_conditional_model(run, tmp_path, capsys):
    words = ["export", str(run), "--format", "npz", "--out", str(tmp_path / "x.npz")]
    assert main(words) == 11
    assert "format pth" in capsys.readouterr().err


def test_an_estimator_which_knows_no_labels_refuses_it(run):
    with pytest.raises(ConfigError, match="an estimator knows none"):
        ConvVAE.load(run)


def test_a_training_starts_from_a_conditional_model_of_the_same_labels(run, tmp_path, capsys):
    words = [*TRAINED, "--init", str(run), "--no-preview", "--no-report"]
    fewer = [word.replace("150", "120") for word in words]
    assert main([*fewer, "--out", str(tmp_path / "again")]) == 0
    assert load_model(tmp_path / "again")[1].model.condition.labels == tuple("0123456789")
    capsys.readouterr()
    words += ["--condition", "none", "--prior", "normal", "--out", str(tmp_path / "other")]
    assert main(words) == 11
    assert "--condition None where that has 10 labels from 0" in capsys.readouterr().err
