"""Consoles that are full, gone or poor in letters, under commands that print."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from tests.faults import Outcome, Size
from tests.faults.apart import apart
from tests.faults.syscalls import UNWATCHED, Ended, Fault, why_not
from tests.faults.syscalls import run as run_with
from tests.faults.writes import TINY, convvae, workplace

NAME = "[red]é🙂"
"""A folder's name that no old terminal can print, and that rich would take for colours."""
COMMANDS = {
    "info": ("info", "run"),
    "evaluate": ("evaluate", "run", "--limit=6", "--json=new.json"),
    "encode": ("encode", "run", NAME, "--out=new.npy"),
    "train": ("train", NAME, *TINY, "--limit=4", "--batch-size=2", "--validation=0", "--out=new"),
}
WRITTEN = {
    "info": (),
    "evaluate": ("new.json",),
    "encode": ("new.npy",),
    "train": ("new/model.safetensors", "new/resume.safetensors", "new/report.html"),
}
"""What a command writes, whatever becomes of what it prints."""


def full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def gone() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    os.dup2(theirs, 1)


def nothing() -> None:
    """No change: what is wrong is the encoding."""


CONSOLES: dict[str, tuple[Callable[[], None], str, dict[str, int]]] = {
    "full": (full, "utf-8", {"train": 0, "": 21}),
    "gone": (gone, "utf-8", {"train": 0, "": 141}),
    "of ASCII alone": (nothing, "ascii", {"": 0}),
    "of Latin letters": (nothing, "latin-1", {"": 0}),
}
"""What is done to standard output, its encoding, and the exit codes; "" for other commands."""


def run(size: Size) -> list[Outcome]:
    """A line per console."""
    return apart(size, "console")


def prove(size: Size, _: list[str]) -> Iterator[Outcome]:
    """The same in this process: the quick size is without the training."""
    if reason := why_not():
        yield Outcome(UNWATCHED, 1, 0, reason)
        return
    with workplace() as place:
        start = place / "start"
        (start / "photos").rename(start / NAME)
        commands = size.pick(["evaluate", "encode"], [*COMMANDS])
        for console in CONSOLES:
            tried, wrong = 0, list[str]()
            for command in commands:
                for unbuffered in (False, True) if size.full or console == "full" else (False,):
                    tried += 1
                    folder = place / "work"
                    shutil.rmtree(folder, ignore_errors=True)
                    shutil.copytree(start, folder)
                    found = _wrong(folder, console, command, unbuffered=unbuffered)
                    wrong += [f"{command}: {found}"] if found else []
            note = "files are written; a training ends well, others with their exit code"
            what = f"a console that is {console}: {', '.join(commands)}"
            yield Outcome(what, tried, tried - len(wrong), wrong[0] if wrong else note)


def _wrong(folder: Path, console: str, command: str, *, unbuffered: bool) -> str:
    """What is wrong with what a command does on a console; nothing, where it is ""."""
    breaks, encoding, codes = CONSOLES[console]

    def there() -> int:
        os.chdir(folder)
        os.environ["CONVVAE_CACHE"] = str(folder / "cache")
        breaks()
        raw = io.FileIO(1, "wb", closefd=False)
        buffer = cast("BinaryIO", raw) if unbuffered else io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(buffer, encoding=encoding, write_through=unbuffered)
        return convvae(*COMMANDS[command])()

    ended = run_with(there, folder, Fault())
    wanted = codes.get(command, codes[""])
    missing = [path for path in WRITTEN[command] if not (folder / path).exists()]
    if missing:
        return f"{missing[0]} is not there; it ends {ended.code}: {ended.err[-300:]}"
    return _ended_wrongly(ended, wanted)


def _ended_wrongly(ended: Ended, wanted: int) -> str:
    said = [line for line in ended.err.splitlines() if line.startswith("convvae: ")]
    good = ended.code == wanted and "Traceback" not in ended.err
    if good and wanted == 21:
        good = len(said) == 1 and "standard output: No space left" in said[0]
    return "" if good else f"it ends {ended.code}: {ended.err.strip()[-300:]}"
