"""Train on nine digits of MNIST and find the tenth among the test images, all ten in turn.

    CONVVAE_DATA=FOLDER python -m benchmarks.anomalies [--epochs 5] [--digits 0,1,2]

Of the training images of the nine digits, the last `--normal` calibrate the scores and the others
train the model; all 10,000 test images are scored, and those of the tenth digit are the abnormal
ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import report
from benchmarks.workers.common import available_cores
from convvae import data
from convvae.anomalies.calibration import Judgement, judge
from convvae.anomalies.scores import SCORES, measure
from convvae.data import ImageSet
from convvae.estimator import ConvVAE
from convvae.runtime import versions

RATE = 0.05
"""Share of normal images that may be flagged."""
SETTINGS: dict[str, Any] = {
    "latent_dims": 8,
    "max_filters": 32,
    "optimizer": "muon",
    "lr": 4e-3,
    "weight_decay": 0.0,
    "schedule": "one-cycle",
    "output_bias": "mean",
}
"""Of the model and its training: the recipe fast-cvae with half the filters, at 28x28."""
HEADER = ["score", "AUROC", "average precision", "abnormal flagged", "normal flagged"]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    epochs: int
    digits: list[int]
    limit: int | None
    normal: int
    samples: int
    seed: int
    threads: int
    data_dir: Path | None
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement; the data folder is the reader's own."""
        words = f"--epochs {self.epochs} --digits {','.join(map(str, self.digits))}"
        words += f" --limit {self.limit}" if self.limit else ""
        words += f" --normal {self.normal} --samples {self.samples} --seed {self.seed}"
        return f"python -m benchmarks.anomalies {words} --threads {self.threads}"


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anomalies", description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--digits", default="0,1,2,3,4,5,6,7,8,9", help="abnormal in turn")
    parser.add_argument("--limit", type=int, help="the first so many training images")
    parser.add_argument("--normal", type=int, default=3000, help="images that calibrate")
    parser.add_argument("--samples", type=int, default=10, help="of the importance-weighted bound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=report.RESULTS / "anomalies.json")
    given = parser.parse_args(arguments)
    given.digits = [int(digit) for digit in given.digits.split(",")]
    return Options(**vars(given))


def work(digit: int, sets: tuple[ImageSet, ImageSet], options: Options) -> dict[str, Any]:
    """Train without a digit and judge every test image."""
    train, test = sets
    assert train.labels is not None
    assert test.labels is not None
    images = train.images[train.labels != digit]
    began = time.perf_counter()
    model = ConvVAE(**SETTINGS, epochs=options.epochs, random_state=options.seed)
    model.fit(images[: -options.normal])
    trained = time.perf_counter()
    held_out = ImageSet(images[-options.normal :], None, "mnist", "train")
    normal, found = (
        measure(model.vae_, some, seed=options.seed, samples=options.samples)
        for some in (held_out, test)
    )
    judgements = judge(found, normal, test.labels == digit, RATE, len(test))
    return {
        "digit": digit,
        "training_images": len(images) - options.normal,
        "training_loss": model.loss_curve_[-1],
        "training_seconds": trained - began,
        "scoring_seconds": time.perf_counter() - trained,
        "scores": {name: as_record(judgement) for name, judgement in judgements.items()},
    }


def as_record(judgement: Judgement) -> dict[str, float]:
    """How well a score does, by name."""
    assert judgement.detection is not None
    return judgement.detection._asdict()


def measure_all(options: Options, console: Console) -> dict[str, Any]:
    """All digits in turn."""
    result = report.begin("anomalies", options.command(), console)
    torch.set_num_threads(options.threads)
    train = data.load("mnist", "train", data_dir=options.data_dir, limit=options.limit)
    test = data.load("mnist", "test", data_dir=options.data_dir)
    runs: list[dict[str, Any]] = []
    for digit in options.digits:
        runs.append(work(digit, (train, test), options))
        aurocs = ", ".join(f"{n} {row['auroc']:.3f}" for n, row in runs[-1]["scores"].items())
        seconds = runs[-1]["training_seconds"] + runs[-1]["scoring_seconds"]
        report.say(console, f"without {digit}: AUROC {aurocs}; {seconds:.0f} s")
    return {
        **result,
        "versions": versions(),
        "threads": options.threads,
        "settings": {**SETTINGS, "epochs": options.epochs},
        "normal": options.normal,
        "samples": options.samples,
        "rate": RATE,
        "test_images": len(test),
        "runs": runs,
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The table: of each score the mean over the digits, with the lowest and the highest."""
    table: list[list[str]] = []
    for name in SCORES:
        found = [run["scores"][name] for run in result["runs"]]
        cells = [
            _spread([row[key] for row in found], digits)
            for key, digits in (
                *(("auroc", 3), ("average_precision", 3)),
                *(("detected", 2), ("false_alarms", 3)),
            )
        ]
        table.append([f"`{name}`", *cells])
    return table


def _spread(values: list[float], digits: int) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def digit_rows(result: dict[str, Any]) -> list[list[str]]:
    """The AUROC of every score without each digit."""
    return [
        [str(run["digit"]), *(f"{run['scores'][name]['auroc']:.3f}" for name in SCORES)]
        for run in result["runs"]
    ]


def main() -> None:
    """Measure, print and write."""
    options = parse()
    console = report.console()
    result = measure_all(options, console)
    report.show(console, result, HEADER, rows(result))
    report.show(console, result, ["abnormal", *SCORES], digit_rows(result))
    report.write(console, result, options.out)


if __name__ == "__main__":
    main()
