import csv
import json

import pytest
import torch
from PIL import Image

from convvae import data, errors
from convvae.anomalies import request as alarms
from convvae.cli.main import main
from convvae.data import ImageSet, Stream


@pytest.fixture
def run(finished_run, tmp_path, capsys):
    """Run `convvae anomalies` on the shared model, and return what it printed and wrote."""

    def anomalies(*words):
        folder = tmp_path / "found"
        given = ["--outdir", str(folder), "--samples", "2", "--worst", "3", "--overwrite", *words]
        assert main(["anomalies", str(finished_run.path), *given]) == 0
        rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
        return capsys.readouterr().out, json.loads((folder / "report.json").read_text()), rows

    return anomalies


@pytest.fixture
def fails(finished_run, tmp_path, capsys):
    def anomalies(error, *words):
        code = main(["anomalies", str(finished_run.path), "--outdir", str(tmp_path / "no"), *words])
        lines = capsys.readouterr().err.splitlines()
        assert code == error.exit_code, lines
        assert len(lines) == 1
        assert not (tmp_path / "no").exists()
        return lines[0]

    return anomalies


def test_labelled_images_against_normal_ones(run, tmp_path):
    words = ("--limit", "80", "--abnormal", "3", "8", "--normal-part", "train")
    printed, report, rows = run("digits", *words, "--false-alarms", "0.1")
    assert len(rows) == report["images"] == 80
    labels = data.load("digits", "test", limit=80).labels.tolist()
    assert [row["label"] for row in rows] == [str(label) for label in labels]
    assert [row["abnormal"] == "1" for row in rows] == [label in (3, 8) for label in labels]
    train = data.load("digits", "train").labels
    assert report["normal_images"] == int(((train != 3) & (train != 8)).sum())
    assert report["scores"].pop("bounds_ratio") is None
    for name, score in report["scores"].items():
        assert 0 <= score["detection"]["auroc"] <= 1
        beyond = [
            (float(row[name]) > score["threshold"]) == (score["abnormal_where"] == "above")
            for row in rows
            if float(row[name]) != score["threshold"]
        ]
        assert sum(beyond) == score["flagged"] == sum(int(row[f"{name}_flagged"]) for row in rows)
        assert name in printed
    assert len(report["notes"]) == 1
    assert "the model has learnt from the normal images" in report["notes"][0]
    with Image.open(tmp_path / "found" / "worst.png") as picture:
        assert picture.width > 400


def test_the_same_words_give_the_same_files(run, tmp_path):
    written = []
    for _ in range(2):
        run("--limit", "20")
        folder = tmp_path / "found"
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert written[0].keys() == {"scores.csv", "report.json", "worst.png"}


def test_what_is_not_defined_is_said(run):
    first = str(int(data.load("digits", "test", limit=1).labels[0]))
    printed, report, rows = run("--limit", "10", "--abnormal", first, "--score", "bound")
    assert report["scores"]["bound"]["detection"] is not None
    assert report["scores"]["bound"]["threshold"] is None
    assert (
        "a threshold is not defined: a false-alarm rate of 0.05 needs 19 normal images" in printed
    )
    assert "each against the others" in printed
    printed, report, rows = run("--limit", "1")
    assert report["scores"]["latent_distance"] is None
    assert "latent_distance, neighbours and combination are not defined" in printed
    assert report["scores"]["bound"]["flagged"] == 0
    assert len(rows) == 1


def test_one_kind_alone_has_no_auroc(run, monkeypatch):
    def eights(name, split, **_):
        found = data.load(name, split)
        chosen = ((found.labels == 8) | (split == "train")).nonzero()[:, 0]
        return Stream.of([found.take(chosen)], split)

    monkeypatch.setattr(data, "stream", eights)
    words = ("--abnormal", "8", "--normal-part", "train")
    printed, report, _ = run(*words)
    assert report["scores"]["bound"]["detection"] is None
    assert report["scores"]["bound"]["threshold"] is not None
    assert "AUROC and average precision are not defined: every image is abnormal" in printed
    assert "not defined: every image is normal" in run(*words[2:], "--abnormal", "3")[0]


def test_of_few_normal_images_none_is_chosen(run):
    _, report, _ = run("digits", "--limit", "39", "--score", "auto")
    assert (report["score"], report["chosen_by"]) == ("squared_error", None)


def test_labels_go_by_their_names():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 1])
    named = ImageSet(images, labels, "mine", "test", classes=("good", "bent", "torn"))
    assert alarms.is_abnormal(named, ("bent", "torn")).tolist() == [False, True, True, True]
    with pytest.raises(errors.UsageError, match=r"no label of mine; there are good, bent, torn"):
        alarms.is_abnormal(named, ("1",))
    numbered = ImageSet(images, labels, "mine", "test")
    assert alarms.is_abnormal(numbered, ("1",)).tolist() == [False, True, False, True]
    with pytest.raises(errors.UsageError, match="has no labels"):
        alarms.is_abnormal(ImageSet(images, None, "mine", "test"), ("1",))


def test_bad_input_is_one_line(fails):
    assert "--abnormal 11 is no label of digits" in fails(errors.UsageError, "--abnormal", "11")
    every = [str(digit) for digit in range(10)]
    assert "no normal image is left" in fails(errors.UsageError, "--abnormal", *every)
    assert "false_alarms" in fails(errors.ConfigError, "--false-alarms", "1")
    few = fails(errors.UsageError, "--limit", "4", "--score", "latent_distance")
    assert "needs more than 5 normal images and there are 4" in few
    assert "'nosuch'" in fails(errors.UnknownDataError, "--normal", "nosuch")
