"""Train the same model side by side: convvae and the usual ways, each in a process of its own.

    CONVVAE_DATA=FOLDER python -m benchmarks.peers [--peers convvae,jax] [--rounds 3]

Rounds are interleaved, so that whatever else slows the machine slows every peer. See
docs/performance.md for what is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.environments import PeerError, interpreter, run, thread_settings
from benchmarks.summary import HEADER, summarise
from benchmarks.workers.common import available_cores


@dataclass(frozen=True)
class Peer:
    """A way to train the model."""

    name: str
    what: str
    images: int
    """Images timed a round, unless told: about 10 to 20 seconds on two cores."""
    worker: str
    """Module of `benchmarks.workers`."""
    environment: bool = False
    """Whether it has an environment of its own; else it runs in the project's."""
    arguments: tuple[str, ...] = ()

    def python(self) -> Path:
        """The interpreter to run it with.

        Raises:
            PeerError: its environment cannot be made.
        """
        return interpreter(self.worker) if self.environment else Path(sys.executable)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("convvae", "this project's command line", 12_800, "convvae"),
        Peer("pytorch", "PyTorch, a plain loop over a DataLoader", 6_400, "pytorch"),
        Peer(
            "pytorch-workers",
            "the same with 2 loader processes",
            6_400,
            "pytorch",
            arguments=("--workers", "2"),
        ),
        Peer("jax", "JAX, flax and optax, compiled", 6_400, "jax", environment=True),
        Peer("mlx", "MLX, compiled", 256, "mlx", environment=True),
        Peer("pythae", "pythae's BetaVAE and BaseTrainer", 6_400, "pythae", environment=True),
    )
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    peers: list[str]
    rounds: int
    images: int | None
    batch_size: int
    threads: int
    data_dir: Path
    out: Path

    def images_of(self, peer: str) -> int:
        """Images that a peer trains on in the timed part of a round: whole batches."""
        asked = self.images or PEERS[peer].images
        return max(asked // self.batch_size, 1) * self.batch_size

    def command(self) -> str:
        """The command that repeats the measurement; the data folder is the reader's own."""
        words = ["--peers", ",".join(self.peers), "--rounds", str(self.rounds)]
        words += ["--images", str(self.images)] if self.images else []
        words += ["--batch-size", str(self.batch_size), "--threads", str(self.threads)]
        return shlex.join(["python", "-m", "benchmarks.peers", *words])


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, help="a round, for every peer; default: by peer")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all cores")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("CONVVAE_DATA"))
    parser.add_argument("--out", type=Path, default=report.RESULTS / "peers.json")
    given = parser.parse_args(arguments)
    given.peers = given.peers.split(",")
    if unknown := [name for name in given.peers if name not in PEERS]:
        parser.error(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if given.data_dir is None:
        parser.error("name the folder with MNIST: --data-dir, or CONVVAE_DATA")
    given.data_dir = Path(given.data_dir).resolve()
    return Options(**vars(given))


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Run every peer, round by round; a peer that fails is left out of the rounds to come."""
    result = report.begin("peers", options.command(), console)
    peers: dict[str, dict[str, Any]] = {
        name: {"what": PEERS[name].what, "rounds": [], "error": None} for name in options.peers
    }
    for number in range(options.rounds):
        for name, record in peers.items():
            if record["error"] is None:
                _measure_once(options, name, number, record, console)
    return {
        **result,
        "rounds": options.rounds,
        "threads": options.threads,
        "batch_size": options.batch_size,
        "images": {name: options.images_of(name) for name in options.peers},
        "peers": peers,
    }


def _measure_once(
    options: Options, name: str, number: int, record: dict[str, Any], console: Console
) -> None:
    """Add a round to the record of a peer, or the reason why there is none."""
    try:
        row = work(PEERS[name], options)
    except PeerError as error:
        record["error"] = str(error).replace(str(options.data_dir), "DATA")
        report.say(console, f"round {number + 1}  {name}: {record['error']}")
        return
    record["rounds"].append({"round": number, **row})
    console.print(f"round {number + 1}  {name}: {row['images_per_second']:,.1f} images/s")


def work(peer: Peer, options: Options) -> dict[str, Any]:
    """Run a peer's worker once and read its result.

    Raises:
        PeerError: it cannot be installed or run.
    """
    command = [str(peer.python()), "-m", f"benchmarks.workers.{peer.worker}", *peer.arguments]
    command += ["--images", str(options.images_of(peer.name))]
    command += ["--batch-size", str(options.batch_size), "--threads", str(options.threads)]
    command += ["--data-dir", str(options.data_dir)]
    printed = run(command, thread_settings(options.threads))
    return json.loads(printed.splitlines()[-1])


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table."""
    summaries = summarise(result)
    report.show(console, result, HEADER, [[item.name, *item.cells()] for item in summaries])
    for item in summaries:
        if item.error:
            report.say(console, f"{item.name}: {item.error}")


def main() -> None:
    """Measure, print and write."""
    options = parse()
    console = report.console()
    result = measure(options, console)
    show(result, console)
    report.write(console, result, options.out)


if __name__ == "__main__":
    main()
