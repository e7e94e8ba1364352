"""Reading a whole source into a file of pixels: every image of the same shape, in parallel."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convvae.data.cache.pool import Task, decode_all
from convvae.data.cache.worker import DIGEST_BYTES, Result, digest, read_file
from convvae.data.decode import (
    OtherShapeError,
    UnreadableError,
    Wanted,
    as_shape,
    decode,
    from_array,
    quiet_pillow,
)
from convvae.data.items import Bad, Item, Source, looked_up, numbered
from convvae.data.progress import Count
from convvae.errors import CorruptDataError, ImageSizeError, in_a_line
from convvae.files import write_at

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Decoded:
    """What was found in a source; pixels are in a file, in the order of the source."""

    shape: Shape
    """Channels, height and width of every image."""
    names: list[str]
    digests: list[str]
    good: list[bool]
    """Whether the image could be read."""
    bad: list[tuple[str, str]]
    """Name and reason of those that could not."""
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    parts: Sequence[str | None] | None
    """"train", "test" or None a row; None where the source is not divided."""
    content: str
    """A digest of names, labels, parts and the content of every file."""
    remarks: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Images in the source, good or bad."""
        return len(self.names)


class _ColourFoundError(Exception):
    """A colour image among grey ones: all must be made anew, in colour."""


def ingest(source: Source, wanted: Wanted, out: Path, say: Callable[[str], None]) -> Decoded:
    """Decode every image of a source.

    All get one shape: that of `wanted`, or that of the first image that can be read. Where channels
    are not chosen, images are grey if all of them are, else RGB.

    Args:
        source: The images.
        wanted: What they shall become.
        out: File to write their pixels to, row by row; rows of images that cannot be read are left.
        say: Told what is under way.

    Raises:
        ImageSizeError: images of several sizes, and none is chosen.
        CorruptDataError: no image can be read, or the source is damaged.
    """
    shape = _first_shape(source, wanted)
    try:
        return _Ingestion(source, wanted, shape, out, say).run()
    except _ColourFoundError:
        return _Ingestion(source, wanted, (wanted.kept(3), *shape[1:]), out, say).run()


def contents(source: Source) -> str:
    """The digest of a source's content, as `Decoded` has it, without decoding anything."""
    items: list[Item] = []
    digests: list[str] = []
    for item in source.items():
        digests.append(_digest(item))
        items.append(item._replace(payload=b""))
    return _content(items, digests)


def _content(items: list[Item], digests: list[str]) -> str:
    # Line by line: all of them at once would be a copy of every name.
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for number, (item, content) in enumerate(zip(items, digests, strict=True)):
        line = f"{item.name}\0{item.label}\0{item.part}\0{content}"
        found.update(os.fsencode(f"\n{line}" if number else line))
    return found.hexdigest()


def _digest(item: Item) -> str:
    try:
        match item.payload:
            case str():
                return digest(read_file(item.payload))
            case np.ndarray():
                return digest(item.payload.tobytes())
            case bytes():
                return digest(item.payload)
            case Bad():
                return digest(b"")
    except UnreadableError:
        return digest(b"")


def _first_shape(source: Source, wanted: Wanted) -> Shape:
    """The shape of the first image that can be read.

    Raises:
        CorruptDataError: there is none.
    """
    reasons: list[str] = []
    for item in source.items():
        try:
            with quiet_pillow():
                channels, height, width = _pixels(item, wanted).shape
        except UnreadableError as error:
            reasons.append(in_a_line(f"{item.name}: {error}"))
        else:
            return channels, height, width
    if not reasons:
        raise CorruptDataError(f"{source.title} holds no images")
    raise CorruptDataError(
        f"none of the {len(reasons)} images of {source.title} can be read ({reasons[0]})"
    )


def _pixels(item: Item, wanted: Wanted) -> np.ndarray:
    match item.payload:
        case str():
            return decode(read_file(item.payload), wanted)
        case bytes():
            return decode(item.payload, wanted)
        case np.ndarray():
            return from_array(item.payload, wanted)
        case Bad(reason):
            raise UnreadableError(reason)


class _Ingestion:
    """One pass over a source."""

    def __init__(
        self, source: Source, wanted: Wanted, shape: Shape, out: Path, say: Callable[[str], None]
    ) -> None:
        self.source = source
        self.wanted = wanted
        self.shape = shape
        self.out = out
        self.say = say
        self.items: list[Item] = []
        self.results: dict[int, Result] = {}

    def run(self) -> Decoded:
        began = time.monotonic()
        self.out.write_bytes(b"")
        with Count(self.source.title, self.source.count()) as count:
            for result in decode_all(self._tasks(), self.wanted, self.shape, self.out):
                self._take(result)
                count.advance()
        seconds = time.monotonic() - began
        total = len(self.items)
        self.say(
            f"{self.source.title}: read {total:,} images in {seconds:.1f} s "
            f"({total / max(seconds, 1e-9):,.0f}/s)"
        )
        return self._found()

    def _tasks(self) -> Iterator[Task]:
        """Files for `decode_all`; images that are arrays already are written here."""
        with self.out.open("r+b") as file:
            for row, item in enumerate(self.source.items()):
                # Content is not kept; the path of a file costs nothing.
                kept = item if isinstance(item.payload, str) else item._replace(payload=b"")
                self.items.append(kept)
                match item.payload:
                    case str() | bytes():
                        yield Task(row, item.payload)
                    case Bad(reason):
                        self._take(Result(row, _digest(item), problem=reason))
                    case np.ndarray():
                        self._take(self._write(row, item, file.fileno()))

    def _write(self, row: int, item: Item, file: int) -> Result:
        found = _digest(item)
        try:
            data = as_shape(_pixels(item, self.wanted), self.shape).tobytes()
        except UnreadableError as error:
            return Result(row, found, problem=str(error))
        except OtherShapeError as error:
            return Result(row, found, shape=error.shape)
        write_at(file, data, row * len(data))
        return Result(row, found)

    def _take(self, result: Result) -> None:
        """Note a result.

        Raises:
            ImageSizeError: the image has another size than the first.
        """
        if result.shape is not None:
            channels, height, width = result.shape
            if (height, width) != self.shape[1:]:
                raise ImageSizeError(
                    f"{self.source.title} has images of several sizes: "
                    f"{self.items[result.row].name} is {height}x{width}, others are "
                    f"{self.shape[1]}x{self.shape[2]}; choose one with `image_size`"
                )
            assert channels == self.wanted.kept(3), "grey becomes RGB by itself"
            raise _ColourFoundError
        self.results[result.row] = result

    def _found(self) -> Decoded:
        results = [self.results[row] for row in range(len(self.items))]
        names = [item.name for item in self.items]
        digests = [result.digest for result in results]
        labels, parts = looked_up(
            names,
            [item.label for item in self.items],
            [item.part for item in self.items],
            by_path=self.source.by_path,
        )
        named = numbered(labels)
        # The last images may be missing from the file, if they could not be read.
        os.truncate(self.out, len(results) * int(np.prod(self.shape)))
        return Decoded(
            shape=self.shape,
            names=names,
            digests=digests,
            good=[result.problem is None for result in results],
            bad=[
                (name, result.problem)
                for name, result in zip(names, results, strict=True)
                if result.problem is not None
            ],
            labels=None if named is None else named[0],
            classes=None if named is None else named[1],
            parts=parts,
            content=_content(self.items, digests),
            remarks=self.source.remarks,
        )
