"""Processes that cannot work together: each start must end within a minute, with one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.faults import Outcome, Size
from tests.faults.together import Ended, Together

MINUTE = 60.0
"""Seconds; the processes are forked, so that no time goes into starting Python."""
NOTE = "all end within a minute, with one line from one of them"
TRAIN = (
    *("train", "digits", "--cpu", "--epochs", "3", "--batch-size", "12", "--limit", "50"),
    *("--max-filters", "8", "--latent-dims", "2", "--validation", "0.2"),
    *("--no-report", "--no-preview"),
)


class Case(NamedTuple):
    """What is started."""

    name: str
    count: int
    job: str
    words: tuple[str, ...]
    place: dict[str, str]
    """Environment variables that say where to meet, if not those of the processes."""
    quick: bool = True
    """Whether it ends in seconds, and not when a wait does."""


def _alone(name: str, rank: str, address: str, *, quick: bool) -> Case:
    """One process of two, whose other one is not there."""
    place = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": address}
    return Case(name, 1, "command", TRAIN, place, quick)


CASES = (
    Case("a batch that two do not divide", 2, "command", (*TRAIN, "--batch-size", "13"), {}),
    Case(
        "a last batch of fewer images than processes", 3, "command", (*TRAIN, "--limit", "47"), {}
    ),
    Case("learning rates that differ", 2, "another_rate", TRAIN, {}),
    Case("versions of torch that differ", 2, "another_version", TRAIN, {}),
    _alone("a first process to which none comes", "0", "127.0.0.1", quick=False),
    _alone("a process whose first one does not come", "1", "127.0.0.1", quick=False),
    _alone("an address that is no name", "1", "no-such-host.invalid", quick=False),
    _alone("an address that nobody answers at", "1", "192.0.2.1", quick=False),
)


def refused(home: Path, size: Size) -> Iterator[Outcome]:
    """A line for those that cannot meet or disagree, and one for shards."""
    cases = [case for case in CASES if size.full or case.quick]
    with Together() as together:
        wrong: list[str] = []
        for number, case in enumerate(cases):
            words = (*case.words, "--out", str(home / f"{number}"))
            ended = together.run(case.count, case.job, *words, limit=MINUTE, **case.place)
            wrong += [f"{case.name}: {found}"] if (found := _wrong(ended)) else []
        what = ", ".join(case.name for case in cases)
        yield Outcome(what, len(cases), len(cases) - len(wrong), wrong[0] if wrong else NOTE)
        yield _shards(home, together)


def _shards(home: Path, together: Together) -> Outcome:
    """Shards of which one is missing, cut or changed."""
    cases: dict[str, Callable[[Path], object]] = {
        "missing": lambda path: path.unlink(),
        "cut": lambda path: os.truncate(path, 2000),
        "changed": lambda path: path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDAU", 1)),
    }
    wrong: list[str] = []
    for name, damage in cases.items():
        folder = home / name
        pattern = str(folder / "digits-{0..2}.tar")
        made = together.run(1, "command", "shard", "digits", "--out", pattern)
        damage(folder / "digits-1.tar")
        words = ("train", pattern, *TRAIN[2:], "--out", str(home / f"run-{name}"))
        ended = together.run(2, "command", *words, limit=MINUTE, CONVVAE_CACHE=str(home / "cache"))
        found = f"{made.err}" if any(made.codes) else _wrong(ended)
        wrong += [f"{name}: {found}"] if found else []
    what = f"two processes that train on shards of which one is {', '.join(cases)}"
    return Outcome(what, len(cases), len(cases) - len(wrong), wrong[0] if wrong else NOTE)


def _wrong(ended: Ended) -> str:
    """What is wrong with how processes ended; nothing, where it is ""."""
    traced = any("Traceback" in said for said in ended.err)
    if not all(ended.codes) or len(ended.lines) != 1 or traced:
        return f"{ended.codes}, {''.join(ended.err).strip()[-300:]}"
    return ""
