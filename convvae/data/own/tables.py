"""Tables that list the paths of images: CSV and Parquet."""

from __future__ import annotations

import csv
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

from convvae.config import UNLABELLED
from convvae.data.items import PARTS, Item, changed
from convvae.data.own.archives import MAX_MEMBERS, check_expansion
from convvae.data.own.folders import Files
from convvae.errors import CorruptDataError, UnknownDataError, in_a_line, missing_extra
from convvae.files import open_regular

PATH_COLUMNS = ("path", "file_name")
KNOWN = (*PATH_COLUMNS, "label", "split")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
"""A label that is a number; a longer one would not fit 64 bits, and is a name."""
_LONGEST_LINE = 1 << 20
_ROWS = 4096
_FREE = 1 << 26
"""Bytes that any Parquet table may expand to: half a million paths."""


class Table(Files):
    """A CSV or Parquet file with a column `path` (or `file_name`), perhaps `label` and `split`.

    Paths are relative to the folder of the table.

    Raises:
        UnknownDataError: it cannot be read, or a file that it lists is not there.
        CorruptDataError: it has no column of paths, no rows, or an unknown split.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """

    by_path = False

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = rows_of(path, KNOWN)
        found = [self._entry(number, row) for number, row in enumerate(rows, 1)]
        if not found:
            raise CorruptDataError(f"{path} lists no images")
        found = _with_unlabelled(found)
        super().__init__(path.name, found if _is_packed(path) else _with_numbers(found))

    def _entry(self, number: int, row: Mapping[str, Any]) -> tuple[Item, tuple[int, int, int]]:
        name = path_of(row)
        if name is None:
            raise CorruptDataError(f"{self.path}: row {number} has no path")
        if number > MAX_MEMBERS:
            raise CorruptDataError(f"{self.path} lists more than {MAX_MEMBERS:,} images")
        part = row.get("split")
        if part not in (None, *PARTS):
            raise CorruptDataError(
                f"{self.path}: row {number} has split {in_a_line(repr(part))}; write train or test"
            )
        file = self.path.parent / name
        try:
            state = changed(file)
            if not stat.S_ISREG(file.stat().st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise UnknownDataError(
                f"{self.path}: row {number} lists {in_a_line(repr(name))}, which cannot be read "
                f"({reason}); paths are relative to the table's folder, {self.path.parent}"
            ) from error
        label = row.get("label")
        if isinstance(label, int) and abs(label) >= 2**63:
            raise CorruptDataError(f"{self.path}: row {number} has the label {label}, over 2^63")
        label = label if label is None or isinstance(label, int) else str(label)
        return Item(name, os.fspath(file), label, part), state


def path_of(row: Mapping[str, Any]) -> str | None:
    """The path that a row lists, by which its image is called."""
    return next((str(row[key]) for key in PATH_COLUMNS if row.get(key)), None)


def rows_of(path: Path, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """What some columns of a table hold, row by row; a column that is not there holds None.

    Args:
        path: The CSV or Parquet file.
        wanted: Names of columns.

    Raises:
        UnknownDataError: it cannot be read.
        CorruptDataError: it has no column of paths.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    return (_parquet_rows if _is_packed(path) else _csv_rows)(path, wanted)


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        As `rows_of`.
    """
    if _is_packed(path):
        with _parquet(path) as (_, columns):
            return columns
    with _csv(path) as reader:
        return list(reader.fieldnames or [])


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _check_columns(path: Path, columns: list[str]) -> None:
    if not set(columns) & set(PATH_COLUMNS):
        raise CorruptDataError(
            f"{path} has the columns {in_a_line(', '.join(columns) or 'none')}; one named "
            f"{' or '.join(PATH_COLUMNS)} is needed, label and split may be there"
        )


def _with_unlabelled(
    found: list[tuple[Item, tuple[int, int, int]]],
) -> list[tuple[Item, tuple[int, int, int]]]:
    """The same, with the label `UNLABELLED` where there is nothing, but in other rows something."""
    lacks = [item.label is None for item, _ in found]
    if all(lacks) or not any(lacks):
        return found
    return [
        (item._replace(label=UNLABELLED) if item.label is None else item, state)
        for item, state in found
    ]


def _with_numbers(
    found: list[tuple[Item, tuple[int, int, int]]],
) -> list[tuple[Item, tuple[int, int, int]]]:
    """The same, labels as numbers where whole numbers stand in every row; else they are names."""
    words = [item.label for item, _ in found]
    if not all(isinstance(word, str) and _WHOLE.fullmatch(word) for word in words):
        return found
    return [(item._replace(label=int(item.label or 0)), state) for item, state in found]


def _csv_rows(path: Path, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a CSV file, with nothing for what is left empty."""
    with _csv(path) as reader:
        for row in reader:
            yield {key: row.get(key) or None for key in wanted}


@contextmanager
def _csv(path: Path) -> Iterator[csv.DictReader[str]]:
    """A CSV file that lists images; what cannot be read inside is said."""
    try:
        with TextIOWrapper(open_regular(path), "utf-8-sig", newline="") as file:
            reader = csv.DictReader(_lines(file))
            _check_columns(path, list(reader.fieldnames or []))
            yield reader
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnknownDataError(f"cannot read {path} as CSV: {in_a_line(error)}") from error


def _lines(file: TextIOWrapper) -> Iterator[str]:
    """The lines of a file.

    Raises:
        csv.Error: one is longer than a row of a table is.
    """
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise csv.Error(f"a line of {_LONGEST_LINE:,} characters or more")
        yield line


def _parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file, some thousand at a time.

    A value that is repeated stays one value: a small file may repeat a long one a million times.
    """
    with _parquet(path) as (raw, columns):
        import pyarrow.parquet as pq

        known = [name for name in columns if name in wanted]
        check_parquet(path)
        file = pq.ParquetFile(raw, read_dictionary=known)
        for batch in file.iter_batches(_ROWS, columns=known):
            if batch.nbytes > _LONGEST_LINE * 64:
                raise CorruptDataError(f"{path} has values that are no paths: they are too long")
            # The values of a dictionary are made words once, not once a row.
            for row in zip(*map(_values, batch.columns), strict=True):
                yield dict(zip(known, row, strict=True))


@contextmanager
def _parquet(path: Path) -> Iterator[tuple[BufferedReader, list[str]]]:
    """A Parquet file that lists images, and its columns; what cannot be read inside is said."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("a Parquet table", "hf") from error
    try:
        with open_regular(path) as raw:
            columns = pq.ParquetFile(raw).schema_arrow.names
            _check_columns(path, columns)
            yield raw, columns
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UnknownDataError(f"cannot read {path} as Parquet: {in_a_line(error)}") from error


def _values(column: Any) -> Iterable[Any]:  # noqa: ANN401
    """What a column of pyarrow holds.

    Raises:
        pyarrow.ArrowInvalid: a place in its dictionary is none.
    """
    if not hasattr(column, "dictionary"):
        return column.to_pylist()
    column.validate(full=True)
    words = column.dictionary.to_pylist()
    return (None if place is None else words[place] for place in column.indices.to_pylist())


def check_parquet(path: Path) -> None:
    """Refuse a Parquet file that expands without bound, by what it says of itself.

    Raises:
        CorruptDataError: it does.
        UnknownDataError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(path) as raw:
            found = pq.read_metadata(raw)
    except (OSError, pa.ArrowException) as error:
        raise UnknownDataError(f"cannot read {path} as Parquet: {in_a_line(error)}") from error
    groups = (found.row_group(number) for number in range(found.num_row_groups))
    size = sum(max(group.total_byte_size, 0) for group in groups)
    check_expansion(path, path.stat().st_size, max(found.num_rows, 0), size, _FREE)
