"""Folders of images, and tables that list the paths of images."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from convvae.data.decode import SUFFIXES
from convvae.data.items import PARTS, Item, changed, has_image_suffix, is_hidden
from convvae.data.worker import digest
from convvae.errors import CorruptDataError, UnknownDataError, missing_extra

PATH_COLUMNS = ("path", "file_name")
_KNOWN = (*PATH_COLUMNS, "label", "split")


class _Files:
    """Image files by their paths."""

    by_path = True

    def __init__(self, title: str, found: list[tuple[Item, tuple[int, int, int]]]) -> None:
        self.title = title
        self.found = found
        self.remarks: tuple[str, ...] = ()

    def stamp(self) -> str:
        """Paths, sizes and times of every file."""
        lines = [f"{item.payload}\0{item.label}\0{item.part}\0{s}" for item, s in self.found]
        return digest(os.fsencode("\n".join([type(self).__name__, *lines])))

    def outline(self) -> str:
        """Names and sizes of every file."""
        lines = [f"{item.name}\0{item.label}\0{item.part}\0{s[0]}" for item, s in self.found]
        return digest(os.fsencode("\n".join([type(self).__name__, *lines])))

    def newest(self) -> float:
        """When the last file was changed."""
        return max(changed_ns for _, (_, _, changed_ns) in self.found) / 1e9

    def count(self) -> int:
        """Number of files."""
        return len(self.found)

    def items(self) -> Iterator[Item]:
        """The files in the order of their names."""
        return (item for item, _ in self.found)


class Folder(_Files):
    """Every image below a folder, in the order of their paths.

    Links to folders are not followed; hidden files and folders are passed over.

    Raises:
        UnknownDataError: There is no image in it, or it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        found: list[tuple[Item, tuple[int, int, int]]] = []
        others: list[str] = []
        for name, path, state in sorted(_walk(os.fspath(root), "")):
            if has_image_suffix(name):
                found.append((Item(name, path), state))
            else:
                others.append(name)
        super().__init__(root.name or str(root), found)
        if not found:
            holds = (
                f"it holds {len(others)} other files, such as {others[0]}" if others else "empty"
            )
            raise UnknownDataError(
                f"no images in the folder {root} ({holds}); images are files ending in "
                f"{', '.join(sorted(SUFFIXES))}"
            )
        if others:
            self.remarks = (f"{len(others)} files that are no images were passed over",)


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    """Every regular file below a folder: its path from the root, its path, its state."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")
                elif entry.is_file():
                    seen = entry.stat()
                    state = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
                    yield prefix + entry.name, entry.path, state
    except OSError as error:
        raise UnknownDataError(f"cannot read the folder {folder}: {error.strerror}") from error


class Table(_Files):
    """A CSV or Parquet file with a column `path` (or `file_name`), perhaps `label` and `split`.

    Paths are relative to the folder of the table.

    Raises:
        UnknownDataError: It cannot be read, or a file that it lists is not there.
        CorruptDataError: It has no column of paths, no rows, or an unknown split.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
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
