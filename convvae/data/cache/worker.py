"""A process that reads image files: `python -m convvae.data.cache.worker`, started by `pool`.

It is told what images shall become, then handed files in chunks; it writes their pixels straight
into a file that it shares with the others, each image in its own row, and answers each chunk with
one line. Nothing is pickled; `pool` says why this is no pool of Python's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from convvae.data.decode import (
    MAX_FILE_BYTES,
    OtherShapeError,
    UnreadableError,
    Wanted,
    decode_as,
    quiet_pillow,
)
from convvae.files import open_regular, write_at

HEADER = struct.Struct("<QBI")
"""Before each file: its row, whether its path or its content follows, how many bytes follow."""
COUNT = struct.Struct("<I")
"""Before each chunk: how many files it has."""
PATH, CONTENT = 0, 1
DIGEST_BYTES = 16


class Result(NamedTuple):
    """What became of one file."""

    row: int
    digest: str
    """BLAKE2b of its content, hexadecimal; of nothing where it cannot be opened."""
    problem: str | None = None
    """Why it cannot be read; None where its pixels are written."""
    shape: tuple[int, int, int] | None = None
    """Channels, height and width, where they are not those of the other images."""


def digest(content: bytes) -> str:
    """BLAKE2b of 16 bytes, hexadecimal."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def read_file(path: str) -> bytes:
    """A file that may hold an image.

    Raises:
        UnreadableError: it cannot be read or is too large.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UnreadableError(f"a file of {size >> 20} MiB is too large for an image")
            return file.read(size)  # memory for so much is taken before the first byte is read
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error


def convert(
    row: int, payload: str | bytes, wanted: Wanted, shape: tuple[int, int, int], out: int
) -> Result:
    """Read one image and write its pixels to its row.

    Args:
        row: Its place.
        payload: Its content, or the path of its file.
        wanted: What it shall become.
        shape: Channels, height and width of every row.
        out: Descriptor of the file of pixels.

    Raises:
        OSError: the pixels cannot be written.
    """
    content = b""
    try:
        content = payload if isinstance(payload, bytes) else read_file(payload)
        pixels = decode_as(content, wanted, shape)
    except UnreadableError as error:
        return Result(row, digest(content), problem=str(error))
    except OtherShapeError as error:
        return Result(row, digest(content), shape=error.shape)
    data = pixels.tobytes()
    write_at(out, data, row * len(data))
    return Result(row, digest(content))


def serve(source: BinaryIO, answers: BinaryIO) -> None:
    """Answer chunks until there are no more, or until pixels cannot be written.

    Then the number of the error is the last answer.
    """
    task: dict[str, Any] = json.loads(source.readline())
    size = task["size"] and (task["size"][0], task["size"][1])
    wanted = Wanted(size, task["channels"], task["crop"], task["alpha"])
    channels, height, width = task["shape"]
    out = os.open(task["out"], os.O_WRONLY)
    shape = (channels, height, width)
    with quiet_pillow():
        for chunk in iter(lambda: list(_chunk(source)), []):
            try:
                answer = [convert(row, payload, wanted, shape, out) for row, payload in chunk]
            except OSError as error:
                answer = error.errno
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()
            if not isinstance(answer, list):
                return


def _chunk(source: BinaryIO) -> Iterator[tuple[int, str | bytes]]:
    """The files of the next chunk; none at the end."""
    head = source.read(COUNT.size)
    for _ in range(COUNT.unpack(head)[0] if head else 0):
        row, kind, length = HEADER.unpack(source.read(HEADER.size))
        payload = source.read(length)
        yield row, os.fsdecode(payload) if kind == PATH else payload


if __name__ == "__main__":
    with open(0, "rb", buffering=1 << 20) as tasks:
        serve(tasks, sys.stdout.buffer)
