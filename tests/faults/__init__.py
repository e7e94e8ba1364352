"""Faults done to convvae on purpose: what was tried, and how often it ended as it should.

`python -m tests.faults` prints the tables of all of them; a quick part runs in the suite. A module
of this folder that proves something has one function,

    def run(size: Size) -> list[Outcome]

and its name in `MODULES`; one that takes long has `PARTS`, names that `run` takes behind the size.
It uses a folder of its own (`tempfile`), leaves nothing behind, and
never fails by an exception: what went wrong is an `Outcome` with fewer `passed` than `tried`, its
note saying what, so that the other proofs still run.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MODULES = (
    *("writes", "disk", "console", "saves", "resume", "ranks", "corpus", "fuzz", "page", "lines"),
)
"""Modules of this folder with a `run`, in the order of the table."""


@dataclass(frozen=True)
class Outcome:
    """A line of the table."""

    fault: str
    """What was done, in words: "a full disk at every write of an export"."""
    tried: int
    """How often."""
    passed: int
    """How often it ended as it should."""
    note: str = ""
    """What "as it should" means here; or, where it did not, the first case that failed."""

    @property
    def holds(self) -> bool:
        """Whether every try passed, and there was one."""
        return 0 < self.tried == self.passed


@dataclass(frozen=True)
class Size:
    """How much is tried."""

    full: bool
    """All cases, instead of a few of each kind that take seconds together."""
    seconds: float
    """Time of a proof without an end of its own, such as the fuzzing of one reader."""

    def pick(self, quick: T, full: T) -> T:
        """One of two amounts."""
        return full if self.full else quick


QUICK, FULL = Size(full=False, seconds=1.0), Size(full=True, seconds=600.0)


def proofs() -> dict[str, Callable[..., list[Outcome]]]:
    """Every module of the table, by its name."""
    return {name: importlib.import_module(f"{__name__}.{name}").run for name in MODULES}


def parts_of(run: Callable[..., list[Outcome]]) -> tuple[str, ...]:
    """What a module's `run` can do alone."""
    return tuple(getattr(sys.modules[run.__module__], "PARTS", ()))
