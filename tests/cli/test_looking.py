"""`convvae figures` and `convvae report` from the command line."""

import pytest

from convvae import errors
from convvae.cli.main import main
from convvae.data import pixels
from convvae.figures import gallery


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys, kind, *words):
    assert main([str(word) for word in words]) == kind.exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_figures_are_written_in_the_formats_asked_for(here, finished_run, capsys):
    words = ["--only", "curves", "tsne", "interpolations", "--formats", "png", "svg", "pdf"]
    assert main(["figures", str(finished_run.path), "--limit", "9", *words]) == 0
    assert sorted(path.name for path in (here / "figures").iterdir()) == sorted(
        [
            f"{name}.{kind}"
            for name in ("curves", "interpolations")
            for kind in ("png", "svg", "pdf")
        ]
        + ["interpolation-straight.gif", "interpolation-spherical.gif"]
    )
    out = capsys.readouterr().out
    assert "left out tsne: t-SNE is for three latents and more" in out
    assert "wrote figures/curves.svg: The loss falls" in out


def test_figures_of_one_image_of_a_file_that_lies_alone(here, finished_run, capsys):
    (here / "mine.safetensors").write_bytes(finished_run.model.read_bytes())
    words = ["figures", "mine.safetensors", "--limit=1", "--only", "curves", "interpolations"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "left out curves: no metrics.jsonl" in out
    assert "left out interpolations: an interpolation needs two images" in out


def test_a_report_goes_into_the_run_folder_or_where_it_is_told(here, finished_run, capsys):
    (here / "run").mkdir()
    for name in ("model.safetensors", "metrics.jsonl", "config.json"):
        (here / "run" / name).write_bytes((finished_run.path / name).read_bytes())
    assert main(["report", "run", "--limit", "9"]) == 0
    assert "wrote run/report.html" in capsys.readouterr().out
    assert "9 test images of digits, drawn by seed 0" in (here / "run/report.html").read_text()
    assert main(["report", "run", "--limit", "9", "--out", "a/b.html"]) == 0
    assert (here / "a/b.html").exists()


@pytest.mark.parametrize("words", [["figures", "run", "--only", "curves"], ["report", "run"]])
def test_damaged_lines_of_the_metrics_are_said(words, here, finished_run, capsys):
    (here / "run").mkdir()
    for name in ("model.safetensors", "metrics.jsonl", "config.json"):
        (here / "run" / name).write_bytes((finished_run.path / name).read_bytes())
    lines = (here / "run/metrics.jsonl").read_text().splitlines()
    lines[2] = lines[2].replace("1", "2")
    (here / "run/metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert main([*words, "--limit", "9"]) == 0
    assert "line 3 of run/metrics.jsonl is damaged and left out" in capsys.readouterr().out


def test_a_model_trained_on_binarised_images_is_shown_such_images(here, monkeypatch):
    words = ["train", "digits", "--limit=64", "--max_filters=8", "--epochs=1", "--batchsize=32",
             "--likelihood=bernoulli", "--binarize=static", "--no-report", "--out=run"]  # fmt: skip
    assert main(words) == 0
    seen = []
    monkeypatch.setattr(
        gallery, "pictures", lambda material, _: seen.append(material.images) or iter(())
    )
    assert main(["figures", "run", "--only", "samples"]) == 0
    assert pixels.is_binary(seen[0])


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        (errors.UsageError, ["--only", "manifolds"], "did you mean manifold?"),
        (errors.UsageError, ["--formats", "bmp"], "bmp"),
        (errors.UsageError, ["--limit", "9", "--pair", "0", "9"], "there are 9 images"),
        (errors.UsageError, ["--pair", "-1", "2"], "none of them is -1"),
        (errors.OutputError, ["--out", "file/figures"], "cannot make the folder"),
        (errors.ConfigError, ["--limit", "0"], "limit"),
        (errors.UnknownDataError, ["digit"], "did you mean digits?"),
    ],
)
def test_bad_words_for_figures_are_one_line(here, finished_run, capsys, kind, words, said):
    (here / "file").write_text("")
    assert said in fails(capsys, kind, "figures", finished_run.path, *words)


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        (errors.OutputError, ["--out", "page.pdf"], "ends in .html"),
        (errors.OutputError, ["--out", "file/a.html"], "cannot make the folder"),
        (errors.ConfigError, ["--limit", "0"], "limit"),
    ],
)
def test_bad_words_for_a_report_are_one_line(here, finished_run, capsys, kind, words, said):
    (here / "file").write_text("")
    assert said in fails(capsys, kind, "report", finished_run.path, *words)


def test_a_model_that_is_not_there(capsys):
    for command in ("figures", "report"):
        assert "no model" in fails(capsys, errors.ModelFileError, command, "nowhere")
