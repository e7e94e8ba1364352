"""What it costs that nothing is lost: saves inside an epoch, and checksums of a model file.

    python -m benchmarks.safeguards [--rounds 30] [--recipes mlx-cvae,photos]

A state is saved as training saves it, into a folder below the current one. A model file of 100 MB
is loaded in turn with its checksums and, written without them, unchecked: from memory, and after
the system was asked to forget the file's pages. See docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks import report
from benchmarks.engine import CPU, SHAPES, model, settings
from benchmarks.summary import Spread
from benchmarks.workers.common import available_cores
from convvae.config import ModelConfig, TrainConfig
from convvae.model.checkpoint import CHECKSUMS, ModelMetadata, load_model, save_model
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE
from convvae.runtime import versions
from convvae.training.cuda_graph import PlainStep, StepInputs
from convvae.training.learner import Learner, TrainingProgress
from convvae.training.saving import Saves
from convvae.training.schedules import StepSettings

HEADER = ["what", "measured"]
LARGE = ModelConfig(image_size=(64, 64), channels=3, latent_dims=256, max_filters=444)
"""A model of 100 MB."""
EVERY_SECONDS = 60 * TrainConfig(data="digits").save_every
"""Between two saves inside an epoch, where nothing else is asked for."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int
    recipes: tuple[str, ...]
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement."""
        words = f"--rounds {self.rounds} --recipes {','.join(self.recipes)}"
        return f"python -m benchmarks.safeguards {words}"


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.safeguards", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--recipes", default="mlx-cvae,photos")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "safeguards.json")
    given = vars(parser.parse_args(arguments))
    return Options(**{**given, "recipes": tuple(given["recipes"].split(","))})


def seconds(work: Callable[[], object]) -> float:
    """Of some work, by the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def save_times(recipe: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of the saves of a training whose optimiser has its moments."""
    config, shape = settings(recipe, "float32", 8), model(recipe)
    learner = Learner(config, shape, CPU, 60_000)
    pixels = torch.zeros(8, *SHAPES[recipe], dtype=torch.uint8)
    eps = torch.randn(config.mc_samples, 8, shape.latent_dims)
    PlainStep(learner)(pixels, StepInputs(eps), StepSettings(config.lr, config.beta, 8))
    run = RunFolder.create(folder)
    saves = Saves(run, learner, print)
    times = [
        seconds(lambda images=images: saves.save(TrainingProgress(images=images)))
        for images in range(1, rounds + 1)
    ]
    return {"seconds": times, "bytes": run.resume.stat().st_size}


def load_times(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of loading a model of 100 MB, checked and not, in turn."""
    files = {"checked": folder / "checked.safetensors", "unchecked": folder / "plain.safetensors"}
    about = ModelMetadata(model=LARGE, data="digits", epochs=1, images=1, versions=versions())
    save_model(files["checked"], VAE(LARGE), about)
    write_unchecked(files["checked"], files["unchecked"])
    found: dict[str, Any] = {"bytes": files["checked"].stat().st_size}
    for where in ("memory", "disk"):
        times: dict[str, list[float]] = {name: [] for name in files}
        for _ in range(rounds + 1):
            for name, path in files.items():
                if where == "disk":
                    forget(path)
                times[name].append(seconds(lambda path=path: load_model(path)))
        found[where] = {name: values[1:] for name, values in times.items()}  # the first warms up
    return found


def write_unchecked(path: Path, out: Path) -> None:
    """Write a model file again without its checksums, as files of before them are."""
    with safe_open(path, framework="pt") as file:
        metadata = {key: text for key, text in file.metadata().items() if key != CHECKSUMS}
    save_file(load_file(path), out, metadata=metadata)


def forget(path: Path) -> None:
    """Have the system drop a file's pages from memory, so that they are read from the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def measure(options: Options, out: Console) -> dict[str, Any]:
    """Everything, in a temporary folder on the disk of the current one."""
    result = report.begin("safeguards", options.command(), out)
    saves: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=".") as name:
        work = Path(name).resolve()
        for recipe in options.recipes:
            saves[recipe] = save_times(recipe, work / recipe, options.rounds)
        loads = load_times(work, options.rounds)
    return {
        **result,
        "versions": versions(),
        "threads": available_cores(),
        "rounds": options.rounds,
        "every_seconds": EVERY_SECONDS,
        "saves": saves,
        "loads": loads,
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The rows of the table."""
    every, cells = result["every_seconds"], list[list[str]]()
    for recipe, found in result["saves"].items():
        share = [100 * value / (every + value) for value in found["seconds"]]
        size = f"`{recipe}`, {found['bytes'] / 1e6:.1f} MB"
        cells.append([f"a save of {size}, ms", _spread([1e3 * v for v in found["seconds"]], 1)])
        cells.append([f"the same, % of {every / 60:.0f} minutes", _spread(share, 4)])
    loads = result["loads"]
    for where, place in (("memory", "in memory"), ("disk", "on the disk")):
        checked, unchecked = loads[where]["checked"], loads[where]["unchecked"]
        what = f"a model of {loads['bytes'] / 1e6:.0f} MB, {place}"
        ratio = [one / other for one, other in zip(checked, unchecked, strict=True)]
        cells.append([f"{what}: loaded unchecked, ms", _spread([1e3 * v for v in unchecked], 1)])
        cells.append([f"{what}: checked, ms", _spread([1e3 * v for v in checked], 1)])
        cells.append([f"{what}: checked ÷ unchecked", _spread(ratio, 2)])
    return cells


def _spread(values: Sequence[float], digits: int) -> str:
    found = Spread.of(values)
    assert found is not None
    return found.show(digits)


def main() -> None:
    """Measure, print and write."""
    report.make(parse(), measure, HEADER, rows)


if __name__ == "__main__":
    main()
