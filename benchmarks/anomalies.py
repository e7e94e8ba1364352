"""Find the images of other classes than those that a model was trained on, each class in turn.

    CONVVAE_DATA=FOLDER python -m benchmarks.anomalies [--task one] [--peers] [--resume]

`--task nine` (MNIST): the abnormal digit is left out of training. `--task one`: a digit is the only
one in training, and the other nine are abnormal. `--task photos`: so with the classes of a folder
or archive of images, named by `--photos`. The last `--normal` of the training images calibrate the
scores and the others train the model; all test images are scored. `--peers` has detectors of
scikit-learn and PyOD learn from the same images. The result is written after every class, and
`--resume` keeps those of a result that was made by the same command.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import detectors, report
from benchmarks.workers.common import available_cores
from convvae import data
from convvae.anomalies.calibration import Calibration, Judgement, judge
from convvae.anomalies.choosing import aurocs
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
EPOCHS = {"nine": 5, "one": 20, "photos": 40}
NORMAL = {"nine": 3000, "one": 600, "photos": 100}
"""Images that calibrate, where the command line does not say it."""
HEADER = ["score", "AUROC", "average precision", "abnormal flagged", "normal flagged"]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    task: str
    photos: str | None
    epochs: int
    digits: list[int]
    limit: int | None
    normal: int
    samples: int
    seed: int
    threads: int
    peers: bool
    peer_limit: int
    resume: bool
    data_dir: Path | None
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement; the data folder is the reader's own."""
        words = "" if self.task == "nine" else f"--task {self.task} "
        words += f"--photos {Path(self.photos).name} " if self.photos else ""
        words += f"--epochs {self.epochs} --digits {','.join(map(str, self.digits))}"
        words += f" --limit {self.limit}" if self.limit else ""
        words += f" --peers --peer-limit {self.peer_limit}" if self.peers else ""
        words += f" --normal {self.normal} --samples {self.samples} --seed {self.seed}"
        return f"python -m benchmarks.anomalies {words} --threads {self.threads}"


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anomalies", description=__doc__)
    parser.add_argument("--task", choices=EPOCHS, default="nine", help="what is normal")
    parser.add_argument("--photos", help="images in folders named as their classes")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--digits", default="0,1,2,3,4,5,6,7,8,9", help="classes in turn")
    parser.add_argument("--limit", type=int, help="the first so many training images")
    parser.add_argument("--normal", type=int, help="images that calibrate")
    parser.add_argument("--samples", type=int, default=10, help="of the importance-weighted bound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all")
    parser.add_argument("--peers", action="store_true", help="scikit-learn's and PyOD's as well")
    parser.add_argument("--peer-limit", type=int, default=10_000, help="images that they learn of")
    parser.add_argument("--resume", action="store_true", help="keep the classes that are done")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    if (given.task == "photos") != (given.photos is not None):
        parser.error("--task photos and --photos go together")
    given.digits = [int(digit) for digit in given.digits.split(",")]
    given.epochs = given.epochs or EPOCHS[given.task]
    given.normal = given.normal or NORMAL[given.task]
    name = "anomalies" if given.task == "nine" else f"anomalies-{given.task}"
    given.out = given.out or report.RESULTS / f"{name}.json"
    return Options(**vars(given))


def work(digit: int, sets: tuple[ImageSet, ImageSet], options: Options) -> dict[str, Any]:
    """Train without a class, or with it alone, and judge every test image."""
    train, test = sets
    assert train.labels is not None
    assert test.labels is not None
    left_out = options.task == "nine"
    images = train.images[(train.labels == digit) ^ left_out]
    abnormal = (test.labels != digit) ^ left_out
    began = time.perf_counter()
    model = ConvVAE(**SETTINGS, epochs=options.epochs, random_state=options.seed)
    model.fit(images[: -options.normal])
    trained = time.perf_counter()
    held_out = ImageSet(images[-options.normal :], None, train.name, "train")
    normal, found = (
        measure(model.vae_, some, seed=options.seed, samples=options.samples)
        for some in (held_out, test)
    )
    judgements = judge(found, Calibration.of(normal), abnormal, RATE, len(test))
    every = torch.ones(len(held_out), dtype=torch.bool)
    chosen_by = aurocs(model.vae_, held_out, every, seed=options.seed, samples=options.samples)
    scored = time.perf_counter()
    peers = {}
    if options.peers:
        known = images[: -options.normal][: options.peer_limit]
        learnt, judged = ((x.flatten(1).float() / 255).numpy() for x in (known, test.images))
        peers = detectors.compare(learnt, judged, abnormal.numpy(), options.threads, options.seed)
    return {
        "digit": digit,
        "training_images": len(images) - options.normal,
        "training_loss": model.loss_curve_[-1],
        "training_seconds": trained - began,
        "scoring_seconds": scored - trained,
        "auto": next(iter(chosen_by)),
        "chosen_by": chosen_by,
        "scores": {name: as_record(judgement) for name, judgement in judgements.items()},
        **({"peers": peers} if peers else {}),
    }


def as_record(judgement: Judgement) -> dict[str, float]:
    """How well a score does, by name."""
    assert judgement.detection is not None
    return judgement.detection._asdict()


def image_sets(options: Options) -> tuple[ImageSet, ImageSet]:
    """Training and test images, with their labels."""
    if options.photos is None:
        train = data.load("mnist", "train", data_dir=options.data_dir, limit=options.limit)
        return train, data.load("mnist", "test", data_dir=options.data_dir)
    prepare = data.Preparation(image_size=(32, 32), channels=3, split="folders")
    train = data.load(options.photos, "train", prepare=prepare, limit=options.limit)
    return train, data.load(options.photos, "test", prepare=prepare)


def measure_all(options: Options, console: Console) -> dict[str, Any]:
    """All classes in turn."""
    result = report.begin("anomalies", options.command(), console)
    torch.set_num_threads(options.threads)
    train, test = image_sets(options)
    result |= {
        "versions": versions(),
        "task": options.task,
        "threads": options.threads,
        "settings": {**SETTINGS, "epochs": options.epochs},
        "normal": options.normal,
        "samples": options.samples,
        "rate": RATE,
        "test_images": len(test),
        "side": test.images.shape[-1],
        "runs": done(options),
    }
    for digit in options.digits:
        if any(run["digit"] == digit for run in result["runs"]):
            continue
        run = work(digit, (train, test), options)
        result["runs"].append(run)
        aurocs = ", ".join(f"{name} {row['auroc']:.3f}" for name, row in all_rows(run).items())
        seconds = run["training_seconds"] + run["scoring_seconds"]
        report.say(console, f"{options.task} {digit}: AUROC {aurocs}; {seconds:.0f} s")
        report.write(console, result, options.out)
    return result


def done(options: Options) -> list[dict[str, Any]]:
    """The classes of a result that was made by the same command."""
    if not options.resume or not options.out.exists():
        return []
    found = json.loads(options.out.read_text(encoding="utf-8"))
    return found["runs"] if found["command"] == options.command() else []


def all_rows(run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Every score and detector of a class."""
    return {**scores_of(run), **run.get("peers", {}).get("detectors", {})}


def scores_of(run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Every score of a class, and `auto`: the one that its normal images chose."""
    chosen = {"auto": run["scores"][run["auto"]]} if "auto" in run else {}
    return {**run["scores"], **chosen}


def names(result: dict[str, Any]) -> list[str]:
    """The scores that a result has, of which a later version may know more."""
    return [name for name in (*SCORES, "auto") if name in scores_of(result["runs"][0])]


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The table: of each score the mean over the digits, with the lowest and the highest."""
    table: list[list[str]] = []
    for name in names(result):
        found = [scores_of(run)[name] for run in result["runs"]]
        cells = [
            _spread([row[key] for row in found], digits)
            for key, digits in (
                *(("auroc", 3), ("average_precision", 3)),
                *(("detected", 2), ("false_alarms", 3)),
            )
        ]
        table.append([f"`{name}`", *cells])
    return table + peer_rows(result)


def peer_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of each detector of another library the AUROC: mean, lowest and highest."""
    runs = [run["peers"]["detectors"] for run in result["runs"] if "peers" in run]
    each = {name: [run[name]["auroc"] for run in runs] for name in (runs[0] if runs else ())}
    return [[name, _spread(aurocs, 3), "", "", ""] for name, aurocs in each.items()]


def _spread(values: list[float], digits: int) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def digit_rows(result: dict[str, Any]) -> list[list[str]]:
    """The AUROC of every score without each digit."""
    return [
        [str(run["digit"]), *(f"{scores_of(run)[name]['auroc']:.3f}" for name in names(result))]
        for run in result["runs"]
    ]


def main() -> None:
    """Measure, print and write."""
    options = parse()
    console = report.console()
    result = measure_all(options, console)
    report.show(console, result, HEADER, rows(result))
    report.show(console, result, ["class", *names(result)], digit_rows(result))


if __name__ == "__main__":
    main()
