"""The idx file format of MNIST (LeCun, Cortes and Burges, 1998).

Two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, then
the values in row-major order.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from typing import TYPE_CHECKING

import numpy as np

from convvae.errors import CorruptDataError, UnknownDataError
from convvae.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path


_UINT8 = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_BROKEN_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
_LONGEST_HEADER = 4 + 4 * 255
MAX_CONTENT = 1 << 29
"""A file that is read at once may hold so many bytes, and a gzip stream expand to them..."""
MAX_GZIP_RATIO = 200
"""...or one that is read in rows to so many times its own size, if that is more."""
_PART = 1 << 22
"""Of a stream at a time: memory is taken for what is asked for, not for what is there."""


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, plain or gzip-compressed (told apart by content).

    Args:
        path: The file; its name does not matter.

    Returns:
        uint8, of the dimensions in the header: `[N, H, W]` for images, `[N]` for labels.

    Raises:
        UnknownDataError: the file is missing or cannot be read.
        CorruptDataError: it is not idx, does not hold unsigned bytes, is truncated, has bytes after
            its end, or its gzip stream is broken.
    """
    return parse_idx(decompress(read_bytes(path), str(path)), str(path)).copy()


def idx_shape(path: Path) -> tuple[int, ...]:
    """The dimensions in the header of an idx file, without reading the rest.

    Raises:
        As `read_idx`, as far as the header shows it.
    """
    try:
        with opened(path) as file:
            shape = _shape(file.read(_LONGEST_HEADER), str(path))
            there = path.stat().st_size
    except (OSError, CorruptDataError, *_BROKEN_GZIP) as error:
        raise _trouble(path) from error
    if math.prod(shape) > max(MAX_CONTENT, MAX_GZIP_RATIO * there):
        raise CorruptDataError(
            f"{path} of {there:,} bytes promises {math.prod(shape):,}: refused as a bomb; unpack "
            "it yourself if you trust it"
        )
    return shape


def idx_rows(path: Path, rows: int, first: int = 0) -> Iterator[np.ndarray]:
    """The content of an idx file, so many rows at a time: memory does not grow with the file.

    Args:
        path: The file, plain or gzip-compressed.
        rows: Of an array, uint8 `[rows, ...]`; the last has what is left.
        first: The row to begin with.

    Raises:
        As `read_idx`, as soon as it is met: what ends too late is said after the last row.
    """
    count, *rest = idx_shape(path)
    size = math.prod(rest)
    try:
        with opened(path) as file:
            file.seek(4 + 4 * (1 + len(rest)) + first * size)
            for start in range(first, count, rows):
                these = min(rows, count - start)
                data = bytearray(file.read(these * size))
                if len(data) != these * size:
                    raise EOFError
                yield np.frombuffer(data, np.uint8).reshape(these, *rest)
            if file.read(1):
                raise EOFError
    except (OSError, *_BROKEN_GZIP) as error:
        raise _trouble(path) from error


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The content of a file, decompressed as it is read if it is a gzip stream."""
    with open_regular(path) as raw:
        packed = is_gzip(raw.read(len(_GZIP_MAGIC)))
        raw.seek(0)
        if not packed:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as file:
            yield BufferedReader(file)


def _trouble(path: Path) -> UnknownDataError | CorruptDataError:
    """What `read_idx` says of a file that could not be read in rows."""
    try:
        read_idx(path)
    except (UnknownDataError, CorruptDataError) as error:
        return error
    return CorruptDataError(f"{path} was changed while it was read; try again")


def read_bytes(path: Path) -> bytes:
    """The file as it is on disk.

    Raises:
        UnknownDataError: it is missing or cannot be read.
        CorruptDataError: it is larger than any published file.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_CONTENT:
                raise CorruptDataError(f"{path} has {size:,} bytes; is it that file?")
            return file.read(size)
    except OSError as error:
        raise UnknownDataError(
            f"cannot read {path} ({error.strerror}); check that the file exists and may be read"
        ) from error


def is_gzip(data: bytes) -> bool:
    """Whether `data` begins like a gzip stream."""
    return data.startswith(_GZIP_MAGIC)


def decompress(data: bytes, origin: str) -> bytes:
    """The content of a gzip stream; anything else is returned as it is.

    Raises:
        CorruptDataError: the stream is truncated or damaged, or expands without bound; `origin`
            says whose it was.
    """
    if not is_gzip(data):
        return data
    try:
        with gzip.GzipFile(fileobj=BytesIO(data)) as file:
            content = bytearray()
            while len(content) <= MAX_CONTENT and (part := file.read(_PART)):
                content += part
    except _BROKEN_GZIP as error:
        raise CorruptDataError(
            f"{origin} is a broken gzip file of {len(data)} bytes ({error}); fetch it again"
        ) from error
    if len(content) > MAX_CONTENT:
        raise CorruptDataError(
            f"{origin} of {len(data):,} bytes expands to more than {MAX_CONTENT:,}: refused as a "
            "bomb; unpack it yourself if you trust it"
        )
    return bytes(content)


def parse_idx(content: bytes, origin: str) -> np.ndarray:
    """View `content` as the uint8 array that its header describes (read-only, nothing copied).

    Raises:
        CorruptDataError: as `read_idx`; `origin` says whose content it was.
    """
    shape = _shape(content, origin)
    start = 4 + 4 * len(shape)
    expected = start + math.prod(shape)
    if len(content) != expected:
        what = "is truncated" if len(content) < expected else "has bytes after its end"
        raise CorruptDataError(
            f"{origin} {what}: its header promises {expected} bytes, found {len(content)}; "
            "fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _shape(content: bytes, origin: str) -> tuple[int, ...]:
    """The dimensions in the header, after checking the magic number and the type code."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise CorruptDataError(
            f"{origin} is not an idx file: expected a magic number 00 00 08 and a number of "
            f"dimensions, found {content[:4].hex(' ') or 'nothing'} in {len(content)} bytes"
        )
    if content[2] != _UINT8:
        raise CorruptDataError(
            f"{origin} holds idx values of type {content[2]:#04x}; only unsigned bytes "
            f"({_UINT8:#04x}) are images, convert it first"
        )
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise CorruptDataError(
            f"{origin} is truncated: expected a header of {header} bytes, found {len(content)}; "
            "fetch it again"
        )
    return struct.unpack(f">{dimensions}I", content[4:header])
