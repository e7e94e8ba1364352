"""Digests of the cache: what was written is what is read.

An entry's `entry.json` has a digest of every block of pixels, of every other file, and of itself.
They are compared when an entry is opened, once per process, or once for all that train together on
a machine: a block that a disk lost, a file that
was cut or written over, is found before a model learns from it, and the entry is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from convvae.data.cache.pool import cores
from convvae.data.cache.worker import digest

BLOCK_BYTES = 1 << 22
"""Bytes of pixels that have a digest of their own."""
PIXELS, ENTRY = "pixels", "entry.json"
BESIDE = ("names.json", "labels.npy", "digests.npy")
"""The other files of an entry that are read."""
_known: dict[Path, tuple[int, ...]] = {}
"""Entries found whole by this process, and the state of their files then."""


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write `entry.json`: the facts of an entry, and the digests of what is in it.

    The files may not be written to afterwards: one that is cut while it is mapped kills whoever
    reads it.
    """
    sealed = {
        "facts": facts,
        "blocks": _blocks(folder / PIXELS),
        "files": {name: _digest_of(folder / name) for name in BESIDE},
    }
    text = json.dumps({**sealed, "digest": _digest_of_all(sealed)}, indent=1)
    (folder / ENTRY).write_text(text)
    for name in (PIXELS, ENTRY, *BESIDE):
        if (folder / name).exists():
            (folder / name).chmod(0o444)


def unseal(folder: Path) -> dict[str, Any] | None:
    """The facts of an entry that is as it was written.

    Returns:
        None where there is none, it is of a version without digests, or it is damaged.
    """
    try:
        sealed = json.loads((folder / ENTRY).read_text())
        state = _state(folder)
        if sealed.pop("digest") != _digest_of_all(sealed):
            return None
        whole = _known.get(folder) == state or (
            sealed["files"] == {name: _digest_of(folder / name) for name in BESIDE}
            and sealed["blocks"] == _blocks(folder / PIXELS)
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    if not whole:
        return None
    _known[folder] = state
    return sealed["facts"]


def known() -> dict[Path, tuple[int, ...]]:
    """Entries that this process found whole, and the state of their files then."""
    return dict(_known)


def trust(found: dict[Path, tuple[int, ...]]) -> None:
    """Take another process's word for entries that it found whole, as long as they stay so.

    An entry whose files have another state here is read and compared all the same.
    """
    for folder, state in found.items():
        _known.setdefault(folder, state)


def _blocks(path: Path) -> list[str]:
    """The digest of each block of a file."""
    starts = range(0, path.stat().st_size, BLOCK_BYTES)
    with path.open("rb") as file, ThreadPoolExecutor(cores()) as pool:

        def read(start: int) -> str:
            return digest(os.pread(file.fileno(), BLOCK_BYTES, start))

        return list(pool.map(read, starts))


def _digest_of(path: Path) -> str | None:
    return digest(path.read_bytes()) if path.exists() else None


def _digest_of_all(sealed: dict[str, Any]) -> str:
    return digest(json.dumps(sealed, sort_keys=True).encode())


def _state(folder: Path) -> tuple[int, ...]:
    """Sizes and times of the files of an entry."""

    def seen() -> Iterator[int]:
        for name in (PIXELS, ENTRY, *BESIDE):
            path = folder / name
            if path.exists():
                found = path.stat()
                yield from (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    return tuple(seen())
