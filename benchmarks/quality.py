"""Train whole recipes: how long until a quality is reached, and whether bfloat16 costs any.

    CONVVAE_DATA=FOLDER python -m benchmarks.quality [--recipes fast-cvae] [--seeds 0,1,2]
    CONVVAE_DATA=FOLDER python -m benchmarks.quality --agree

Each training is convvae's own command line in a process of its own, in a temporary folder. See
docs/performance.md for what is timed and compared.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.environments import PeerError, reason, thread_settings
from benchmarks.summary import (
    AGREE_HEADER,
    QUALITY_HEADER,
    agree_rows,
    failures,
    quality_rows,
    verdicts,
)
from benchmarks.workers.common import available_cores, use_cores
from benchmarks.workers.convvae import PROGRAM, RECIPE
from convvae.model.run_folder import RunFolder

TARGET = 64.7
"""Squared error + KL per image that the MLX tutorial ends at, mean of the last epoch in
training."""
AGREE_EPOCHS = 5
POLL_SECONDS = 0.2
"""Time between two looks at the metrics of a training under way."""


@dataclass(frozen=True)
class Training:
    """One run of the command line."""

    recipe: str
    seed: int
    precision: str | None = None
    """If not the recipe's own."""

    def __str__(self) -> str:
        precision = f" {self.precision}" if self.precision else ""
        return f"{self.recipe}{precision} seed {self.seed}"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    agree: bool
    recipes: list[str]
    seeds: list[int]
    target: float
    epochs: int | None
    limit: int | None
    threads: int
    data_dir: Path | None
    out: Path

    @property
    def benchmark(self) -> str:
        """Name of the result."""
        return "agree" if self.agree else "quality"

    def trainings(self) -> list[Training]:
        """All runs, seed by seed, so that whatever changes in time changes for all."""
        precisions = ["float32", "bfloat16"] if self.agree else [None]
        return [
            Training(recipe, seed, precision)
            for seed in self.seeds
            for recipe in self.recipes
            for precision in precisions
        ]

    def command(self) -> str:
        """The command that repeats the measurement; the data folder is the reader's own."""
        words = ["--agree"] if self.agree else ["--target", f"{self.target:g}"]
        words += ["--recipes", ",".join(self.recipes), "--seeds", ",".join(map(str, self.seeds))]
        words += ["--epochs", str(self.epochs)] if self.epochs else []
        words += ["--limit", str(self.limit)] if self.limit else []
        words += ["--threads", str(self.threads)]
        return shlex.join(["python", "-m", "benchmarks.quality", *words])


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--agree", action="store_true", help="compare bfloat16 with float32")
    parser.add_argument("--recipes", help=f"default: fast-cvae; with --agree {RECIPE}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--target", type=float, default=TARGET, help="squared error + KL per image")
    parser.add_argument(
        "--epochs", type=int, help=f"default: the recipe's; with --agree {AGREE_EPOCHS}"
    )
    parser.add_argument("--limit", type=int, help="train on the first so many images")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all cores")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("CONVVAE_DATA"))
    parser.add_argument("--out", type=Path, help="default: quality.json or agree.json, in results/")
    given = parser.parse_args(arguments)
    given.recipes = (given.recipes or (RECIPE if given.agree else "fast-cvae")).split(",")
    given.epochs = given.epochs or (AGREE_EPOCHS if given.agree else None)
    try:
        given.seeds = [int(seed) for seed in given.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds {given.seeds} is not a list of whole numbers, such as 0,1,2")
    name = "agree.json" if given.agree else "quality.json"
    given.out = given.out or report.RESULTS / name
    return Options(**vars(given))


def words(training: Training, options: Options, run: Path) -> list[str]:
    """The command line of a training."""
    command = [PROGRAM, "train", "mnist", "--cpu", "--no-preview", "--out", str(run)]
    command += ["--recipe", training.recipe, "--seed", str(training.seed)]
    command += ["--precision", training.precision] if training.precision else []
    command += ["--epochs", str(options.epochs)] if options.epochs else []
    command += ["--limit", str(options.limit)] if options.limit else []
    return command + (["--data-dir", str(options.data_dir)] if options.data_dir else [])


def follow(command: Sequence[str], run: RunFolder, threads: int) -> list[float]:
    """Run a training to its end, watching its metrics.

    Returns:
        Seconds from the start of the process until each epoch was recorded, and until its end.

    Raises:
        PeerError: it failed.
    """
    with tempfile.TemporaryFile("w+") as printed:
        began = time.monotonic()
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=printed,
            env={**os.environ, **thread_settings(threads)},
        ) as process:
            moments: list[float] = []
            running = True
            while running:
                time.sleep(POLL_SECONDS)
                running = process.poll() is None
                moments += [time.monotonic() - began] * (len(epochs_of(run)) - len(moments))
        ended = time.monotonic() - began
        if process.returncode:
            printed.seek(0)
            raise PeerError(reason(printed.read()) or f"ended with code {process.returncode}")
    return [*moments, ended]


def epochs_of(run: RunFolder) -> list[dict[str, Any]]:
    """The rows of finished epochs in a run's metrics."""
    return [row for row in run.read_metrics() if row["event"] == "epoch"]


def epoch_record(row: dict[str, Any], batch_size: int, wall_seconds: float) -> dict[str, Any]:
    """What a result keeps of an epoch; squared error + KL per image, the bounds in nats per image.

    Args:
        row: Of `metrics.jsonl`, where squared error + KL is summed over a batch.
        batch_size: Images of a batch.
        wall_seconds: Since the process began.

    Raises:
        PeerError: the likelihood of the recipe has no squared error.
    """
    if row["train_squared_error_and_kl"] is None:
        raise PeerError(
            "its likelihood is not gaussian, so that it has no squared error to compare"
        )
    return {
        "epoch": row["epoch"],
        "squared_error_and_kl": row["train_squared_error_and_kl"] / batch_size,
        "validation_squared_error_and_kl": row["val_squared_error_and_kl"] / batch_size,
        "validation_bound": row["val_bound"],
        "training_seconds": row["seconds"],
        "wall_seconds": wall_seconds,
    }


def work(training: Training, options: Options) -> dict[str, Any]:
    """Train once and read the result.

    Raises:
        PeerError: the training failed, or cannot be compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        *moments, ended = follow(words(training, options, run.path), run, options.threads)
        config = run.read_config()
        settings, rows = config["settings"], epochs_of(run)
    return {
        "recipe": training.recipe,
        "seed": training.seed,
        "precision": settings["precision"],
        "wall_seconds": ended,
        "epochs": [
            epoch_record(row, settings["batch_size"], moment)
            for row, moment in zip(rows, moments, strict=True)
        ],
    }


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Run every training; a recipe that fails once is left out from then on."""
    from convvae.runtime import versions

    result = report.begin(options.benchmark, options.command(), console)
    use_cores(options.threads)
    runs: list[dict[str, Any]] = []
    errors: dict[str, str] = {}
    for training in options.trainings():
        if training.recipe in errors:
            continue
        try:
            run = work(training, options)
        except PeerError as error:
            errors[training.recipe] = _without_folder(str(error), options)
            report.say(console, f"{training}: {errors[training.recipe]}")
            continue
        runs.append(run)
        last = run["epochs"][-1]
        report.say(
            console,
            f"{training}: squared error + KL {last['squared_error_and_kl']:.2f}, validation bound "
            f"{last['validation_bound']:.2f} after {last['epoch']} epochs, "
            f"{run['wall_seconds']:.0f} s",
        )
    return {
        **result,
        "versions": versions(),
        "threads": options.threads,
        "target": options.target,
        "recipes": options.recipes,
        "runs": runs,
        "errors": errors,
    }


def _without_folder(text: str, options: Options) -> str:
    return text.replace(str(options.data_dir), "DATA") if options.data_dir else text


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table, and whether the precisions agree where they were compared."""
    if result["benchmark"] == "agree":
        report.show(console, result, AGREE_HEADER, agree_rows(result))
        lines = [*verdicts(result), *failures(result)]
    else:
        report.show(console, result, QUALITY_HEADER, quality_rows(result))
        lines = failures(result)
    for line in lines:
        report.say(console, line)


def main() -> None:
    """Measure, print and write."""
    options = parse()
    console = report.console()
    result = measure(options, console)
    if not result["runs"]:
        raise SystemExit("nothing was measured")
    show(result, console)
    report.write(console, result, options.out)


if __name__ == "__main__":
    main()
