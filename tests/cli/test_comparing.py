"""`convvae compare`, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest

from convvae import errors
from convvae.cli.main import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_table_and_a_figure(run_like, capsys):
    for seed in (1, 2):
        run_like(f"seed-{seed}", seed, seed=seed)
    run_like("wide", 3, lr=0.01)
    words = ["compare", "seed-1", "--limit", "40", "seed-2", "wide", "--samples", "3", "--cpu"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "A  seed-1, seed-2 (2 runs, seeds 1, 2)\nB  wide (seed 0)\n" in said
    assert "lr                  0.001" in said
    assert "bound of 3 weights" in said
    assert "evaluated on 40 images; ± is" in said
    with Path("comparison/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["seed-1", "seed-2", "mean of 2 runs", "wide"]
    assert Path("comparison/comparison.png").stat().st_size > 5000
    assert main(words) == errors.OutputError.exit_code
    assert "comparison.csv and 1 more would be replaced" in capsys.readouterr().err


def test_models_of_other_sizes_are_compared_with_a_note(run_like, capsys):
    run_like("small", 1)
    assert main(["compare", "small", "mnist-2d", "--data", "digits", "--limit", "20"]) == 0
    said = capsys.readouterr().out
    assert "no bound or error compares: A: 1 x 8 x 8, as they are; B: 1 x 28 x 28" in said
    assert "do not compare: A: densities; B: a Bernoulli at grey values" in said
    assert "note: time and speed are of different machines" in said


def test_samples_are_compared_with_grey_images_as_evaluate_does(run_like, capsys):
    run_like("plain", 1)
    run_like("drawn", 2, likelihood="bernoulli", binarize="static")
    size = ["--limit", "100", "--quality", "80"]
    assert main(["compare", "plain", "drawn", *size]) == 0
    said = capsys.readouterr().out
    assert "(80 samples, convvae-mnist-features-v1)" in said
    with Path("comparison/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, row in zip(("plain", "drawn"), rows, strict=True):
        assert main(["evaluate", name, *size, "--json", f"{name}.json"]) == 0
        found = json.loads(Path(f"{name}.json").read_text())["sample_quality"]["samples"]
        distances = {key.partition(" [")[0]: value for key, value in row.items() if "[" in key}
        assert float(distances["Frechet distance"]) == pytest.approx(found["frechet_distance"])
        kernel = found["kernel_distance"]["mean"]
        assert float(distances["kernel distance"]) == pytest.approx(kernel)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ([], errors.UsageError, "Missing: RUNS"),
        (["run"], errors.UsageError, "one run alone compares with nothing"),
        (["run", "run/"], errors.UsageError, "run/ is named twice"),
        (["run", "mnist-2d"], errors.UsageError, "run of digits, mnist-2d of mnist; name images"),
        (["run", "nowhere"], errors.ModelFileError, "no model 'nowhere'"),
        (["run", "empty"], errors.ModelFileError, "no model 'empty'"),
        (["run", "stopped"], errors.ModelFileError, "stopped has no finished epoch"),
        (["run", "lone.safetensors"], errors.ModelFileError, "is a model without a run"),
    ],
)
def test_what_is_refused(run_like, capsys, words, error, says):
    run = run_like("run", 1)
    run_like("stopped", 1).metrics.unlink()
    Path("empty").mkdir()
    Path("lone.safetensors").write_bytes(run.model.read_bytes())
    assert main(["compare", *words]) == error.exit_code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not Path("comparison").exists()


def test_runs_that_hold_out_other_images_are_refused(run_like, capsys, tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.save("mine.npy", pixels)
    own = {"data": str(tmp_path / "mine.npy")}
    run_like("one", 1, **own, split="0.2")
    run_like("two", 2, **own, split="0.4")
    assert main(["compare", "one", "two"]) == errors.UsageError.exit_code
    assert "two holds out other images of mine.npy than one; choose the same for all with --sp" in (
        capsys.readouterr().err
    )
    assert main(["compare", "one", "two", "--split", "0.3"]) == 0
