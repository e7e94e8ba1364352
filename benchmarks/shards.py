"""Compare training from shards with training from memory, and its memory over more and more shards.

    python -m benchmarks.shards [--images 2000] [--shards 1,10,50] [--rounds 3]

Colour JPEGs of 64x64 are written as shards. Their first reading, into the cache, is timed in a
process of its own; then an epoch is trained in stretches, in turn from the shards' cache and from a
copy in memory. Memory is that of a whole training, its first reading with it, watched from outside
(Linux): its own, and pages of mapped files, which the system takes back when it needs them. See
docs/scaling.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import ingest, report
from benchmarks.summary import Spread
from benchmarks.workers.common import available_cores
from convvae.data.sharding import Target, source_of, write_shards
from convvae.runtime import versions

HEADER = ["what", "measured"]
PROGRAM = [sys.executable, "-c", "from convvae.cli.main import main; raise SystemExit(main())"]
SETTLED_SECONDS = 3.0
"""Files changed within the last seconds are compared by content; a user's are older."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    images: int
    shards: tuple[int, ...]
    rounds: int
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement."""
        counts = ",".join(map(str, self.shards))
        words = f"--images {self.images} --shards {counts} --rounds {self.rounds}"
        return f"python -m benchmarks.shards {words}"


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="of each shard")
    parser.add_argument("--shards", default="1,10,50", help="how many, in rising order")
    parser.add_argument("--rounds", type=int, default=3, help="epochs trained in turn")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "shards.json")
    given = vars(parser.parse_args(arguments))
    return Options(**{**given, "shards": tuple(map(int, given["shards"].split(",")))})


def make_shards(work: Path, images: int, count: int) -> Path:
    """Write so many shards of so many images each; their folder."""
    source, shards = work / "images", work / f"shards-{count}"
    ingest.make_folder(source, images * count)
    pattern = shards / f"train-{{000000..{count - 1:06}}}.tar"
    index = write_shards(source_of(str(source), None), Target.of(str(pattern)), skip_bad=False)
    assert index.images == images * count
    time.sleep(SETTLED_SECONDS)
    return shards


def watch_training(work: Path, shards: Path, images: int) -> dict[str, float]:
    """Train an epoch on shards that were never read; its largest memory, MiB.

    No images are held out for validation, which takes a copy of up to 5,000 of them, and the test
    images are as many of any set.
    """
    words = ["train", str(shards), "--cpu", "--epochs", "1", "--max-filters", "8"]
    words += ["--batch-size", str(ingest.BATCH), "--validation", "0", "--no-preview"]
    words += ["--split", str(min(0.5, ingest.HELD_OUT / images)), "--no-report"]
    run, cache = work / f"run-{shards.name}", work / f"cache-{shards.name}"
    found = ingest.watch([*PROGRAM, *words, "--out", str(run)], cache)
    shutil.rmtree(cache)
    return found


def measure(options: Options, out: Console) -> dict[str, Any]:
    """Everything, in a temporary folder on the disk of the current one."""
    result = report.begin("shards", options.command(), out)
    memory: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=".") as name:
        work = Path(name).resolve()
        shards = work
        for count in options.shards:
            shards = make_shards(work, options.images, count)
            total = options.images * count
            memory.append({"shards": count, **watch_training(work, shards, total)})
            report.say(out, f"{count} shards: {memory[-1]['own_mib']:,.0f} MiB")
        cache, threads = work / "cache", available_cores()
        first = ingest.run("convvae_load", shards, cache, threads)
        speeds: dict[str, list[float]] = {"cache": [], "memory": []}
        for number in range(options.rounds):
            found = ingest.run("train_in_turn", shards, cache, threads)
            for source, values in speeds.items():
                values += found[source]
            report.say(out, f"round {number + 1} of training in turn")
    return {
        **result,
        "versions": versions(),
        "images_per_shard": options.images,
        "side": ingest.SIDE,
        "threads": threads,
        "first_reading_images_per_second": first["images"] / first["seconds"],
        "images_per_second": {"shards": speeds["cache"], "memory": speeds["memory"]},
        "memory": memory,
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The rows of the table."""
    speeds = result["images_per_second"]
    pairs = zip(speeds["shards"], speeds["memory"], strict=True)
    spreads = {
        "training from shards, images/s": (Spread.of(speeds["shards"]), 0),
        "training from memory, images/s": (Spread.of(speeds["memory"]), 0),
        "shards ÷ memory": (Spread.of(one / other for one, other in pairs), 2),
    }
    cells = [
        [
            "first reading of the shards, images/s",
            f"{result['first_reading_images_per_second']:,.0f}",
        ]
    ]
    cells += [[what, found.show(digits)] for what, (found, digits) in spreads.items() if found]
    first = result["memory"][0]["own_mib"]
    for row in result["memory"]:
        images = row["shards"] * result["images_per_shard"]
        more = f"{row['own_mib'] / first:.2f} of the first"
        cells.append(
            [
                f"reading and training, {row['shards']:,} shards of {images:,} images",
                f"own memory at most {row['own_mib']:,.0f} MiB ({more}), mapped files "
                f"{row['mapped_mib']:,.0f} MiB",
            ]
        )
    return cells


def main() -> None:
    """Measure, print and write."""
    options = parse()
    report.make(options, measure, HEADER, rows)


if __name__ == "__main__":
    main()
