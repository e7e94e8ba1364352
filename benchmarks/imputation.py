"""Half of the pixels of test images of MNIST are missing: how far off is what is put there?

    CONVVAE_DATA=FOLDER python -m benchmarks.imputation [--model NAME] [--mask random:0.5]

Beside the model's conditional mean: the mean training image, and the training image that is nearest
in the pixels that are seen. The error is the root of the mean squared error of the missing pixels.
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
from torch import Tensor

from benchmarks import report
from benchmarks.workers.common import available_cores
from convvae import data
from convvae.data.pixels import binarize_once
from convvae.evaluation.imputation import impute
from convvae.evaluation.masks import missing_pixels
from convvae.model.checkpoint import load_model
from convvae.runtime import versions

HEADER = ["in the place of missing pixels", "root mean squared error"]
AT_ONCE = 100
"""Test images that are compared with all training images at a time."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: str
    mask: str
    images: int
    limit: int | None
    completions: int
    steps: int
    seed: int
    threads: int
    data_dir: Path | None
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement; the data folder is the reader's own."""
        words = f"--model {self.model} --mask {self.mask} --images {self.images}"
        words += f" --limit {self.limit}" if self.limit else ""
        words += f" --completions {self.completions} --steps {self.steps} --seed {self.seed}"
        return f"python -m benchmarks.imputation {words} --threads {self.threads}"


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imputation", description=__doc__)
    parser.add_argument("--model", default="mnist-bernoulli")
    parser.add_argument("--mask", default="random:0.5")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--limit", type=int, help="the first so many training images")
    parser.add_argument("--completions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=report.RESULTS / "imputation.json")
    return Options(**vars(parser.parse_args(arguments)))


def nearest_image(images: Tensor, train: Tensor, missing: Tensor) -> Tensor:
    """The training image that is nearest to each in its observed pixels, shape [N, C, H, W].

    Args:
        images: In [0, 1], shape [N, C, H, W].
        train: Training images in [0, 1], shape [M, C, H, W].
        missing: bool [N, 1, H, W].
    """
    flat, found = train.flatten(1), []
    for some, gaps in zip(images.split(AT_ONCE), missing.split(AT_ONCE), strict=True):
        seen = (~gaps).expand_as(some).flatten(1).float()
        # sum of seen (x - t)^2, but for seen x^2, which is the same for every t
        far = seen @ flat.square().T - 2 * (seen * some.flatten(1)) @ flat.T
        found.append(train[far.argmin(1)])
    return torch.cat(found)


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Complete, and compare."""
    result = report.begin("imputation", options.command(), console)
    torch.set_num_threads(options.threads)
    vae, metadata = load_model(options.model)
    folder = options.data_dir
    known = data.load("mnist", "train", data_dir=folder, limit=options.limit).images
    tested = data.load("mnist", "test", data_dir=folder, limit=options.images).images
    if metadata.binarize != "none":
        known = binarize_once(known, "train", metadata.binarize_seed)
        tested = binarize_once(tested, "test", metadata.binarize_seed)
    train, images = (some.float() / 255 for some in (known, tested))
    missing = missing_pixels(options.mask, len(images), vae.config.image_size, options.seed)
    began = time.perf_counter()
    found = impute(
        vae,
        tested,
        ~missing,
        completions=options.completions,
        steps=options.steps,
        seed=options.seed,
    )
    seconds = time.perf_counter() - began
    fillings = {
        "the model's conditional mean": found.mean,
        "one completion": found.completions[0],
        "the mean training image": train.mean(0).expand_as(images),
        "the nearest training image": nearest_image(images, train, missing),
    }
    gaps = missing.expand_as(images)
    errors = {
        name: float((filling - images)[gaps].square().mean().sqrt())
        for name, filling in fillings.items()
    }
    return {
        **result,
        "versions": versions(),
        "images": len(images),
        "train_images": len(train),
        "missing": float(missing.float().mean()),
        "accepted": found.accepted,
        "seconds": seconds,
        "errors": errors,
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The table."""
    return [[name, f"{error:.4f}"] for name, error in result["errors"].items()]


if __name__ == "__main__":
    report.make(parse(), measure, HEADER, rows)
