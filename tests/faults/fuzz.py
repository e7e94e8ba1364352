"""Every reader on files damaged at random: a result or one line, in bounded memory.

Damage is a list of edits: bytes are flipped, cut, put in, copied from elsewhere, and numbers and
words are replaced by those that readers stumble over. Hypothesis shrinks what fails to its smallest
form; put it into `FOUND`, from where it is tried each time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.faults import Outcome, Size
from tests.faults.cases import png
from tests.faults.reading import Verdict, in_a_child, judge
from tests.faults.seeds import READERS

Edit = tuple[str, int, int, bytes]
"""Kind, place (of 2**16), another place or a number, bytes."""
WORDS = (
    *(b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"\0", b"\xff\xfe"),
    *(b"9" * 30, b"4294967295", b"[[[[[[[[", b"\x1b[31m", b"'", b'"', b",", b"\n", b"../../x"),
    *(b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80"),
)
PARTS = tuple(READERS)
ROUND = 50
"""Tries of one round, after which the time is looked at."""
FEW = 12
"""Tries where there is no time."""
FOUND: list[tuple[str, list[Edit]]] = [
    ("csv", [("set", 0, 0, b'"')]),  # a message with the whole table in it, line by line
    ("zip", [("number", 21846, 0, b"")]),
    ("npz", [("put", 0, 0, b"\n")]),
    ("npz", [("copy", 40_000, 0, b"")]),  # a message with the bytes of a name in it
    ("model", [("number", 246, 0, b"0")]),  # sides of 0 pixels: a message without the file
    ("config.json", [("word", 17930, 0, b"0")]),  # the same
    ("zip", [("cut", 0, 13839, b"0"), ("set", 60416, 0, b"\n")]),  # a name with a line's end in it
    ("parquet", [("flip", 17627, 0, b"0")]),  # a place behind the end of a dictionary
]
"""Damage that a reader once did not stand: its name in `READERS`, and the edits."""

SETTINGS = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
KINDS = ("flip", "set", "cut", "end", "put", "copy", "number", "word")
RECORD = 12
"""Bytes that an edit is drawn as."""


def edits_of(drawn: bytes) -> list[Edit]:
    """The edits that some bytes stand for.

    A list of tuples, drawn by hypothesis, takes longer to draw than most files to read.
    """
    changes: list[Edit] = []
    for start in range(0, max(len(drawn), 1), RECORD):
        record = drawn[start : start + RECORD].ljust(RECORD, b"\0")
        first, second = (int.from_bytes(record[place : place + 2]) for place in (1, 3))
        word = record[5]
        new = record[6 : 6 + word % 7] if word & 128 else WORDS[word % len(WORDS)]
        changes.append((KINDS[record[0] % len(KINDS)], first, second, new))
    return changes


edits = st.binary(min_size=1, max_size=6 * RECORD).map(edits_of)


def damaged(content: bytes, changes: list[Edit]) -> bytes:
    """The content after every edit."""
    for kind, first, second, new in changes:
        size = max(len(content), 1)
        place, other = first * size >> 16, second * size >> 16
        match kind:
            case "flip":
                byte = content[place : place + 1] or b"\0"
                content = (
                    content[:place] + bytes([byte[0] ^ (1 << second % 8)]) + content[place + 1 :]
                )
            case "set":
                content = content[:place] + new + content[place + len(new) :]
            case "cut":
                content = content[: min(place, other)] + content[max(place, other) :]
            case "end":
                content = content[:place]
            case "put":
                content = content[:place] + new + content[place:]
            case "copy":
                content = content[:place] + content[other : other + 64] + content[place + 64 :]
            case "number" | "word":
                what = rb"-?[0-9]+" if kind == "number" else rb"[A-Za-z_|<]+"
                found = list(re.finditer(what, content))
                if found:
                    start, end = found[first * len(found) >> 16].span()
                    content = content[:start] + new + content[end:]
    return content


@cache
def valid(reader: str) -> bytes:
    """What is damaged."""
    return READERS[reader].valid()


def tried(reader: str, changes: list[Edit]) -> Verdict:
    """What comes of a damaged file."""
    chosen = READERS[reader]
    path = Path(_folder().name) / chosen.file
    for left in path.parent.iterdir():
        left.unlink()
    if path.suffix in (".csv", ".parquet"):
        (path.parent / "a.png").write_bytes(png())
    path.write_bytes(chosen.wrap(damaged(valid(reader), changes)))
    with contextlib.redirect_stderr(io.StringIO()):
        return judge(reader, lambda: chosen.read(path), chosen.file)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where files lie that are tried: a folder for each can take longer than its try."""
    return tempfile.TemporaryDirectory(prefix="convvae-fuzz-")


def fuzz(reader: str, seconds: float, start: int = 0) -> tuple[int, int, str | None]:
    """Damage files of a reader for so long, in seconds of the processor.

    Returns:
        How many were tried, how many of them were refused, and the first that it did not stand.
    """
    count = refused = 0
    failed: list[tuple[list[Edit], str]] = []

    def stands(changes: list[Edit]) -> None:
        nonlocal count, refused
        count += 1
        verdict = tried(reader, changes)
        refused += verdict.refused is not None
        if verdict.wrong:
            failed.append((changes, verdict.wrong))
        assert not verdict.wrong

    end, number = time.process_time() + seconds, start
    most = ROUND if seconds else FEW
    while not failed and (number == start or time.process_time() < end):
        with contextlib.suppress(AssertionError, ExceptionGroup):
            seed(number)(settings(SETTINGS, max_examples=most)(given(edits)(stands)))()
        number += 1
    if failed:
        changes, wrong = failed[-1]  # the smallest that hypothesis came to
        return count, refused, f"{wrong} after {changes!r}"
    return count, refused, None


def child(seconds: str, start: str, *readers: str) -> list[Verdict]:
    """Try what was found before, then fuzz readers, and say how it went."""
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", tempfile.gettempdir())
    warnings.simplefilter("ignore")
    said: list[Verdict] = []
    for reader in readers:
        before = [tried(name, changes) for name, changes in FOUND if name == reader]
        count, refused, wrong = fuzz(reader, float(seconds), int(start))
        wrong = next((verdict.wrong for verdict in before if verdict.wrong), wrong)
        counted = json.dumps([reader, count + len(before), refused])
        said.append(Verdict(counted, None, wrong))
    return said


def prove(seconds: float, start: int, *readers: str) -> list[Outcome]:
    """The lines of readers, fuzzed for so long each in a process of their own."""
    found: list[Outcome] = []
    for verdict in in_a_child("fuzz", str(seconds), str(start), *readers):
        ended = not verdict.name.startswith("[")  # the process did, with all that it had counted
        reader, count, refused = (", ".join(readers), 1, 0) if ended else json.loads(verdict.name)
        note = verdict.wrong or f"{refused:,} refused in one line, the others read; below 1 GiB"
        found.append(Outcome(f"damaged {reader}", count, count - bool(verdict.wrong), note))
    return found


def run(size: Size, *readers: str) -> list[Outcome]:
    """Lines of the table: of the readers that are named, else of all."""
    if not size.full:
        return prove(size.seconds, 0, *(readers or READERS))
    start = int(time.time())  # other files each time, where there is time
    return [
        line
        for reader in readers or READERS
        for line in prove(size.seconds / _ways(reader), start, reader)
    ]


def _ways(reader: str) -> int:
    """In how many ways files that are read as this one's are damaged; they share the time."""
    return [other.file for other in READERS.values()].count(READERS[reader].file)
