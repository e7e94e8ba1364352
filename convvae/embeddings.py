"""Files of embeddings: `.npz`, `.parquet`, or `.npy` of the locations `mu` alone.

They are read with `numpy.load` or any reader of Parquet, and nothing in them is pickled. The same
numbers give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convvae.data import ImageSet
from convvae.encodings import Encodings
from convvae.errors import UsageError, missing_extra
from convvae.files import atomic, make_folder

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

ROW_GROUP = 40
"""Batches of 250 images in a row group of a Parquet file."""

Write = Callable[[Path, ImageSet, int, str, Iterable[Encodings]], None]


def writer(path: Path) -> Write:
    """What writes a file of that name; whatever would prevent it is said now, before the work.

    Raises:
        UsageError: the name ends in something else.
        MissingExtraError: Parquet is asked for and pyarrow is not there.
        OutputError: the folder cannot be made.
    """
    if path.suffix not in WRITERS:
        raise UsageError(f"--out {path} must end in {', '.join(WRITERS)}; choose one of them")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise missing_extra("a Parquet file", "parquet")
    make_folder(path.parent)
    return WRITERS[path.suffix]


def write(
    path: Path,
    source: ImageSet,
    latent_dims: int,
    protocol: Mapping[str, Any],
    parts: Iterable[Encodings],
) -> None:
    """Write the encodings of a set, whole or not at all.

    Arguments:
        path: The file; its ending says the format.
        source: The images, whose names and labels go with the numbers.
        latent_dims: Number of latents D.
        protocol: How the numbers were made; kept inside `.npz` and `.parquet`.
        parts: The encodings, in the order of the images.

    Raises:
        As `writer`, and
        OutputError: the file cannot be written.
    """
    write_to = writer(path)
    with atomic(path) as temporary:
        write_to(temporary, source, latent_dims, json.dumps(protocol), parts)


def _npy(path: Path, source: ImageSet, dims: int, _: str, parts: Iterable[Encodings]) -> None:
    """`mu` alone, float32 [N, D], straight to the disk."""
    shape, done = (len(source), dims), 0
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for part in parts:
        out[done : done + len(part.mu)] = part.mu
        done += len(part.mu)
    out.flush()


def _npz(path: Path, source: ImageSet, _: int, protocol: str, parts: Iterable[Encodings]) -> None:
    """Every number as an array by its name, and `names`, `labels`, `classes` where there are."""
    found = Encodings.cat(list(parts))
    arrays = {name: values.numpy() for name, values in found._asdict().items()}
    if source.names is not None:
        arrays["names"] = np.array(list(source.names), dtype=np.str_)
    if source.labels is not None:
        arrays["labels"] = source.labels.numpy()
    if source.classes is not None:
        arrays["classes"] = np.array(source.classes, dtype=np.str_)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, protocol=np.array(protocol), **arrays)


def _parquet(
    path: Path, source: ImageSet, dims: int, protocol: str, parts: Iterable[Encodings]
) -> None:
    """A row an image, written as the numbers come; `mu` and `logvar` are lists of fixed length."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    vector = pyarrow.list_(pyarrow.float32(), dims)
    fields = [("index", pyarrow.int64())]
    fields += [("name", pyarrow.string())] if source.names is not None else []
    fields += [("label", pyarrow.int64())] if source.labels is not None else []
    fields += [("class", pyarrow.string())] if _has_classes(source) else []
    fields += [("mu", vector), ("logvar", vector)]
    fields += [(name, pyarrow.float64()) for name in ("bound", "kl", "squared_error")]
    schema = pyarrow.schema(fields, metadata={"convvae": protocol})
    done, waiting = 0, list[Encodings]()
    with ParquetWriter(path, schema) as file:
        for part in parts:
            waiting.append(part)
            if len(waiting) == ROW_GROUP:
                done += _write_rows(file, source, done, Encodings.cat(waiting))
                waiting = []
        if waiting:
            _write_rows(file, source, done, Encodings.cat(waiting))


def _write_rows(file: ParquetWriter, source: ImageSet, start: int, found: Encodings) -> int:
    """Write a row group of the images from `start` on, and return its rows."""
    import pyarrow

    count = len(found.mu)
    rows = range(start, start + count)
    columns: dict[str, Any] = {"index": list(rows)}
    if source.names is not None:
        columns["name"] = [source.names[row] for row in rows]
    if source.labels is not None:
        columns["label"] = source.labels[start : start + count].tolist()
    if source.labels is not None and source.classes is not None:
        columns["class"] = [source.classes[label] for label in columns["label"]]
    for name, values in found._asdict().items():
        array = pyarrow.array(values.flatten().numpy())
        wide = values.ndim == 2
        columns[name] = (
            pyarrow.FixedSizeListArray.from_arrays(array, values.shape[1]) if wide else array
        )
    file.write_table(pyarrow.table(columns, schema=file.schema))
    return count


def _has_classes(source: ImageSet) -> bool:
    return source.labels is not None and source.classes is not None


WRITERS: dict[str, Write] = {".npz": _npz, ".npy": _npy, ".parquet": _parquet}
"""Ending of a file's name -> what writes it."""
