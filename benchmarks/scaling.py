"""Time a training that several processes share, and compute to how many machines that pays.

    python -m benchmarks.scaling [--quick] [--rounds 5] [--steps 20]

Interleaved: convvae in one process of all cores, in a process for each core, and PyTorch's plain
DistributedDataParallel with the same network in as many; then the sum of gradients alone. See
docs/scaling.md for the model that the number of machines follows from.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from torch import nn

from benchmarks import report
from benchmarks.engine import SHAPES, model
from benchmarks.environments import thread_settings
from benchmarks.summary import Spread
from benchmarks.workers.common import available_cores, use_cores
from convvae.model.vae import VAE
from convvae.runtime import versions
from convvae.training.recipes import load_recipe

RECIPES = ("mlx-cvae", "mnist-ladder")
HEADER = [
    "recipe",
    "1 process, images/s",
    "a process a core",
    "÷ 1 process",
    "plain DDP",
    "convvae ÷ plain DDP",
]
"""Of recipes with batch normalisation there is a line for each `--batch-statistics`."""
COSTS = ["recipe", "gradient, MB", "its sum on loopback, ms", "step of a batch, ms"]
COSTS += ["pixels, MB/s per machine"]
PAYS = ["recipe", "network", "machines that each do half of what one does alone", "images/s then"]
WORTH = 0.5
"""Share of the work that it does alone which a machine must still do beside others."""
MOST = 4096
"""Machines that are thought of."""


class Network(NamedTuple):
    """What joins machines."""

    name: str
    bytes_per_second: float
    seconds: float
    """Latency of a message."""


NETWORKS = (
    Network("1 Gbit/s, 200 µs", 1e9 / 8, 200e-6),
    Network("10 Gbit/s, 50 µs", 10e9 / 8, 50e-6),
    Network("100 Gbit/s, 10 µs", 100e9 / 8, 10e-6),
)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int
    steps: int
    recipes: tuple[str, ...]
    cores: int
    quick: bool
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement."""
        words = f"--rounds {self.rounds} --steps {self.steps} --recipes {','.join(self.recipes)}"
        quick = " --quick" if self.quick else ""
        return f"python -m benchmarks.scaling {words} --cores {self.cores}{quick}"

    @property
    def parts(self) -> tuple[int, ...]:
        """Parts of the batch that a machine is timed at."""
        return (1, 4) if self.quick else (1, 2, 4, 8)


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--cores", type=int, default=available_cores(), help="default: all")
    parser.add_argument("--quick", action="store_true", help="one round of two steps")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "scaling.json")
    given = parser.parse_args(arguments)
    given.recipes = tuple(given.recipes.split(","))
    if unknown := [name for name in given.recipes if name not in SHAPES]:
        parser.error(f"no recipe {', '.join(unknown)}; there are {', '.join(SHAPES)}")
    if min(given.rounds, given.steps, given.cores) < 1:
        parser.error("--rounds, --steps and --cores must be at least 1")
    options = Options(**vars(given))
    return replace(options, rounds=1, steps=2) if options.quick else options


def batch_of(recipe: str) -> int:
    """Images of a batch of the recipe, all processes together."""
    return int(load_recipe(recipe)["batch_size"])


def launch(engine: str, recipe: str, processes: int, batch: int, options: Options) -> float:
    """Seconds of a step of so many processes that share the cores and the batch.

    Raises:
        SystemExit: a process failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, options.cores // processes)
    words = [engine, recipe, threads, batch, options.steps]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers.scaling", *map(str, words)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **thread_settings(threads), **meet, "RANK": str(rank)},
        )
        for rank in range(processes)
    ]
    printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{engine} in {processes} processes: one of them failed")
    return max(float(text) for text in printed) / options.steps


def engines(recipe: str, many: int) -> list[tuple[str, str, int]]:
    """What is timed: its name in the result, the worker's engine, the number of processes."""
    normalised = any(isinstance(part, nn.BatchNorm2d) for part in VAE(model(recipe)).modules())
    return [
        ("one", "convvae", 1),
        ("many", "convvae", many),
        *([("local", "local", many)] if normalised else []),
        ("plain", "plain", many),
        ("reduce", "reduce", many),
    ]


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Time everything, interleaved."""
    result = report.begin("scaling", options.command(), console)
    use_cores(options.cores)
    many = max(2, options.cores)
    recipes: dict[str, Any] = {}
    for name in options.recipes:
        batch, parameters = batch_of(name), VAE(model(name)).num_parameters()
        found = {"batch_size": batch, "parameters": parameters, "shape": SHAPES[name]}
        keys = [key for key, _, _ in engines(name, many)]
        recipes[name] = {**found, **{key: list[float]() for key in keys}, "parts": {}}
    for number in range(options.rounds):
        for name, found in recipes.items():
            batch = found["batch_size"]
            for key, engine, processes in engines(name, many):
                found[key].append(launch(engine, name, processes, batch, options))
            for part in options.parts:
                seconds = launch("convvae", name, 1, max(2, batch // part), options)
                found["parts"].setdefault(str(max(2, batch // part)), []).append(seconds)
            shown = ", ".join(f"{key} {found[key][-1] * 1e3:.1f} ms" for key in ("one", "many"))
            report.say(console, f"round {number + 1}  {name}: {shown}")
    return {
        **result,
        "versions": versions(),
        "cores": options.cores,
        "processes": many,
        "rounds": options.rounds,
        "steps": options.steps,
        "recipes": recipes,
        "networks": [network._asdict() for network in NETWORKS],
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """What several processes of a machine do."""
    return [
        [
            f"`{name}`, batch {found['batch_size']}{statistics}",
            *(_speed(found, key) for key in ("one", many)),
            _ratio(found["one"], found[many]),
            _speed(found, "plain"),
            _ratio(found["plain"], found[many]),
        ]
        for name, found in result["recipes"].items()
        for many, statistics in (
            (("many", ", statistics shared"), ("local", ", local"))
            if "local" in found
            else (("many", ""),)
        )
    ]


def cost_rows(result: dict[str, Any]) -> list[list[str]]:
    """What a step costs."""
    table: list[list[str]] = []
    for name, found in result["recipes"].items():
        pixels = math.prod(found["shape"]) * found["batch_size"] / median(found["one"]) / 1e6
        times = [Spread.of(1e3 * value for value in found[key]) for key in ("reduce", "one")]
        cells = ["" if time is None else time.show(1) for time in times]
        table.append([f"`{name}`", f"{gradient_bytes(found) / 1e6:.2f}", *cells, f"{pixels:.1f}"])
    return table


def pay_rows(result: dict[str, Any]) -> list[list[str]]:
    """To how many machines it pays, by the model of `step_seconds`."""
    return [
        [f"`{name}`", network.name, f"{machines:,}", f"{images:,.0f}"]
        for name, found in result["recipes"].items()
        for network in (Network(**each) for each in result["networks"])
        for machines, images in [paying(found, network)]
    ]


def gradient_bytes(found: dict[str, Any]) -> int:
    """Bytes of the gradients that are exchanged at every step: float32."""
    return 4 * found["parameters"]


def line(found: dict[str, Any]) -> tuple[float, float]:
    """Least squares through a machine's steps: seconds of any, and of each image more."""
    points = [(int(batch), median(times)) for batch, times in found["parts"].items()]
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return max(0.0, mean_y - slope * mean_x), max(0.0, slope)


def step_seconds(found: dict[str, Any], machines: int, network: Network) -> float:
    """Seconds of a step of the recipe's batch, divided among so many machines.

    a + b B / n for the computing, as `line` has it, and 2 (n - 1) (G / (n w) + l) for the sum of
    gradients of G bytes round a ring, at w bytes a second and a latency of l, none of it hidden.
    """
    start, each = line(found)
    share = gradient_bytes(found) / machines / network.bytes_per_second
    exchange = 2 * (machines - 1) * (share + network.seconds)
    return start + each * found["batch_size"] / machines + exchange


def paying(found: dict[str, Any], network: Network) -> tuple[int, float]:
    """The most machines that each do half of what one does alone, and their images a second."""
    alone = step_seconds(found, 1, network)
    best = 1
    for machines in range(2, min(MOST, found["batch_size"]) + 1):
        if alone / (machines * step_seconds(found, machines, network)) >= WORTH:
            best = machines
    return best, found["batch_size"] / step_seconds(found, best, network)


def _speed(found: dict[str, Any], key: str) -> str:
    speed = Spread.of(found["batch_size"] / seconds for seconds in found[key])
    assert speed is not None
    return speed.show(0)


def _ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """How many times as fast, within each round."""
    found = Spread.of(a / b for a, b in zip(slow, fast, strict=True))
    assert found is not None
    return found.show(2)


def main() -> None:
    """Measure, print and write."""
    options, out = parse(), report.console()
    result = measure(options, out)
    for header, table in ((HEADER, rows), (COSTS, cost_rows), (PAYS, pay_rows)):
        report.show(out, result, header, table(result))
    report.write(out, result, options.out)


if __name__ == "__main__":
    main()
