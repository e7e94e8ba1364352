"""Tables that list the paths of images: CSV and Parquet."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from convvae.data.items import PARTS, Item, changed
from convvae.data.own.folders import Files
from convvae.errors import CorruptDataError, UnknownDataError, missing_extra

PATH_COLUMNS = ("path", "file_name")
_KNOWN = (*PATH_COLUMNS, "label", "split")


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
        rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
        super().__init__(
            path.name, [self._entry(number, row) for number, row in enumerate(rows, 1)]
        )
        if not self.found:
            raise CorruptDataError(f"{path} lists no images")

    def _entry(
        self, number: int, row: dict[str, str | int | None]
    ) -> tuple[Item, tuple[int, int, int]]:
        name = next((str(row[key]) for key in PATH_COLUMNS if row.get(key)), None)
        if name is None:
            raise CorruptDataError(f"{self.path}: row {number} has no path")
        part = row.get("split")
        if part not in (None, *PARTS):
            raise CorruptDataError(
                f"{self.path}: row {number} has split {part!r}; write train or test"
            )
        file = self.path.parent / name
        try:
            state = changed(file)
        except OSError as error:
            raise UnknownDataError(
                f"{self.path}: row {number} lists {name}, but {file} cannot be read "
                f"({error.strerror}); paths are relative to the table's folder"
            ) from error
        return Item(
            name, os.fspath(file), row.get("label"), None if part is None else str(part)
        ), state


def _check_columns(path: Path, columns: list[str]) -> None:
    if not set(columns) & set(PATH_COLUMNS):
        raise CorruptDataError(
            f"{path} has the columns {', '.join(columns) or 'none'}; one named "
            f"{' or '.join(PATH_COLUMNS)} is needed, label and split may be there"
        )


def _csv_rows(path: Path) -> list[dict[str, str | int | None]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(path, list(reader.fieldnames or []))
            rows = [{key: row.get(key) or None for key in _KNOWN} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnknownDataError(f"cannot read {path} as CSV: {error}") from error
    labels = [row["label"] for row in rows]
    # Whole numbers in every row are labels as they are; other words are names of classes.
    if all(label is not None and label.lstrip("-").isdecimal() for label in labels):
        return [{**row, "label": int(row["label"] or 0)} for row in rows]
    return [dict(row) for row in rows]


def _parquet_rows(path: Path) -> list[dict[str, str | int | None]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("a Parquet table", "hf") from error
    try:
        columns = pq.read_schema(path).names
        _check_columns(path, columns)
        return pq.read_table(path, columns=[c for c in columns if c in _KNOWN]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UnknownDataError(f"cannot read {path} as Parquet: {error}") from error
