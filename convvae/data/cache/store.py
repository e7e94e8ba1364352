"""Decoded images on disk, memory-mapped.

The second run starts at once, and data may be larger than memory.

An entry is a folder, made whole or not at all:

    pixels         uint8 [N, C, H, W], nothing else
    names.json     what each image is called
    labels.npy     int64 [N], where the source has labels
    digests.npy    uint8 [N, 16], BLAKE2b of each image's file
    bad.txt        files that could not be read, with the reason
    entry.json     the rest, and digests of all that is read

Its name is a digest of the content of the source's files and of what images were made into. Two
indices lead to it: by paths, sizes and times of the files (nothing is read), and by names and sizes
(a copy, or files that were touched: they are read and compared, not decoded).

Rows are in the source's own order, or divided: the test images first where the source says which
they are, else in the order of their digests, so that any share of them is one run of rows.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from convvae.data.cache.check import seal, unseal
from convvae.data.cache.ingest import Decoded, contents, ingest
from convvae.data.cache.pool import cores
from convvae.data.cache.worker import DIGEST_BYTES, digest
from convvae.data.decode import Wanted
from convvae.data.items import Source
from convvae.data.published.download import cache_folder
from convvae.errors import in_a_line
from convvae.files import folder_in_the_making, make_folder, move_folder, write_at, write_text

CACHE_FORMAT = 1
"""Of entries, and of the policy of `decode`: another number makes them anew."""
Order = Literal["listed", "parts", "content"]
_SETTLED = 2.0
"""Seconds after which a change of a file is sure to have changed its time."""
_ADVICE = "free some disk, or name a folder on a larger disk with CONVVAE_CACHE"
_COPY_ROWS = 512
_NO_RESERVE = 0x4000
"""Linux's MAP_NORESERVE, which Python 3.11 does not name."""


@dataclass(frozen=True)
class Entry:
    """Images as they lie in the cache."""

    folder: Path
    facts: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        count, channels, height, width = self.facts["shape"]
        return count, channels, height, width

    @cached_property
    def images(self) -> Tensor:
        """uint8 [N, C, H, W], mapped; what is written to it stays in memory."""
        if not self.shape[0]:
            return torch.zeros(self.shape, dtype=torch.uint8)
        return torch.from_numpy(_mapped(self.folder / "pixels").reshape(self.shape))

    @cached_property
    def names(self) -> list[str]:
        """What each image is called."""
        return json.loads((self.folder / "names.json").read_text())

    @cached_property
    def labels(self) -> Tensor | None:
        """int64 [N], or None."""
        path = self.folder / "labels.npy"
        return torch.from_numpy(np.load(path)) if path.exists() else None

    def below(self, share: float) -> int:
        """How many rows, from the first, have a digest in the lowest share of all digests."""
        heads = np.load(self.folder / "digests.npy")[:, :8]
        numbers = np.ascontiguousarray(heads).view(">u8")[:, 0]
        return int(np.searchsorted(numbers, np.uint64(share * 2**64)))

    @property
    def key(self) -> str:
        """A digest of the content."""
        return self.folder.name


class Names(Sequence[str]):
    """What the images of some rows are called; read when a name is asked for.

    Args:
        entry: Where they lie.
        rows: Which of them.
    """

    def __init__(self, entry: Entry, rows: slice) -> None:
        self.entry = entry
        self.rows = range(rows.start, rows.stop)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self.entry.names[row] for row in self.rows[place]]
        return self.entry.names[self.rows[place]]


def _mapped(path: Path) -> np.ndarray:
    """The bytes of a file, mapped privately: a page takes memory of its own once it is written to.

    Linux refuses such a mapping of more than the memory that there is, unless told not to reserve.
    """
    if sys.platform != "linux":
        return np.memmap(path, np.uint8, "c")
    private = mmap.MAP_PRIVATE | _NO_RESERVE
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return np.frombuffer(view, np.uint8)


def entry_for(
    source: Source, wanted: Wanted, orders: tuple[Order, ...], say: Callable[[str], None]
) -> Entry:
    """The cached images of a source, decoded now if they are not there.

    Args:
        source: The images.
        wanted: What they shall become.
        orders: Orders of rows that will do; the first that is possible is taken.
        say: Told what takes time.

    Raises:
        OutputError: the cache cannot be written.
        ConvvaeError: the source cannot be read, each with its own class.
    """
    root = cache_folder() / "images"
    make_folder(root, _ADVICE)
    began, stamp = time.time(), source.stamp()
    for order in orders:
        if entry := _indexed(root, _index(stamp, wanted, order)):
            return entry
    entry, outline = None, source.outline()
    if any(_indexed(root, _index(outline, wanted, order)) for order in orders):
        say(f"{source.title}: files were touched or copied; comparing their content")
        content = contents(source)
        entries = (_whole(root / _index(content, wanted, order)) for order in orders)
        entry = next((found for found in entries if found), None)
    entry = entry or _make(root, source, wanted, orders, say)
    # A file changed just now may change again without another size or time.
    settled = source.newest() < began - _SETTLED
    for part in (stamp, outline) if settled else (outline,):
        write_text(root / f"index-{_index(part, wanted, entry.facts['order'])}", entry.key)
    return entry


def _index(part: str, wanted: Wanted, order: Order) -> str:
    return digest(json.dumps([CACHE_FORMAT, part, asdict(wanted), order]).encode())


def _indexed(root: Path, index: str) -> Entry | None:
    """The entry that an index leads to."""
    path = root / f"index-{index}"
    return _whole(root / path.read_text()) if path.exists() else None


def _whole(folder: Path) -> Entry | None:
    """The entry in a folder, if it is there and as it was written."""
    facts = unseal(folder)
    return None if facts is None else Entry(folder, facts)


def _make(
    root: Path,
    source: Source,
    wanted: Wanted,
    orders: tuple[Order, ...],
    say: Callable[[str], None],
) -> Entry:
    """Decode a source into a new entry."""
    with folder_in_the_making(root, _ADVICE) as folder:
        found = ingest(source, wanted, folder / "pixels", say)
        # "parts" is the first of several or alone; a source without them takes what comes next.
        order = orders[-1] if found.parts is None else orders[0]
        facts = _finish(folder, found, order)
        target = root / _index(found.content, wanted, order)
        # Another process may have made it, and uses it; a damaged one must go.
        if _whole(target) is None:
            shutil.rmtree(target, ignore_errors=True)
            with suppress(FileExistsError):
                move_folder(folder, target)
    return Entry(target, facts)


def _finish(folder: Path, found: Decoded, order: Order) -> dict[str, Any]:
    """Put rows in their order, write the rest, and return the facts."""
    rows = _ordered(found, order)
    if len(rows) != found.rows or (rows != np.arange(len(rows))).any():
        _rearrange(folder / "pixels", rows, found.shape)
    (folder / "names.json").write_text(json.dumps([found.names[row] for row in rows]))
    digests = bytes.fromhex("".join(found.digests[row] for row in rows))
    _save(folder / "digests.npy", np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES))
    if found.labels is not None:
        _save(folder / "labels.npy", found.labels[rows])
    bad = "".join(in_a_line(f"{name}: {reason}") + "\n" for name, reason in found.bad)
    (folder / "bad.txt").write_text(bad, encoding="utf-8", errors="backslashreplace")
    parts = found.parts if order == "parts" else None
    facts = {
        "shape": [len(rows), *found.shape],
        "order": order,
        "test": None if parts is None else sum(parts[row] == "test" for row in rows),
        "classes": found.classes,
        "total": found.rows,
        "bad": [in_a_line(f"{name} ({reason})") for name, reason in found.bad[:3]],
        "bad_count": len(found.bad),
        "remarks": found.remarks,
    }
    seal(folder, facts)
    return facts


def _save(path: Path, array: np.ndarray) -> None:
    """`np.save`, which does not notice that a disk refuses what it hands over as it closes."""
    content = BytesIO()
    np.save(content, array)
    path.write_bytes(content.getvalue())


def _ordered(found: Decoded, order: Order) -> np.ndarray:
    """The rows that are kept, in their order."""
    rows = [row for row, good in enumerate(found.good) if good]
    parts = found.parts
    if order == "parts" and parts is not None:
        rows = [row for row in rows if parts[row]]
        rows.sort(key=lambda row: (parts[row] != "test", found.digests[row]))
    elif order == "content":
        rows.sort(key=lambda row: found.digests[row])
    return np.array(rows, np.int64)


def _rearrange(path: Path, rows: np.ndarray, shape: tuple[int, int, int]) -> None:
    """Write the rows of a file of pixels in another order."""
    size = math.prod(shape)
    new = path.with_suffix(".new")
    with path.open("rb") as source, new.open("wb") as target, ThreadPoolExecutor(cores()) as pool:

        def copy(start: int) -> None:
            # The kernel copies from the pages of the one file to those of the other.
            part = [view[row * size : (row + 1) * size] for row in rows[start:][:_COPY_ROWS]]
            done = os.pwritev(target.fileno(), part, start * size)
            if done < len(part) * size:
                write_at(target.fileno(), b"".join(part)[done:], start * size + done)

        if source.seek(0, os.SEEK_END):
            view = memoryview(mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ))
            list(pool.map(copy, range(0, len(rows), _COPY_ROWS)))
    new.replace(path)
