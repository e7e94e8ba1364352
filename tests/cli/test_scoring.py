"""`convvae encode`, `anomalies` and `evaluate --factors`, and what they refuse."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from convvae import errors, files
from convvae.anomalies import pictures as drawn_by_anomalies
from convvae.cli.main import main

SHAPES = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)


def pictures(folder, numbers):
    for number in numbers:
        path = folder / ("sea", "sky")[number % 2] / f"IMG_20240101_{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(SHAPES[number]).resize((16, 16)).save(path)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Fifty images in a folder `photos`, and models that were trained on them: `held` and `all`."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CONVVAE_CACHE", str(folder / "cache"))
        pictures(folder / "photos", range(50))
        words = ["--max_filters", "8", "--latent-dims", "2", "--epochs", "1", "--cpu",
                 "--no-report"]  # fmt: skip
        assert main(["train", "photos", *words, "--split", "0.4", "--out", "held"]) == 0
        assert main(["train", "photos", *words, "--split", "none", "--out", "all"]) == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONVVAE_CACHE", str(made / "cache"))
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return made


@pytest.fixture
def judged(here, tmp_path, capsys):
    """Run `convvae anomalies`, and return what it printed and wrote."""

    def anomalies(*words):
        given = ["--samples", "2", "--overwrite", "--outdir", str(tmp_path / "odd"), *words]
        assert main(["anomalies", *map(str, given)]) == 0, capsys.readouterr().err
        rows = list(csv.DictReader((tmp_path / "odd" / "scores.csv").read_text().splitlines()))
        report = json.loads((tmp_path / "odd" / "report.json").read_text())
        return capsys.readouterr().out, report, rows

    return anomalies


def fails(capsys, error, *words):
    """What a command says that fails as it should."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == error.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("convvae: ") for line in lines) == 1
    return lines[-1]


def encoded(*words):
    words = ("encode", *words, "--out", "e.parquet", "--overwrite")
    assert main([str(word) for word in words]) == 0
    return pyarrow.parquet.read_table("e.parquet").to_pydict()


def test_every_image_of_a_folder_is_encoded_with_its_part(here):
    found = encoded(here / "held")
    assert len(found["name"]) == len(set(found["name"])) == 50
    by_part = {part: encoded(here / "held", "--part", part) for part in ("test", "train")}
    for part, alone in by_part.items():
        assert set(alone["part"]) == {part}
        assert alone["name"] == [n for n, p in zip(found["name"], found["part"], strict=True)
                                 if p == part]  # fmt: skip
    assert 10 < len(by_part["test"]["name"]) < 30
    assert encoded(here / "held", "--part", "all") == found
    assert main(["encode", str(here / "held"), "--out", "e.npz"]) == 0
    with np.load("e.npz") as arrays:
        assert list(arrays["parts"]) == found["part"]


def test_images_that_are_not_divided_are_of_the_part_that_the_model_knows(here, tmp_path):
    assert encoded(here / "all")["part"] == ["train"] * 50
    pictures(tmp_path / "new", range(50, 55))
    assert encoded(here / "held", tmp_path / "new")["part"] == ["test"] * 5


def test_a_published_set_has_its_test_images_encoded(here, finished_run):
    assert encoded(finished_run.path, "digits")["part"] == ["test"] * 360
    both = encoded(finished_run.path, "digits", "--part", "all", "--limit", 400)
    assert both["part"] == ["test"] * 360 + ["train"] * 40


def test_all_images_of_a_folder_are_judged_and_those_held_out_calibrate(here, judged):
    _, report, rows = judged(here / "held")
    assert report["data"] == "photos (all)"
    assert report["images"] == len(rows) == 50
    parts = [row["part"] for row in rows]
    assert report["normal"] == "photos (test)"
    assert report["normal_images"] == parts.count("test")
    assert f"{parts.count('train')} of the images are training images" in " ".join(report["notes"])
    _, report, held_out = judged(here / "held", "--part", "test")
    assert report["normal_images"] == len(held_out) == parts.count("test")
    for row, other in zip(rows, held_out, strict=False):
        assert row["name"] == other["name"]
        assert float(row["squared_error_p"]) == pytest.approx(float(other["squared_error_p"]))


def test_what_was_flagged_is_named(here, judged):
    printed, _, rows = judged(here / "held", "--false-alarms", "0.4")
    flagged = sorted((row for row in rows if row["squared_error_flagged"] == "1"),
                     key=lambda row: -float(row["squared_error"]))  # fmt: skip
    assert flagged
    lines = printed.partition("flagged by squared_error:\n")[2].splitlines()
    for row, line in zip(flagged[:20], lines, strict=False):
        assert line.startswith(f"  {row['name']}: ")
        assert line.endswith(", a training image") == (row["part"] == "train")
    assert (f"and {len(flagged) - 20} more in scores.csv" in printed) == (len(flagged) > 20)


def test_captions_of_the_worst_are_whole(here, judged, monkeypatch):
    drawn = []
    extremes = drawn_by_anomalies.extremes
    monkeypatch.setattr(drawn_by_anomalies, "extremes",
                        lambda *given: drawn.append(extremes(*given)) or drawn[-1])  # fmt: skip
    _, _, rows = judged(here / "held", "--worst", "9")
    texts = [text.get_text() for axes in drawn[0].axes for text in axes.texts]
    captions = [text.split("\n") for text in texts if "p " in text]
    assert len(captions) == 9
    worst = sorted(rows, key=lambda row: -float(row["squared_error"]))
    for row, (name, label, value, p) in zip(worst, captions, strict=False):
        assert row["name"].endswith(name.removeprefix("…"))
        assert len(name) <= 11
        assert label == row["label"]
        assert value == f"{float(row['squared_error']):.4g}"
        assert p == f"p {float(row['squared_error_p']):.2g}"


def test_a_model_that_has_seen_all_images_needs_others_to_calibrate(here, judged, tmp_path, capsys):
    said = fails(capsys, errors.UsageError, "anomalies", here / "all")
    assert "--split none" in said
    assert "--normal" in said
    assert "--split 0.1" in said
    pictures(tmp_path / "new", range(50, 60))
    assert said == fails(capsys, errors.UsageError, "anomalies", here / "all", tmp_path / "new")
    words = ("anomalies", here / "all", "--normal", here / "photos")
    assert said == fails(capsys, errors.UsageError, *words)
    _, report, rows = judged(here / "all", "--normal", tmp_path / "new")
    assert (report["normal_images"], len(rows)) == (10, 50)
    assert {row["part"] for row in rows} == {"train"}


def test_another_division_than_that_of_the_training_does_not_calibrate(here, capsys):
    for split in ("none", "0.9"):
        words = ("anomalies", here / "held", "--split", split)
        assert "leave it out" in fails(capsys, errors.UsageError, *words)


@pytest.mark.parametrize(("limit", "normal_limit", "images"), [(50, 8, 50), (3, 8, 3), (8, 8, 8)])
def test_a_limit_of_the_normal_images_holds_among_those_that_are_judged(
    here, judged, limit, normal_limit, images
):
    words = ("--limit", limit, "--normal-limit", normal_limit, "--false-alarms", "0.2")
    _, report, rows = judged(here / "held", *words)
    assert (report["normal_images"], report["images"], len(rows)) == (normal_limit, images, images)
    _, _, apart = judged(here / "held", "--limit", "8", "--false-alarms", "0.2")
    for row, other in zip(rows, apart, strict=False):  # the same eight normal images
        if other["part"] == "test":
            assert float(row["squared_error_p"]) == float(other["squared_error_p"])


def test_more_normal_images_than_there_are_is_said(here, capsys):
    words = ("anomalies", here / "held", "--normal-limit", "49")
    said = fails(capsys, errors.ConfigError, *words)
    assert "--normal-limit is 49, but photos (test) has" in said


@pytest.mark.parametrize("command", ["evaluate", "encode", "anomalies", "train", "explore"])
def test_a_run_folder_is_no_folder_of_images(here, command, tmp_path, capsys):
    run = here / "held"
    words = {"train": ["train", run], "encode": ["encode", run, run, "--out", "e.npz"],
             "explore": ["explore", run, run, "--html", "e.html"]}  # fmt: skip
    given = words.get(command, [command, run, run])
    said = fails(capsys, errors.UnknownDataError, *given)
    assert f"{run} is the folder of a training run" in said
    assert "name a folder of images" in said
    assert not (tmp_path / "runs").exists()


def test_a_second_judgement_does_not_replace_the_first(here, tmp_path, capsys):
    words = ["anomalies", str(here / "held"), "--samples", "1", "--limit", "9"]
    assert main(words) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "anomalies").iterdir()}
    said = fails(capsys, errors.OutputError, *words, "--score", "bound")
    assert "--outdir" in said
    assert "--overwrite" in said
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "anomalies").iterdir()}
    assert main([*words, "--score", "bound", "--overwrite"]) == 0
    after = json.loads((tmp_path / "anomalies" / "report.json").read_text())
    assert after["score"] == "bound"


def test_what_is_there_is_not_written_over(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    files.check_free([one, two], "out", overwrite=False)
    one.symlink_to("nowhere")
    with pytest.raises(errors.OutputError, match=r"one would be replaced; .* with `out`, or"):
        files.check_free([one, two], "out", overwrite=False)
    two.write_text("")
    with pytest.raises(errors.OutputError, match="one and 1 more would be"):
        files.check_free([one, two], "out", overwrite=False)
    files.check_free([one, two], "out", overwrite=True)


def test_evaluate_scores_latents_by_known_factors(tmp_path, monkeypatch, capsys):
    from convvae.evaluation import disentanglement

    monkeypatch.setattr(disentanglement, "VOTES", 50)
    words = ["train", "sprites", "--epochs", "1", "--max-filters", "8", "--latent-dims", "3"]
    words += ["--limit", "256", "--no-report", "--out", str(tmp_path / "run")]
    assert main([*words, "--cpu"]) == 0
    out = tmp_path / "scores.json"
    words = ["evaluate", str(tmp_path / "run"), "sprites", "--factors", "--json", str(out), "--cpu"]
    assert main(words) == 0
    assert "factors shape, scale, angle, x, y" in capsys.readouterr().out
    found = json.loads(out.read_text())["disentanglement"]
    assert 0 <= found["mig"] <= 1
    assert 0.2 < found["dci_informativeness"] < 1


def test_factors_that_nobody_knows_are_refused(finished_run, capsys):
    words = ["evaluate", str(finished_run.path), "--factors"]
    assert main(words) == errors.UsageError.exit_code
    assert "those of digits are not; the data set sprites has some, and" in capsys.readouterr().err


def test_evaluate_takes_columns_of_a_table_as_factors(tmp_path, monkeypatch, capsys):
    from convvae.data import load
    from convvae.evaluation import disentanglement
    from convvae.images.sheets import save_png

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(disentanglement, "VOTES", 50)
    sprites = load("sprites", "test").some(100, seed=0)
    lines = ["path,shape,x,same"]
    for number, (image, factors) in enumerate(
        zip(sprites.images, sprites.factors.tolist(), strict=True)
    ):
        save_png(tmp_path / f"{number}.png", image)
        lines.append(f"{number}.png,{'abc'[factors[0]]},{factors[3] / 7},1")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    evaluate = ["evaluate", "mlx-cvae", "list.csv", "--cpu", "--factors"]
    assert main(evaluate) == errors.ConfigError.exit_code
    said = capsys.readouterr()
    assert "the factor same has one value only" in said.err
    assert "bound" not in said.out, "refused before the work"
    assert main([*evaluate, "x", "shape", "--json", "scores.json"]) == 0
    found = json.loads((tmp_path / "scores.json").read_text())["disentanglement"]
    assert found["names"] == ["x", "shape"]
    assert found["images"] == 100
