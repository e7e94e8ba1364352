"""What may come of reading a file: a result, or one line that says what is wrong with it.

`python -m tests.faults.reading MODULE FILE [WORD ...]` calls `MODULE.child(WORD ...)` in a process
of its own with bounded memory, and writes what it says to a file: a reader that asks for more than
there is fails there alone.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from convvae.errors import ConvvaeError, OutOfMemoryError

MOST_MEMORY = 1 << 30
"""Bytes that a reader may need beyond what the process had."""
MOST_SECONDS = 60
"""Of a processor, that a reader may take for a file."""
MOST_WAIT = 600
"""Seconds after which a reader waits for something that does not come, on a busy machine too."""


class Verdict(NamedTuple):
    """What came of a read."""

    name: str
    refused: str | None
    """Name of the error's class; None where there was a result."""
    wrong: str | None
    """What should not have happened; None if all is well."""


class HangError(BaseException):
    """A reader took longer than it may."""


def judge(name: str, read: Callable[[], object], named: str = "") -> Verdict:
    """Read something, and say what came of it.

    Args:
        name: Of the case.
        read: Reads it.
        named: What a message must name.
    """
    before = _start_counting()
    refused = wrong = None
    try:
        with _alarm():
            read()
    except OutOfMemoryError as error:
        wrong = f"asked for too much memory: {error}"
    except ConvvaeError as error:
        refused, said = type(error).__name__, str(error)
        if "\n" in said or named not in said or len(said) > 2000:
            wrong = f"the message is not one line that names {named}: {said[:300]!r}"
    except HangError:
        wrong = f"took more than {MOST_SECONDS} s of a processor, or {MOST_WAIT} s"
    except Exception as error:  # noqa: BLE001 - that there is none is what is tried
        where = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{type(error).__name__}: {str(error)[:200]} ({where.name}, line {where.lineno})"
    used = _most_memory() - before
    if wrong is None and used > MOST_MEMORY:
        wrong = f"needed {used >> 20} MiB"
    return Verdict(name, refused, wrong)


def in_a_child(module: str, *words: str) -> list[Verdict]:
    """What `child` of a module of this folder says, in a process of its own with bounded memory."""
    with tempfile.TemporaryDirectory(prefix="convvae-faults-") as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.reading", module, str(answer), *words],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "CONVVAE_CACHE": str(Path(folder) / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not answer.exists():
            last = done.stderr.strip().splitlines()[-1:] or ["nothing"]
            return [Verdict(module, None, f"the process ended with {done.returncode}: {last[0]}")]
        return [Verdict(*each) for each in json.loads(answer.read_text())]


def _start_counting() -> int:
    """What this process has now, in bytes; `_most_memory` counts from here where it can."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    return _most_memory()


def _most_memory() -> int:
    """The most memory that this process had, in bytes."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _alarm():
    def ring(_signal: int, _frame: object) -> None:
        raise HangError

    clocks = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, ring) for number in clocks}
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, MOST_WAIT)
    try:
        yield
    finally:
        for number, clock in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(number, before[number])


def _bound_memory() -> None:
    """A backstop: nothing here may take the machine down."""
    import torch  # noqa: F401 - what it maps is no part of what a reader needs

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    most = pages * resource.getpagesize() + 4 * MOST_MEMORY
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    chosen, answer_file, *rest = sys.argv[1:]
    _bound_memory()
    found = importlib.import_module(f"tests.faults.{chosen}").child(*rest)
    Path(answer_file).write_text(json.dumps(found))
