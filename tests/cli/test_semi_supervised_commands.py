"""Training on images of which some have no label, and what its model says of them."""

import json

import pytest

from convvae.cli.main import main
from convvae.data import load
from convvae.images.sheets import save_png
from convvae.model.checkpoint import load_model

SMALL = ["--epochs", "1", "--max-filters", "8", "--cpu", "--no-preview", "--no-report"]
TRAINED = ["train", "digits", "--limit", "150", "--batch-size", "50", *SMALL]
SEMI = ["--condition", "label", "--objective", "semi-supervised"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("semi") / "run"
    words = [*SEMI, "--labelled", "40", "--alpha", "20", "--tensorboard"]
    assert main([*TRAINED, *words, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of 60 digits, and a label for every second one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    digits = load("digits", "train", limit=60)
    lines = ["path,label"]
    for number, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
        save_png(tmp_path / f"{number}.png", image)
        lines.append(f"{number}.png,{'' if number % 2 else 'ab'[int(label) % 2]}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return "list.csv"


def test_the_file_knows_that_it_has_a_classifier_and_which_labels_were_kept(run):
    vae, metadata = load_model(run)
    assert metadata.model.classifier
    assert metadata.model.condition.counts == (4,) * 10
    assert vae.classifier is not None


def test_the_evaluation_has_the_accuracy_of_the_classifier(run, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    assert main(["evaluate", str(run), "--limit", "30", "--json", str(path)]) == 0
    assert "by the largest q(y|x)" in capsys.readouterr().out
    assert 0 <= json.loads(path.read_text())["labels"]["classifier"]["mean"] <= 1


def test_a_run_that_is_resumed_is_the_run_that_was_left_alone(tmp_path):
    line = [word for word in TRAINED if word not in ("--epochs", "1")]
    for name, epochs in (("whole", "2"), ("parts", "1")):
        words = [*SEMI, "--labelled", "40", "--epochs", epochs]
        assert main([*line, *words, "--out", str(tmp_path / name)]) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--epochs", "2"]) == 0
    whole, parts = (load_model(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert all((whole[name] == parts[name]).all() for name in whole)


def test_a_training_starts_from_it(run, tmp_path):
    words = [*TRAINED, "--init", str(run), "--labelled", "40", "--out", str(tmp_path / "again")]
    assert main(words) == 0
    assert load_model(tmp_path / "again")[1].model.classifier


def test_an_empty_cell_is_an_image_without_a_label(table, tmp_path, capsys):
    line = ["train", table, "--split", "none", "--batch-size", "30", *SMALL]
    assert main([*line, *SEMI[:2], "--out", "refused"]) == 3
    said = capsys.readouterr().err
    assert "30 of 60 images of list.csv have no label" in said
    assert "--objective semi-supervised" in said
    assert main([*line, *SEMI, "--out", "run"]) == 0
    assert load_model(tmp_path / "run")[1].model.condition.labels == ("a", "b")
    assert main(["encode", "run", "--out", "z.npz"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 0
    assert "classifier accuracy" in capsys.readouterr().out


def test_a_folder_unlabelled_has_images_without_a_label(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    digits = load("digits", "train", limit=40)
    for number, image in enumerate(digits.images):
        folder = tmp_path / "all" / ("cat", "dog", "unlabelled", "unlabelled")[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        save_png(folder / f"{number}.png", image)
    words = ["train", "all", "--split", "none", "--batch-size", "20", *SMALL, *SEMI]
    assert main([*words, "--validation", "0", "--out", "run"]) == 0
    condition = load_model(tmp_path / "run")[1].model.condition
    assert (condition.labels, condition.counts) == (("cat", "dog"), (10, 10))


def test_hidden_labels_need_the_objective(tmp_path, capsys):
    words = [*TRAINED, "--condition", "label", "--labelled", "40", "--out", str(tmp_path / "x")]
    assert main(words) == 3
    assert "--labelled hides labels, which needs --objective semi-supervised" in (
        capsys.readouterr().err
    )
