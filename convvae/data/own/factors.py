"""Columns of the table that lists one's own images: what is known of them, and their factors."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convvae.data.images import ImageSet
from convvae.data.own.tables import KNOWN, columns_of, path_of, rows_of
from convvae.errors import CorruptDataError, UsageError, did_you_mean, in_a_line

MOST_NUMBERS = 20
"""Different numbers of a column that are values of a factor as they are; more are put in groups."""
RANK_GROUPS = 10
"""Groups that such numbers are put in."""
MISSING = frozenset({"", "na", "n/a", "nan", "null"})
"""Words that stand for no value, in small letters."""


def of_table(table: Path, wanted: Sequence[str], images: ImageSet) -> ImageSet:
    """Images with factors from the columns of the table that lists them, said on stderr.

    A column of numbers keeps its different values where there are at most `MOST_NUMBERS`; more are
    put in groups, see `grouped`. Any other column is one of categories.

    Args:
        table: The CSV or Parquet file.
        wanted: Its columns; none means all but those of paths, labels and parts.
        images: Some of the images that it lists.

    Returns:
        The images, their `factors` numbering the values of each column from 0 in rising order.

    Raises:
        UsageError: a column is not there, or there are none beside the known ones.
        CorruptDataError: an image has no value, or two in two rows.
        UnknownDataError: the table cannot be read any more.
    """
    columns = _columns(table, wanted)
    factors, said = list[NDArray[np.int64]](), list[str]()
    for column, words in words_of(table, columns, images).items():
        found, kind = _factor(words)
        factors.append(found)
        said.append(f"{column} ({kind})")
    print(f"{table.name}: factors {', '.join(said)}", file=sys.stderr, flush=True)
    numbers = torch.from_numpy(np.stack(factors, 1))
    return replace(images, factors=numbers, factor_names=tuple(columns))


def grouped(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The group of each number, shape [N], of `RANK_GROUPS` that hold as many of them each.

    By rank: the share of numbers below, and half of those that are equal, times `RANK_GROUPS`,
    rounded down. Equal numbers share a group, and outliers change nothing.

    Args:
        values: Shape [N].

    Examples:
        >>> grouped(np.arange(20.0) ** 3).tolist()
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    """
    ordered = np.sort(values)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return RANK_GROUPS * (below + up_to) // (2 * len(values))


def _columns(table: Path, wanted: Sequence[str]) -> list[str]:
    """The columns that are meant."""
    there = columns_of(table)
    for name in wanted:
        if name not in there:
            hint = did_you_mean(name, there)
            raise UsageError(
                f"{table} has no column {in_a_line(repr(name))} to take as a factor{hint}; it has "
                f"{in_a_line(', '.join(there))}"
            )
    chosen = list(dict.fromkeys(wanted)) or [name for name in there if name and name not in KNOWN]
    if not chosen:
        raise UsageError(
            f"{table} has no columns beside {', '.join(there)}; add one for each factor, or name "
            "those that are meant with `factors`"
        )
    return chosen


def words_of(table: Path, columns: Sequence[str], images: ImageSet) -> dict[str, list[str]]:
    """What stands in some columns of a table, name -> a word for each image.

    Args:
        table: The CSV or Parquet file.
        columns: Names of columns that it has.
        images: Some of the images that it lists.

    Raises:
        CorruptDataError: two rows say different things of an image, or nothing is said of one.
        UnknownDataError: the table cannot be read any more.
    """
    assert images.names is not None
    names = list(images.names)
    asked = set(names)
    found: dict[str, tuple[str | None, ...]] = {}
    for row in rows_of(table, [*columns, *KNOWN]):
        name = path_of(row)
        if name not in asked:
            continue
        values = tuple(_value(row, column) for column in columns)
        if found.setdefault(name, values) != values:
            raise CorruptDataError(
                f"{table} lists {in_a_line(repr(name))} in several rows, with other values in "
                "each; leave one of them"
            )
    words = [[found[name][place] for name in names] for place in range(len(columns))]
    return {
        column: _whole(table, column, values, names)
        for column, values in zip(columns, words, strict=True)
    }


def _whole(
    table: Path, column: str, words: Sequence[str | None], names: Sequence[str]
) -> list[str]:
    """The words of a column that has one for each image.

    Raises:
        CorruptDataError: an image has no value.
    """
    lacking = [name for word, name in zip(words, names, strict=True) if word is None]
    if lacking:
        raise CorruptDataError(
            f"{table} has nothing in the column {in_a_line(column)} for {len(lacking):,} of "
            f"{len(words):,} images, the first of them {in_a_line(lacking[0])}; fill it in, leave "
            "these images out of the table, or name other columns"
        )
    return [word for word in words if word is not None]


def _value(row: Mapping[str, Any], column: str) -> str | None:
    """What stands in a column, as a word; None where there is nothing."""
    word = "" if row.get(column) is None else str(row[column]).strip()
    return None if word.lower() in MISSING else word


def _factor(words: Sequence[str]) -> tuple[NDArray[np.int64], str]:
    """The number of each image's value, shape [N], and what kind of column it is."""
    numbers = [_number(word) for word in words]
    if None in numbers:
        kinds, found = np.unique(np.array(words), return_inverse=True)
        return found.astype(np.int64), f"{len(kinds):,} categories"
    different, found = np.unique(np.array(numbers, np.float64), return_inverse=True)
    if len(different) <= MOST_NUMBERS:
        return found.astype(np.int64), f"{len(different)} numbers"
    said = f"{len(different):,} numbers in {RANK_GROUPS} groups by rank"
    return grouped(np.array(numbers, np.float64)), said


def _number(word: str) -> float | None:
    """The number that a word is, if it is a finite one."""
    try:
        found = float(word)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
