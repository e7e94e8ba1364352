"""Nothing that is there is replaced without `--overwrite`; what a command reads, never."""

import shutil

import numpy as np
import pytest

from convvae import errors
from convvae.cli.main import main
from convvae.data.sources import load

WRITING = {
    "encode": (["encode", "run", "--out", "o.npz"], "o.npz"),
    "encode means": (["encode", "run", "--out", "o.npy"], "o.npy"),
    "export": (["export", "run", "--format", "pth", "--out", "o.pth"], "o.pth"),
    "export a folder": (["export", "run", "--format", "pt2", "--out", "o"], "o/vae.pt2"),
    "import": (["import", "mine.npz", "--out", "o.safetensors"], "o.safetensors"),
    "generate": (["generate", "run", "--count", "4", "--outfile", "o.png"], "o.png"),
    "generate, no name": (["generate", "run", "--count", "4"], "samples.png"),
    "reconstruct": (["reconstruct", "run", "--outdir", "o"], "o/reconstructions-train.png"),
    "figures": (["figures", "run", "--only", "samples", "--out", "o"], "o/samples.png"),
    "animations": (
        ["figures", "run", "--only", "interpolations", "--out", "o"],
        "o/interpolation-spherical.gif",
    ),
    "report": (["report", "run", "--out", "o.html"], "o.html"),
    "a file's report": (["report", "run/model.safetensors"], "model.safetensors-report.html"),
    "evaluate": (["evaluate", "run", "--limit", "8", "--json", "o.json"], "o.json"),
    "compare": (
        ["compare", "run", "mnist-2d", "--data", "digits", "--out", "o"],
        "o/comparison.png",
    ),
    "explore": (["explore", "run", "--limit", "8", "--html", "o.html"], "o.html"),
    "impute": (
        ["impute", "run", "--limit", "2", "--mask", "random:0.5", "--steps", "2", "--outdir", "o"],
        "o/imputed.npz",
    ),
    "denoise": (
        ["denoise", "run", "--limit", "2", "--noise", "0.1", "--outdir", "o"],
        "o/denoised.png",
    ),
    "edit": (["edit", "run", "--limit", "2", "--toward", "3", "--outdir", "o"], "o/edited.png"),
    "anomalies": (["anomalies", "run", "--limit", "8", "--outdir", "o"], "o/scores.csv"),
}


@pytest.fixture
def place(tmp_path, monkeypatch, finished_run):
    """A folder with a run in it, to work in."""
    shutil.copytree(finished_run.path, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "name"), WRITING.values(), ids=WRITING)
def test_what_is_there_is_not_replaced(place, capsys, words, name):
    mine = place / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes(b"a year of work")
    assert main(words) == errors.OutputError.exit_code
    assert mine.read_bytes() == b"a year of work"
    said = capsys.readouterr().err
    assert name in said.replace("\n", "")
    assert "--overwrite" in said


@pytest.mark.parametrize("case", ["encode", "generate", "reconstruct", "figures", "evaluate"])
def test_what_is_there_is_replaced_when_asked_for(place, case):
    words, name = WRITING[case]
    mine = place / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes(b"a year of work")
    assert main([*words, "--overwrite"]) == 0
    assert mine.read_bytes() != b"a year of work"


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize("spelling", ["my.npz", "./folder/../my.npz", "link.npz"])
def test_images_are_never_replaced_by_their_codes(place, more, spelling):
    (place / "folder").mkdir()
    np.savez(place / "my.npz", images=load("digits", "test", limit=12).images[:, 0].numpy())
    (place / "link.npz").symlink_to(place / "my.npz")
    before = (place / "my.npz").read_bytes()
    words = ["encode", "run", "my.npz", "--out", spelling, *more]
    assert main(words) == errors.OutputError.exit_code
    assert (place / "my.npz").read_bytes() == before


def test_the_images_of_a_folder_are_not_replaced_by_reconstructions(place):
    from convvae.images.sheets import save_separately

    images = place / "images"
    save_separately(images, load("digits", "test", limit=12).images)
    (images / "00.png").rename(images / "reconstructions-test.png")
    before = (images / "reconstructions-test.png").read_bytes()
    words = ["reconstruct", "run", "images", "--split", "none", "--rec_testdata"]
    assert main([*words, "--outdir", "images", "--overwrite"]) == errors.OutputError.exit_code
    assert (images / "reconstructions-test.png").read_bytes() == before


@pytest.mark.parametrize("form", ["pth", "npz"])
def test_a_model_is_never_replaced_by_its_export(place, form):
    model = place / "run" / "model.safetensors"
    before = model.read_bytes()
    words = ["export", "run", "--format", form, "--out", "run/model.safetensors", "--overwrite"]
    assert main(words) == errors.OutputError.exit_code
    assert model.read_bytes() == before


def test_weights_are_never_replaced_by_their_import(place, capsys):
    assert main(["export", "mlx-cvae", "--format", "npz", "--out", "w.npz"]) == 0
    (place / "w.npz").rename(place / "w.safetensors")
    before = (place / "w.safetensors").read_bytes()
    words = ["import", "w.safetensors", "--out", "w.safetensors", "--overwrite"]
    assert main(words) == errors.OutputError.exit_code
    assert (place / "w.safetensors").read_bytes() == before
    assert "is what this command reads" in capsys.readouterr().err


def test_the_page_of_a_run_is_its_own_to_draw_again(place):
    (place / "run" / "report.html").write_text("the page of last week")
    assert main(["report", "run", "--limit", "8"]) == 0
    assert "last week" not in (place / "run" / "report.html").read_text()


@pytest.mark.parametrize("theirs", ["o/report.html", "o/pictures/loss.png"])
def test_training_takes_no_folder_that_holds_anothers_pages(place, theirs):
    mine = place / theirs
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"a year of work")
    words = ["train", "digits", "--limit", "40", "--epochs", "1", "--out", "o"]
    assert main(words) == errors.OutputError.exit_code
    assert mine.read_bytes() == b"a year of work"
    assert not (place / "o" / "config.json").exists()
