"""The benchmarks of anomaly scores and of embeddings, on small images and a small model."""

import pytest

from benchmarks import anomalies, conditional, embed, table
from convvae import data
from convvae.anomalies.scores import SCORES


@pytest.fixture
def digits(monkeypatch):
    """The embedded digits in the place of MNIST."""
    load = data.load
    limits = {"train": 300, "test": 100}

    def small(name, split, **_):
        assert name == "mnist"
        return load("digits", split, limit=limits[split])

    monkeypatch.setattr(data, "load", small)


def test_a_digit_in_turn_is_the_abnormal_one(digits, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(anomalies, "SETTINGS", {"latent_dims": 2, "max_filters": 8})
    path = tmp_path / "anomalies.json"
    words = ["--epochs", "1", "--digits", "3,8", "--normal", "50", "--samples", "2"]
    options = anomalies.parse([*words, "--threads", "1", "--out", str(path)])
    assert options.command() == (
        "python -m benchmarks.anomalies --epochs 1 --digits 3,8 --normal 50 --samples 2 --seed 0 "
        "--threads 1"
    )
    result = anomalies.measure_all(options, anomalies.report.console())
    labels = data.load("mnist", "train").labels
    for digit, run in zip((3, 8), result["runs"], strict=True):
        assert run["digit"] == digit
        assert run["training_images"] == int((labels != digit).sum()) - 50
        assert run["scores"].keys() == SCORES.keys() - {"bounds_ratio"}
    rows = {row[0]: row[1:] for row in anomalies.rows(result)}
    aurocs = [run["scores"]["bound"]["auroc"] for run in result["runs"]]
    mean, low, high = sum(aurocs) / 2, min(aurocs), max(aurocs)
    assert rows["`bound`"][0] == f"{mean:.3f} ({low:.3f}–{high:.3f})"
    text = table.anomalies_table(result)
    assert "| abnormal digit: AUROC | bound |" in text
    assert f"Command: `{options.command()}`" in text


def test_an_embedding_is_timed_and_classified(digits, monkeypatch, finished_run, tmp_path):
    options = embed.parse(
        ["--model", str(finished_run.path), "--rounds", "2", "--threads", "1", "--out", "x.json"]
    )
    result = embed.measure(options, embed.report.console())
    assert (result["images"], result["train_images"], result["latents"]) == (100, 300, 2)
    assert all(len(times) == 2 for times in result["seconds"].values())
    assert 0 < result["accuracy"] <= 1
    text = table.embed_table(result)
    assert f"{result['accuracy']:.2%} of the 100 test images" in text
    assert "| posterior means | " in text


def test_a_model_that_is_told_labels_is_held_against_one_that_is_not(digits, monkeypatch, tmp_path):
    small = {"max_filters": 8, "depth": 1, "latent_dims": 2, "image_size": 8, "batch_size": 50}
    monkeypatch.setattr(conditional, "SMALLER", small)
    words = ["--epochs", "1", "--test-images", "30", "--samples", "2", "--generated", "20"]
    options = conditional.parse(
        [*words, "--draws", "2", "--outside", "200", "--out", str(tmp_path / "x.json")]
    )
    result = conditional.measure(options, conditional.report.console())
    numbers = {name: value["mean"] for name, value in result["numbers"].items()}
    gap = numbers["bound_told"] - numbers["bound_plain"]
    assert numbers["difference"] == pytest.approx(gap)
    assert numbers["bound_without_label"] <= numbers["bound_told"] + 3
    assert numbers["outside_accuracy"] > 0.5  # of real digits: it has learnt
    assert all(len(row) == 2 for row in conditional.rows(result))
    assert "| outside classifier names the sample's label, % |" in table.conditional_table(result)
