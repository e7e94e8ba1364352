"""Zip and tar archives of images, read from where they are.

Nothing is unpacked to the disk, so no member can land outside of a folder; members whose paths
point outside are refused all the same, since others use names as paths. What an archive may expand
to is bounded.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from convvae.data.decode import MAX_FILE_BYTES
from convvae.data.items import Bad, Item, is_image_name
from convvae.data.own.one_file import OneFile
from convvae.errors import CorruptDataError, UnknownDataError, in_a_line
from convvae.files import open_regular

MAX_RATIO = 200
"""An archive may expand to so many times its own size..."""
MAX_FREE = 1 << 30
"""...or to this many bytes, if that is more."""
MAX_MEMBERS = 20_000_000
_PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"]\0\0": lzma.LZMAFile,
}
"""How the content of a compressed archive is read, by how the file begins."""
_END_BYTES = 1 << 20
"""Read at once of what follows the mark of an archive's end."""
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError),
    *(ValueError, OverflowError, RecursionError, NotImplementedError, RuntimeError),
    *(struct.error, LookupError, AttributeError, TypeError, MemoryError),
)
"""What zipfile and tarfile raise for a file with bytes changed or missing; they promise no less.

RuntimeError is of an encrypted member, RecursionError of a thousand headers in one another.
"""


def check_expansion(
    path: Path, packed: int, members: int, size: int, free: int | None = None
) -> None:
    """Refuse an archive that expands without bound.

    Args:
        path: The archive.
        packed: Its size in bytes.
        members: How many files it holds, as far as is known.
        size: How many bytes they are, as far as is known.
        free: Bytes that any may have; else `MAX_FREE`.

    Raises:
        CorruptDataError: it is more than `MAX_MEMBERS`, or more bytes than `free` and
            `MAX_RATIO` times its size.
    """
    if members > MAX_MEMBERS or size > max(MAX_FREE if free is None else free, MAX_RATIO * packed):
        raise CorruptDataError(
            f"{path} of {packed:,} bytes expands to {size:,} bytes or more in {members:,} files: "
            "refused as a bomb; unpack it yourself if you trust it"
        )


class _Archive(OneFile):
    """One file that holds many."""

    by_path = True

    def count(self) -> int | None:
        """Unknown before it is read."""
        return None

    def check(self, members: int, size: int) -> None:
        """Refuse an archive that expands without bound, as `check_expansion`."""
        check_expansion(self.path, self.state[0], members, size)

    def _broken(self, error: Exception) -> CorruptDataError:
        return CorruptDataError(f"{self.path} is damaged ({in_a_line(error)}); fetch it again")


class Zip(_Archive):
    """A zip archive: images in the order of their paths."""

    def items(self) -> Iterator[Item]:
        """The images, each read when its turn comes.

        Raises:
            CorruptDataError: the archive is damaged or expands without bound.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
                self.check(len(members), sum(member.file_size for member in members))
                files = sorted((m for m in members if not m.is_dir()), key=lambda m: m.filename)
                images = [m for m in files if is_image_name(m.filename)]
                self.remarks = passed_over(len(files) - len(images))
                for member in images:
                    yield Item(member.filename, _member(archive, member))
        except _BROKEN as error:
            raise self._broken(error) from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | Bad:
    if bad := _refused(member.filename, member.file_size):
        return bad
    if member.flag_bits & 1:
        return Bad("encrypted")
    try:
        with archive.open(member) as file:
            # One byte more than declared is never asked for: zipfile stops there and checks.
            return file.read(member.file_size)
    except _BROKEN as error:
        return Bad(f"damaged in the archive: {in_a_line(error)}")


class Tar(_Archive):
    """A tar archive, plain or compressed: images in the order in which they were packed."""

    others = 0
    """Files of it that were passed over."""

    @contextmanager
    def opened(self) -> Iterator[tuple[tarfile.TarFile, _Bounded]]:
        """The archive, and the stream of its content, told apart by how it begins."""
        with open_regular(self.path) as raw:
            start = raw.read(6)
            raw.seek(0)
            openers = (opener for magic, opener in _PACKED.items() if start.startswith(magic))
            content = next(openers, lambda file: file)(raw)
            # The first header is read at once: the bound must be there before.
            bounded = _Bounded(self, content)
            with tarfile.TarFile(fileobj=cast("IO[bytes]", bounded)) as archive:
                yield archive, bounded

    def items(self) -> Iterator[Item]:
        """The images, in one pass.

        Raises:
            CorruptDataError: the archive is damaged or expands without bound.
        """
        return (Item(name, content) for name, content in self.members(is_image_name))

    def members(self, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | Bad]]:
        """Name and content of the files whose names are wanted, in one pass; others are skipped.

        Raises:
            CorruptDataError: the archive is damaged or expands without bound.
        """
        self.others = 0
        try:
            with self.opened() as (archive, bounded):
                for number, member in enumerate(archive, 1):
                    self.check(number, 0)
                    name = member.name.removeprefix("./")
                    if member.isreg() and is_wanted(name):
                        yield name, _tar_member(archive, member)
                    else:
                        self.others += not member.isdir()
                    # tarfile keeps every member that it has seen.
                    archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                _check_end(bounded, archive.offset)
        except _BROKEN as error:
            raise self._broken(error) from error
        self.remarks = passed_over(self.others)


class _Bounded:
    """The stream of an archive, which refuses to be read further than an archive may expand."""

    def __init__(self, owner: _Archive, content: IO[bytes]) -> None:
        self.file = content
        self.name = str(owner.path)
        self.mode = "rb"
        self.check = owner.check
        self.tell = content.tell

    def read(self, size: int = -1) -> bytes:
        self.check(0, self.file.tell() + max(size, 0))
        if size > MAX_FILE_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        self.check(0, place)
        return self.file.seek(place, whence)


def _check_end(file: _Bounded, place: int) -> None:
    """Check that an archive ends where the last header was found: with empty blocks alone.

    tarfile takes the first header that makes no sense, and the end of the file, for the end of the
    archive: one that is damaged or cut between two members would be read short without a word.

    Raises:
        tarfile.ReadError: something else is there, or nothing.
    """
    file.seek(place)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends at byte {place:,} without the mark of its end")
    while block:
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"no header of a member at byte {place:,}")
        block = file.read(_END_BYTES)


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Bad:
    if bad := _refused(member.name, member.size):
        return bad
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def _refused(name: str, size: int) -> Bad | None:
    """Why a member is not read at all."""
    if (
        name.startswith(("/", "\\"))
        or ".." in name.replace("\\", "/").split("/")
        or ":" in name[:2]
    ):
        return Bad("its path points outside of the archive")
    if size > MAX_FILE_BYTES:
        return Bad(f"{size >> 20} MiB are too much for an image")
    return None


def passed_over(count: int) -> tuple[str, ...]:
    """What to remark of so many files that are no images."""
    return (f"{count} files that are no images were passed over",) if count else ()


def open_archive(path: Path) -> Zip | Tar:
    """A zip or tar archive, told apart by content.

    Raises:
        UnknownDataError: it is neither, or cannot be read.
    """
    try:
        if zipfile.is_zipfile(path):
            return Zip(path)
        found = Tar(path)
        with suppress(tarfile.TarError), found.opened():
            return found
    except _BROKEN as error:
        raise UnknownDataError(f"cannot read {path} as an archive ({in_a_line(error)})") from error
    raise UnknownDataError(f"{path} is neither a zip nor a tar archive, or is damaged")
