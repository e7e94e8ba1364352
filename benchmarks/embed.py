"""Embed MNIST with a pretrained model: how long it takes, and what a linear classifier makes of it.

    CONVVAE_DATA=FOLDER python -m benchmarks.embed [--model mlx-cvae] [--rounds 5]

Timed is the embedding of the 10,000 test images, in memory and of the model's size: the posterior
means alone (the encoder), and all that `convvae encode` writes (one pass of the encoder, two of the
decoder). The classifier is multinomial logistic regression without regularisation, trained on the
standardised posterior means of the 60,000 training images and tested on those of the test images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import report
from benchmarks.workers.common import available_cores
from convvae import data
from convvae.data import ImageSet
from convvae.evaluation.encode import posterior_means, stream_encodings
from convvae.model.checkpoint import load_model
from convvae.model.vae import VAE
from convvae.runtime import versions

HEADER = ["what", "seconds", "images/s"]
PARTS = {
    "encoder": "posterior means",
    "encode": "means, log-variances, bound, KL and error",
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: str
    rounds: int
    limit: int | None
    threads: int
    data_dir: Path | None
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement; the data folder is the reader's own."""
        words = f"--model {self.model} --rounds {self.rounds}"
        words += f" --limit {self.limit}" if self.limit else ""
        return f"python -m benchmarks.embed {words} --threads {self.threads}"


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed", description=__doc__)
    parser.add_argument("--model", default="mlx-cvae")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="the first so many images of each split")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=report.RESULTS / "embed.json")
    return Options(**vars(parser.parse_args(arguments)))


def load(vae: VAE, split: data.Split, options: Options) -> ImageSet:
    """The images of a split, of the model's size, with their labels."""
    found = data.load("mnist", split, data_dir=options.data_dir, limit=options.limit)
    images = data.fit(found, vae.config.image_size, vae.config.channels)
    return replace(found, images=images)


def seconds(action: Callable[[], object], rounds: int) -> list[float]:
    """The times of an action, after one that is not timed."""
    action()
    found: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return found


def accuracy(vae: VAE, train: ImageSet, test: ImageSet) -> float:
    """Share of the test images that a linear classifier of their posterior means gets right."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=float("inf"), max_iter=1000))
    model.fit(posterior_means(vae, train.images)[0].double(), train.labels)
    return float(model.score(posterior_means(vae, test.images)[0].double(), test.labels))


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Time, classify, and say so."""
    result = report.begin("embed", options.command(), console)
    torch.set_num_threads(options.threads)
    vae, _ = load_model(options.model)
    test = load(vae, "test", options)
    actions: dict[str, Callable[[], object]] = {
        "encoder": lambda: posterior_means(vae, test.images),
        "encode": lambda: list(stream_encodings(vae, test, seed=0)),
    }
    times = {name: seconds(action, options.rounds) for name, action in actions.items()}
    train = load(vae, "train", options)
    return {
        **result,
        "versions": versions(),
        "threads": options.threads,
        "model": options.model,
        "rounds": options.rounds,
        "images": len(test),
        "train_images": len(train),
        "latents": vae.config.latent_dims,
        "seconds": times,
        "accuracy": accuracy(vae, train, test),
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The table: median, lowest and highest time, and the rate of the median."""
    table: list[list[str]] = []
    for name, what in PARTS.items():
        found = result["seconds"][name]
        middle = statistics.median(found)
        spread = f"{middle:.2f} ({min(found):.2f}–{max(found):.2f})"
        table.append([what, spread, f"{result['images'] / middle:,.0f}"])
    return table


def verdict(result: dict[str, Any]) -> str:
    """The accuracy in a sentence."""
    return (
        f"Logistic regression on the {result['latents']} posterior means: "
        f"{result['accuracy']:.2%} of the {result['images']:,} test images, trained on the "
        f"{result['train_images']:,} training images."
    )


def main() -> None:
    """Measure, print and write."""
    options = parse()
    console = report.console()
    result = measure(options, console)
    report.show(console, result, HEADER, rows(result))
    report.say(console, verdict(result))
    report.write(console, result, options.out)


if __name__ == "__main__":
    main()
