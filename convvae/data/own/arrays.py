"""Arrays of images: `.npy`, `.npz`, idx. Rows are read as they are needed, never unpickled.

Images are uint8 (0 to 255), bool, uint16 (the high byte is kept) or floats in [0, 1] (rounded to
the nearest of 256 levels), shaped `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` with 1 to 4
channels; which of the last two is told by where there are so few.
"""

from __future__ import annotations

import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from convvae.data.decode import MAX_PIXELS
from convvae.data.items import Item
from convvae.data.own.archives import check_expansion
from convvae.data.own.npy import Header, read_header
from convvae.data.own.one_file import OneFile
from convvae.data.published.idx import idx_rows, idx_shape, read_idx
from convvae.errors import CorruptDataError, in_a_line
from convvae.files import open_regular

IMAGE_KEYS = ("images", "x")
LABEL_KEYS = ("labels", "y")
MISSING_KEY = "missing"
_CHUNK_BYTES = 1 << 24
_MAX_CHANNELS = 4
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError),
    *(lzma.LZMAError, struct.error, IndexError, OverflowError, MemoryError),
)


class _Arrays(OneFile):
    """One file that holds an array of images."""

    by_path = False

    def __init__(self, path: Path, *, marked: bool = False) -> None:
        super().__init__(path)
        self.rows: int | None = None
        self.marked = marked
        """Whether pixels that are marked for missing are taken: an alpha of 0 then says so."""

    def count(self) -> int | None:
        """Number of images, once the header was read."""
        return self.rows

    def _numbered(
        self,
        shape: tuple[int, ...],
        chunks: Iterator[np.ndarray],
        labels: np.ndarray | None,
        missing: np.ndarray | None = None,
    ) -> Iterator[Item]:
        """Items from chunks of rows.

        Raises:
            CorruptDataError: the shape, the values, the labels or the mask are not those of images.
        """
        where = self.path
        last = channels_last(shape, where)
        self.rows = shape[0]
        if labels is not None and labels.shape != (shape[0],):
            raise CorruptDataError(
                f"{where} has {shape[0]} images but labels of shape {list(labels.shape)}; "
                f"expected [{shape[0]}]"
            )
        wanted = without_channels(shape, last=last)
        if missing is not None and missing.shape != wanted:
            raise CorruptDataError(
                f"{where} has an array {MISSING_KEY} of shape {list(missing.shape)}; images of "
                f"shape {list(shape)} need one of {list(wanted)}"
            )
        row = 0
        for chunk in chunks:
            values = chunk[..., None] if chunk.ndim == 3 else chunk
            values = values if last else values.transpose(0, 2, 3, 1)
            if self.marked:
                here = None if missing is None else missing[row : row + len(values)]
                pixels = marked_bytes(values, here, row, where)
            else:
                pixels = as_bytes(values, row, where)
            for image in pixels:
                label = None if labels is None else int(labels[row])
                yield Item(str(row), np.ascontiguousarray(image), label)
                row += 1


class Npy(_Arrays):
    """A `.npy` file of images."""

    def items(self) -> Iterator[Item]:
        """The rows.

        Raises:
            CorruptDataError: it is damaged, or no array of images.
        """
        where = str(self.path)
        with _Reading(self.path), open_regular(self.path) as file:
            header = _header(file, where)
            _check_promise(header, os.fstat(file.fileno()).st_size, where)
            yield from self._numbered(header.shape, _rows(file, header, where), None)


class Npz(_Arrays):
    """A `.npz` file with `images` (or `x`), and perhaps `labels` (or `y`) and `missing`."""

    def items(self) -> Iterator[Item]:
        """The rows.

        Raises:
            CorruptDataError: it is damaged, or holds no images, or labels of another length.
        """
        with ExitStack() as stack:
            stack.enter_context(_Reading(self.path))
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            size = sum(member.file_size for member in archive.infolist())
            check_expansion(self.path, self.state[0], 0, size)
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            images = next((key for key in IMAGE_KEYS if key in names), None)
            if images is None:
                held = in_a_line(", ".join(names) or "nothing")
                raise CorruptDataError(
                    f"{self.path} holds {held}; expected an array named "
                    f"{' or '.join(IMAGE_KEYS)}, and perhaps {' or '.join(LABEL_KEYS)}"
                )
            key = next((key for key in LABEL_KEYS if key in names), None)
            labels = None if key is None else self._labels(archive, key)
            missing = self._missing(archive) if MISSING_KEY in names else None
            where = f"{images} in {self.path}"
            file = stack.enter_context(_opened(archive, images, self.path))
            header = _header(file, where)
            _check_promise(header, archive.getinfo(f"{images}.npy").file_size, where)
            yield from self._numbered(header.shape, _rows(file, header, where), labels, missing)

    def _missing(self, archive: zipfile.ZipFile) -> np.ndarray | None:
        """Where a pixel is missing, bool [N, H, W]; None, and a remark, without marks."""
        where = f"{MISSING_KEY} in {self.path}"
        if not self.marked:
            kept = f"of {self.path.name} left aside: `mask='marked'` takes it"
            self.remarks = (f"the array {MISSING_KEY} {kept}",)
            return None
        with _opened(archive, MISSING_KEY, self.path) as file:
            header = _header(file, where)
            if header.dtype.kind not in "biuf":
                raise CorruptDataError(f"{where} has dtype {header.dtype}; expected bool")
            _check_promise(header, archive.getinfo(f"{MISSING_KEY}.npy").file_size, where)
            chunks = [chunk != 0 for chunk in _rows(file, header, where)]
        return np.concatenate(chunks) if chunks else np.zeros(header.shape, bool)

    def _labels(self, archive: zipfile.ZipFile, key: str) -> np.ndarray:
        where = f"{key} in {self.path}"
        with _opened(archive, key, self.path) as file:
            header = _header(file, where)
            dtype = header.dtype
            if dtype.kind not in "iu" or len(header.shape) != 1:
                raise CorruptDataError(
                    f"{where} has dtype {dtype} and shape {list(header.shape)}; expected whole "
                    "numbers of shape [N]"
                )
            _check_promise(header, archive.getinfo(f"{key}.npy").file_size, where)
            chunks = list(_rows(file, header, where))
        labels = np.concatenate(chunks) if chunks else np.zeros(0, dtype)
        if len(labels) and int(labels.max()) > np.iinfo(np.int64).max:
            raise CorruptDataError(f"{where} has the label {labels.max()}, over 2^63 - 1")
        return labels


class Idx(_Arrays):
    """An idx file of images, plain or gzip; labels from the file that MNIST's names put beside."""

    def items(self) -> Iterator[Item]:
        """The rows.

        Raises:
            CorruptDataError: it or its labels are damaged, or not of the right shape.
        """
        shape = idx_shape(self.path)
        beside = self.path.with_name(
            self.path.name.replace("images", "labels").replace("idx3", "idx1")
        )
        labels = read_idx(beside) if beside != self.path and beside.is_file() else None
        if labels is not None:
            self.remarks = (f"labels from {beside.name}",)
        rows = max(1, _CHUNK_BYTES // max(1, math.prod(shape[1:])))
        yield from self._numbered(shape, idx_rows(self.path, rows), labels)


class _Reading:
    """Turn what numpy and zipfile raise for a damaged file into one line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _BROKEN):
            reason = in_a_line(error)
            raise CorruptDataError(f"{self.path} is damaged or no array ({reason})") from error


def _header(file: IO[bytes], where: str) -> Header:
    """Shape and dtype of an array in the npy format.

    Raises:
        CorruptDataError: it holds Python objects, which only unpickling could read, or is in
            Fortran's order.
        ValueError: it is not in the npy format.
    """
    header = read_header(file)
    if header.dtype.hasobject:
        raise CorruptDataError(
            f"{where} holds pickled Python objects, which are refused: unpickling runs whatever "
            "is in the file; save a plain array of uint8"
        )
    if header.fortran and len(header.shape) > 1:
        raise CorruptDataError(
            f"{where} is in Fortran's order; save numpy.ascontiguousarray of it instead"
        )
    return header


def _opened(archive: zipfile.ZipFile, key: str, path: Path) -> IO[bytes]:
    """An array of an archive, which may be encrypted, or packed in a way that is not known.

    Raises:
        CorruptDataError: it is.
    """
    try:
        return archive.open(f"{key}.npy")
    except (KeyError, RuntimeError) as error:
        reason = in_a_line(error)
        raise CorruptDataError(f"{path}: {key} cannot be read ({reason}); save it anew") from error


def _check_promise(header: Header, size: int, where: str) -> None:
    """Check that a file, or a member of an archive, is as large as its header says.

    Raises:
        CorruptDataError: it is smaller.
    """
    if header.size > size:
        raise CorruptDataError(
            f"{where} is truncated: its header promises {list(header.shape)} of {header.dtype}, "
            f"{header.size:,} bytes, and there are {size:,}; fetch it again"
        )


def _rows(file: IO[bytes], header: Header, where: str) -> Iterator[np.ndarray]:
    """The rows of an array in a stream, a few MiB at a time."""
    shape, dtype = header.shape, header.dtype
    size = math.prod(shape[1:]) * dtype.itemsize
    step = max(1, _CHUNK_BYTES // max(1, size))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        data = file.read(count * size)
        if len(data) != count * size:
            raise CorruptDataError(
                f"{where} is truncated: its header promises {list(shape)} of {dtype}, row "
                f"{start + len(data) // max(1, size)} is not whole"
            )
        yield np.frombuffer(data, dtype).reshape(count, *shape[1:])


def channels_last(shape: tuple[int, ...], where: Path | str) -> bool:
    """Whether the channels come last.

    Raises:
        CorruptDataError: the shape is not that of images, or both readings are possible.
    """
    if math.prod(shape[1:]) > MAX_PIXELS * _MAX_CHANNELS:
        raise CorruptDataError(
            f"{where} has shape {list(shape)}: an image of it would have more than "
            f"{MAX_PIXELS:,} pixels"
        )
    if len(shape) == 3 and min(shape) > 0:
        return True
    if len(shape) == 4 and min(shape) > 0:
        last, first = shape[3] <= _MAX_CHANNELS, shape[1] <= _MAX_CHANNELS
        if last and first:
            raise CorruptDataError(
                f"{where} has shape {list(shape)}: both axis 1 and axis 3 could be the channels; "
                "give images of more than 4 pixels a side"
            )
        if last or first:
            return last
    raise CorruptDataError(
        f"{where} has shape {list(shape)}; expected [N, H, W], [N, H, W, C] or [N, C, H, W] with "
        "1 to 4 channels"
    )


def without_channels(shape: tuple[int, ...], *, last: bool) -> tuple[int, ...]:
    """N, H, W of images of that shape.

    Args:
        shape: Of the images.
        last: As `channels_last` says.
    """
    return shape[:3] if last else (shape[0], *shape[2:])


def marked_bytes(
    values: np.ndarray, missing: np.ndarray | None, row: int, where: Path | str
) -> np.ndarray:
    """Pixel values as uint8 with an alpha behind them: 0 where a pixel is missing, 255 elsewhere.

    A pixel is missing where the mask says so, or where one of its channels is NaN; its values
    become 0.

    Args:
        values: Shape `[n, H, W, C]`.
        missing: The mask, bool `[n, H, W]`; None where there is none.
        row: The place of the first image.
        where: What messages call them.

    Returns:
        uint8 `[n, H, W, C + 1]`.

    Raises:
        CorruptDataError: the dtype or the values are not those of pixels.
    """
    gone = np.zeros(values.shape[:3], bool) if missing is None else missing
    if values.dtype.kind == "f":
        gone = gone | np.isnan(values).any(-1)
    there = ~gone[..., None]
    pixels = as_bytes(np.where(there, values, values.dtype.type(0)), row, where)
    return np.concatenate([pixels, there * np.uint8(255)], -1)


def as_bytes(values: np.ndarray, row: int, where: Path | str) -> np.ndarray:
    """Pixel values as uint8.

    Raises:
        CorruptDataError: the dtype or the values are not those of pixels.
    """
    dtype = values.dtype
    if dtype == np.uint8:
        return values
    if dtype == np.bool_:
        return values * np.uint8(255)
    if dtype.kind == "u" and dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    if dtype.kind != "f":
        raise CorruptDataError(
            f"{where} has dtype {dtype}; expected uint8, uint16, bool, or floats in [0, 1]"
        )
    axes = tuple(range(1, values.ndim))
    finite = np.isfinite(values).all(axes)
    if not finite.all():
        found = row + int(np.argmin(finite))
        raise CorruptDataError(
            f"{where}: image {found} holds NaN or infinity; training, evaluation and imputation "
            "take NaN for a missing pixel with `mask='marked'`"
        )
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise CorruptDataError(
            f"{where} holds floats from {low:g} to {high:g}; expected [0, 1]: scale them first"
        )
    return np.rint(values.astype(np.float32) * 255).astype(np.uint8)
