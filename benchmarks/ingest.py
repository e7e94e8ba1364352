"""Measure how fast one's own images are read, how soon a second run starts, and in what memory.

    python -m benchmarks.ingest [--images 60000] [--rounds 3] [--large 22000]

Small JPEGs are made in a temporary folder, then read in turn by a plain Pillow loop, by PyTorch's
DataLoader with two workers, and by convvae into its cache, each in a process of its own. Then an
epoch of training is timed from the cache and from memory in turn; and sets of images that differ
tenfold in size are read and trained on, watching memory (Linux). See docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from benchmarks import report
from benchmarks.environments import thread_settings
from benchmarks.summary import Spread
from benchmarks.workers.common import available_cores

SIDE = 64
"""Height and width of the small JPEGs."""
LARGE_SIDE = 256
"""Height and width of the images of the large set."""
BATCH = 128
HELD_OUT = 220
"""Test images of both large sets: how many are evaluated at a time has its own memory."""
TURNS = 9
"""Stretches of an epoch of training, each from the cache and from memory."""
MOST_BATCHES = 30
"""Of a stretch: some seconds; a large set is not trained on to the end of its epoch."""
POLL_SECONDS = 0.05
HEADER = ["what", "measured"]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    images: int
    rounds: int
    large: int
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement."""
        return (
            f"python -m benchmarks.ingest --images {self.images} --rounds {self.rounds} "
            f"--large {self.large}"
        )


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--images", type=int, default=60_000, help="small JPEGs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=22_000, help="images of the large set")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "ingest.json")
    return Options(**vars(parser.parse_args(arguments)))


def make_folder(folder: Path, count: int) -> None:
    """Write colour JPEGs of some texture in ten sub-folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / str(number % 10)
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(place / f"{number:06}.jpg", quality=90)


def make_array(path: Path, count: int) -> None:
    """Write a `.npy` file of colour images, row by row."""
    shape = (count, LARGE_SIDE, LARGE_SIDE, 3)
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    tile = np.random.default_rng(0).integers(0, 256, shape[1:], dtype=np.uint8)
    for row in range(count):
        array[row] = np.roll(tile, row, 0) ^ np.uint8(row % 251)
    array.flush()


# What the processes do; each prints one line of JSON.


def plain_loop(folder: Path) -> dict[str, float]:
    """Pillow, one file after the other, into one array."""
    paths = sorted(folder.rglob("*.jpg"))
    began = time.perf_counter()
    pixels = np.empty((len(paths), 3, SIDE, SIDE), np.uint8)
    for row, path in enumerate(paths):
        with Image.open(path) as image:
            pixels[row] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return {"seconds": time.perf_counter() - began}


class _Files:
    """A data set of the kind that PyTorch's tutorials write."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:  # noqa: ANN401
        import torch

        with Image.open(self.paths[row]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")).transpose(2, 0, 1))


def data_loader(folder: Path) -> dict[str, float]:
    """PyTorch's DataLoader with two workers: an epoch of batches."""
    from torch.utils.data import DataLoader

    files: Any = _Files(sorted(folder.rglob("*.jpg")))
    began = time.perf_counter()
    seen = sum(len(batch) for batch in DataLoader(files, batch_size=BATCH, num_workers=2))
    assert seen == len(files)
    return {"seconds": time.perf_counter() - began}


def convvae_load(folder: Path) -> dict[str, float]:
    """Convvae: both parts of the folder, from its files or from its cache."""
    from convvae.data import load

    began = time.perf_counter()
    sizes = [len(load(str(folder), "train")), len(load(str(folder), "test"))]
    return {"seconds": time.perf_counter() - began, "images": sum(sizes)}


def train_in_turn(folder: Path) -> dict[str, list[float]]:
    """Images a second of training from the cache and from memory, in turn."""
    import torch

    from convvae import data, runtime
    from convvae.config import TrainConfig
    from convvae.training.cuda_graph import PlainStep, StepInputs
    from convvae.training.feeds import feed_of
    from convvae.training.learner import Learner
    from convvae.training.loop import BatchPlan
    from convvae.training.schedules import step_settings

    runtime.keep_freed_memory()
    cached = data.load(str(folder), "train")
    config = TrainConfig(data=str(folder), precision="float32", batch_size=BATCH)
    learner = Learner(config, config.model((SIDE, SIDE), 3), torch.device("cpu"), len(cached))
    batches = BatchPlan(config, torch.arange(len(cached))).batches(0)
    sources = {"cache": cached, "memory": replace(cached, images=cached.images.clone())}
    speeds: dict[str, list[float]] = {name: [] for name in sources}
    part = min(len(batches) // TURNS, MOST_BATCHES)
    for turn in range(TURNS):
        for name, images in sources.items():
            step = PlainStep(learner)
            began = time.perf_counter()
            for pixels in feed_of(images, learner.vae.device, learner.ranks).batches(
                batches[turn * part : (turn + 1) * part]
            ):
                eps = torch.randn(1, len(pixels), config.latent_dims)
                step(pixels, StepInputs(eps), step_settings(config, 0, 1))
            if turn:  # the first turn warms up
                speeds[name].append(part * BATCH / (time.perf_counter() - began))
    return speeds


WORKERS: dict[str, Callable[[Path], Any]] = {
    work.__name__: work for work in (plain_loop, data_loader, convvae_load, train_in_turn)
}


def run(name: str, folder: Path, cache: Path, threads: int = 1) -> dict[str, Any]:
    """Do a piece of work in a process of its own; what it says, and how long the process took."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ingest", "--work", name, str(folder)],
        env={**os.environ, **thread_settings(threads), "CONVVAE_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return {**json.loads(done.stdout), "process_seconds": time.perf_counter() - began}


def watch(command: Sequence[str], cache: Path) -> dict[str, float]:
    """Run a command; its largest memory of its own, and of mapped files, in MiB (Linux)."""
    peaks = {"RssAnon": 0.0, "RssFile": 0.0}
    environment = {**os.environ, **thread_settings(available_cores()), "CONVVAE_CACHE": str(cache)}
    null = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=null, stderr=null) as process:
        while process.poll() is None:
            status = _status(process.pid)
            for name in peaks:
                found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
                peaks[name] = max(peaks[name], int(found[1]) / 1024 if found else 0.0)
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return {"own_mib": peaks["RssAnon"], "mapped_mib": peaks["RssFile"]}


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def measure_small(options: Options, work: Path, out: Console) -> dict[str, Any]:
    """Read small JPEGs in three ways in turn, then start again, then train."""
    folder = work / "small"
    make_folder(folder, options.images)
    # Files changed within the last seconds are compared by content; a user's are older.
    time.sleep(3)
    found: dict[str, list[float]] = {"plain_loop": [], "data_loader": [], "convvae": []}
    second: list[dict[str, float]] = []
    for number in range(options.rounds):
        cache = work / f"cache-{number}"
        for name in ("plain_loop", "data_loader"):
            found[name].append(options.images / run(name, folder, cache)["seconds"])
        found["convvae"].append(options.images / run("convvae_load", folder, cache)["seconds"])
        second.append(run("convvae_load", folder, cache))
        report.say(out, f"round {number + 1}: { ({n: round(v[-1]) for n, v in found.items()}) }")
    speeds = run("train_in_turn", folder, work / "cache-0", available_cores())
    return {
        "images_per_second": found,
        "second_start_seconds": [row["seconds"] for row in second],
        "second_start_process_seconds": [row["process_seconds"] for row in second],
        "training": {name: speeds[name] for name in ("cache", "memory")},
    }


def measure_large(options: Options, work: Path, out: Console) -> list[dict[str, Any]]:
    """Read and train on a tenth of the large set and on all of it, watching memory."""
    rows: list[dict[str, Any]] = []
    program = [sys.executable, "-c", "from convvae.cli.main import main; raise SystemExit(main())"]
    for count in (options.large // 10, options.large):
        array, cache = work / "large.npy", work / "cache-large"
        make_array(array, count)
        words = ["train", str(array), "--epochs", "1", "--max-filters", "8", "--batch-size", "32"]
        words += ["--validation", "0"]
        words += [
            "--no-preview",
            "--split",
            str(min(0.5, HELD_OUT / count)),
            "--cpu",
            "--out",
            str(work / f"run-{count}"),
        ]
        report.say(out, f"{count:,} images of {LARGE_SIDE}x{LARGE_SIDE}")
        rows.append(
            {
                "images": count,
                "gib": count * 3 * LARGE_SIDE**2 / 2**30,
                **watch([*program, *words], cache),
            }
        )
        subprocess.run(["rm", "-rf", str(cache), str(array)], check=True)
    return rows


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The rows of the table."""
    speed = result["images_per_second"]

    def spread(values: Sequence[float], digits: int = 0) -> str:
        found = Spread.of(values)
        assert found
        return found.show(digits)

    def ratio(over: Sequence[float], under: Sequence[float]) -> str:
        return spread([a / b for a, b in zip(over, under, strict=True)], 2)

    training = result["training"]
    cells = [
        ["plain Pillow loop, images/s", spread(speed["plain_loop"])],
        ["DataLoader with 2 workers, images/s", spread(speed["data_loader"])],
        ["convvae into its cache, images/s", spread(speed["convvae"])],
        ["convvae ÷ Pillow loop", ratio(speed["convvae"], speed["plain_loop"])],
        ["convvae ÷ DataLoader", ratio(speed["convvae"], speed["data_loader"])],
        ["second start: both parts ready, s", spread(result["second_start_seconds"], 2)],
        ["the same, whole process, s", spread(result["second_start_process_seconds"], 2)],
        ["training from the cache, images/s", spread(training["cache"])],
        ["training from memory, images/s", spread(training["memory"])],
        ["cache ÷ memory", ratio(training["cache"], training["memory"])],
    ]
    for row in result["memory"]:
        name = f"reading and training, {row['images']:,} images of {row['gib']:.1f} GiB"
        own, mapped = f"{row['own_mib']:,.0f}", f"{row['mapped_mib']:,.0f}"
        cells.append([name, f"own memory at most {own} MiB, mapped files {mapped} MiB"])
    return cells


def measure(options: Options, out: Console) -> dict[str, Any]:
    """Everything, in a temporary folder on the disk of the current one."""
    from convvae.runtime import versions

    result = report.begin("ingest", options.command(), out)
    with tempfile.TemporaryDirectory(dir=".") as name:
        work = Path(name).resolve()
        small = measure_small(options, work, out)
        memory = measure_large(options, work, out)
    return {
        **result,
        "versions": versions(),
        "images": options.images,
        "side": SIDE,
        "rounds": options.rounds,
        **small,
        "memory": memory,
    }


def main() -> None:
    """Measure, print and write; or do one piece of the work."""
    if sys.argv[1:2] == ["--work"]:
        print(json.dumps(WORKERS[sys.argv[2]](Path(sys.argv[3]))))
        return
    options = parse()
    report.make(options, measure, HEADER, rows)


if __name__ == "__main__":
    main()
