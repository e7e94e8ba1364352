"""Every command on a model that is told several columns: names and numbers."""

import json

import numpy as np
import pytest
from PIL import Image

from convvae.cli.main import main
from convvae.model.checkpoint import load_model

TRAINED = ["train", "sprites", "--image-size", "16", "--epochs", "1", "--max-filters", "8", "--cpu"]
COLUMNS = ["--condition", "shape", "scale", "--prior", "conditional", "--no-preview"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns") / "run"
    assert main([*TRAINED, *COLUMNS, "--out", str(folder)]) == 0
    return folder


def test_the_file_and_the_report_know_the_columns(run):
    condition = load_model(run)[1].model.condition
    shape, scale = condition.columns
    assert set(shape.labels) <= {"square", "ellipse", "triangle"}
    assert (scale.name, scale.quantiles[0], scale.quantiles[-1]) == ("scale", 3.5, 6.5)
    assert "and the number scale of each image" in (run / "report.html").read_text()


def test_samples_have_what_is_asked_for_and_the_rest_is_drawn(run, tmp_path, capsys):
    asked = {"both": ["shape=square", "scale=3.5"], "large": ["shape=square", "scale=6.5"]}
    asked["one"] = ["shape=square"]
    shown = {}
    for name, words in asked.items():
        path = tmp_path / f"{name}.png"
        assert main(["generate", str(run), "--label", *words, "--outfile", str(path)]) == 0
        shown[name] = np.asarray(Image.open(path)).astype(int)
    assert "with the label shape square, scale 3.5" in capsys.readouterr().out
    assert (shown["both"] != shown["large"]).any()
    assert (shown["both"] != shown["one"]).any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["circle"], "'circle' does not say which; write it as shape=VALUE"),
        (["shape=circle"], "does not know the shape 'circle'"),
        (["scale=square"], "scale is a number, in training from 3.5 to 6.5, and 'square' is none"),
        (["x=3"], "not told of a column 'x'; it is told shape, scale"),
    ],
)
def test_what_the_model_cannot_be_told_is_refused(run, tmp_path, capsys, words, said):
    out = tmp_path / "x.png"
    assert main(["generate", str(run), "--label", *words, "--outfile", str(out)]) == 3
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_its_images_are_measured_encoded_rebuilt_and_drawn(run, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    assert main(["evaluate", str(run), "--limit", "20", "--json", str(path)]) == 0
    assert "log p(x) would be an integral over scale" in capsys.readouterr().out
    assert "labels" not in json.loads(path.read_text())
    assert main(["encode", str(run), "--out", str(tmp_path / "z.npz"), "--limit", "9"]) == 0
    assert np.load(tmp_path / "z.npz")["mu"].shape == (9, 8)
    words = ["--count", "8", "--rows", "2", "--rec_testdata"]
    assert main(["reconstruct", str(run), "--outdir", str(tmp_path / "r"), *words]) == 0
    out = str(tmp_path / "f")
    chosen = ["labels", "class-means", "interpolations", "traversals"]
    assert main(["figures", str(run), "--limit", "60", "--only", *chosen, "--out", out]) == 0
    assert {path.stem for path in (tmp_path / "f").glob("*.png")} == set(chosen)
    page = tmp_path / "page.html"
    assert main(["explore", str(run), "--limit", "20", "--html", str(page)]) == 0
    assert "decoded with the label shape" in page.read_text()


def test_a_training_starts_from_a_model_of_the_same_columns(run, tmp_path, capsys):
    words = ["train", "sprites", "--epochs", "1", "--cpu", "--init", str(run)]
    words += ["--no-preview", "--no-report", "--out"]
    assert main([*words, str(tmp_path / "again")]) == 0
    before, again = (load_model(path)[1].model.condition for path in (run, tmp_path / "again"))
    assert again.columns == before.columns
    assert main([*words, str(tmp_path / "other"), "--condition", "shape"]) == 11
    assert "labels of shape from" in capsys.readouterr().err


def test_images_without_its_columns_are_refused(run, tmp_path, capsys):
    assert main(["encode", str(run), "digits", "--out", str(tmp_path / "z.npz")]) == 3
    assert "digits has no column 'shape'; it has none but label" in capsys.readouterr().err
