"""What a conditional model knows of an image beside its pixels: columns, and y that they make."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from convvae.config.base import Frozen
from convvae.errors import ConfigError, did_you_mean, in_a_line

LABEL = "label"
"""The column of what images are labelled: the names of folders, or those of a published set."""
UNLABELLED = "unlabelled"
"""The label of an image that has none."""
CATEGORY = ":category"
"""Behind the name of a column whose numbers are to be taken as names."""
MOST_LABELS = 10_000
"""Labels of a column that a model may know, and combinations of them."""
MOST_COLUMNS = 100
NAMED_LABELS = 20
"""Labels, or columns, that a message names."""
QUANTILES = 11
"""Quantiles of a column of numbers that a model file keeps: at 0, 10, ..., 100%."""


class Category(Frozen):
    """A column of names, in y as a one among zeros."""

    name: str
    """What the column is called."""
    labels: tuple[str, ...] = Field(min_length=1, max_length=MOST_LABELS)
    """What the labels are called, in their order in y."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"each {self.name} of a model has a name of its own")
        return self

    @property
    def size(self) -> int:
        """Numbers of y."""
        return len(self.labels)

    def place(self, label: str) -> int:
        """Where a label is among those of its column.

        Raises:
            ConfigError: the model does not know it.
        """
        if label not in self.labels:
            raise ConfigError(
                f"the model does not know the {in_a_line(self.name)} {in_a_line(repr(label))}"
                f"{did_you_mean(label, self.labels)}; it knows {listed(self.labels)}"
            )
        return self.labels.index(label)

    def encoded(self, word: str) -> list[float]:
        """A label as numbers of y.

        Raises:
            ConfigError: the model does not know it.
        """
        place = self.place(word)
        return [float(other == place) for other in range(self.size)]

    def decoded(self, numbers: Sequence[float]) -> str:
        """The label that numbers of y are of."""
        return self.labels[max(range(self.size), key=lambda place: numbers[place])]


class Number(Frozen):
    """A column of numbers, in y standardised: (value - mean) / std."""

    name: str
    """What the column is called."""
    mean: float
    """Of the training images."""
    std: float = Field(gt=0)
    """Standard deviation over the training images."""
    quantiles: Annotated[tuple[float, ...], Field(min_length=QUANTILES, max_length=QUANTILES)]
    """Of the training images, at even shares from the smallest number to the largest."""

    @property
    def size(self) -> int:
        """Numbers of y."""
        return 1

    def encoded(self, word: str) -> list[float]:
        """A number as one of y.

        Raises:
            ConfigError: it is none.
        """
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            low, high = self.quantiles[0], self.quantiles[-1]
            raise ConfigError(
                f"{in_a_line(self.name)} is a number, in training from {low:g} to {high:g}, and "
                f"{in_a_line(repr(word))} is none"
            )
        return [(value - self.mean) / self.std]

    def decoded(self, numbers: Sequence[float]) -> str:
        """The number that a number of y is of."""
        return f"{self.mean + self.std * numbers[0]:.5g}"


class Condition(Frozen):
    """What a conditional model is told of an image: the value of each of these columns.

    y is a vector of C numbers, those of one column after the other. Model files of before there
    were several columns have `labels` and `counts`, those of the column `label`.
    """

    columns: tuple[Category | Number, ...] = Field(min_length=1, max_length=MOST_COLUMNS)
    """In their order in y."""
    combinations: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = Field(
        min_length=1, max_length=MOST_LABELS
    )
    """The labels that training images have together: of each column of names, a place."""
    counts: tuple[Annotated[int, Field(ge=1)], ...]
    """Training images of each combination, from which p(y) follows."""

    @model_validator(mode="before")
    @classmethod
    def _of_labels_alone(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, dict) or "labels" not in values:
            return values
        others = {name: value for name, value in values.items() if name != "labels"}
        labels = values["labels"]
        places = range(len(labels) if isinstance(labels, list | tuple) else 0)
        made = {
            "columns": ({"name": LABEL, "labels": labels},),
            "combinations": tuple((place,) for place in places),
        }
        return {**others, **made}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.counts) != len(self.combinations):
            raise ValueError("each label of a model, or combination of labels, has a count")
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("each column that a model is told has a name of its own")
        sizes = [column.size for column in self.categories]
        for places in self.combinations:
            fits = len(places) == len(sizes)
            if not fits or any(place >= size for place, size in zip(places, sizes, strict=True)):
                raise ValueError("a combination of labels has one place in each column of names")
        return self

    @property
    def size(self) -> int:
        """Numbers of y, C."""
        return sum(column.size for column in self.columns)

    @property
    def categories(self) -> tuple[Category, ...]:
        """The columns of names."""
        return tuple(column for column in self.columns if isinstance(column, Category))

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The columns of numbers."""
        return tuple(column for column in self.columns if isinstance(column, Number))

    @property
    def words(self) -> tuple[str, ...]:
        """The columns as the setting `condition` names them."""
        return tuple(
            f"{column.name}{CATEGORY}"
            if isinstance(column, Category) and column.name != LABEL
            else column.name
            for column in self.columns
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the only column, which is one of names; none of other models."""
        alone = len(self.columns) == 1 and self.categories
        return self.categories[0].labels if alone else ()

    @property
    def slices(self) -> Iterator[slice]:
        """Where the numbers of each column are in y."""
        ends = accumulate(column.size for column in self.columns)
        return (
            slice(end - column.size, end) for column, end in zip(self.columns, ends, strict=True)
        )

    @property
    def in_words(self) -> str:
        """The columns for people."""
        return " and ".join(
            f"the number {column.name}"
            if isinstance(column, Number)
            else f"the {column.name} (of {column.size:,})"
            for column in self.columns
        )

    def read(self, words: Sequence[str]) -> dict[str, str]:
        """What is asked for, by column: of a model of one column a value, else COLUMN=VALUE.

        Raises:
            ConfigError: a word is neither, or a column is not known, or named twice.
        """
        if len(self.columns) == 1 and len(words) == 1:
            return {self.columns[0].name: words[0]}
        found: dict[str, str] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or len(self.columns) == 1:
                how = (
                    "give one `label`"
                    if len(self.columns) == 1
                    else f"write it as {self.columns[0].name}=VALUE"
                )
                raise ConfigError(
                    f"the model is told {listed([column.name for column in self.columns])}, and "
                    f"{in_a_line(repr(word))} does not say which; {how}"
                )
            if name in found:
                raise ConfigError(f"{in_a_line(name)} is given twice; give it once")
            found[name] = value
        self.check(found)
        return found

    def check(self, values: Mapping[str, str]) -> None:
        """Check that the model is told of these columns.

        Raises:
            ConfigError: it knows nothing of one.
        """
        names = [column.name for column in self.columns]
        for name in values:
            if name not in names:
                raise ConfigError(
                    f"the model is not told of a column {in_a_line(repr(name))}"
                    f"{did_you_mean(name, names)}; it is told {listed(names)}"
                )

    def row(self, values: Mapping[str, str]) -> list[float]:
        """y of the value of each column, C numbers.

        Raises:
            ConfigError: a column lacks its value or is not known, or a value is not.
        """
        self.check(values)
        lacking = [column.name for column in self.columns if column.name not in values]
        if lacking:
            raise ConfigError(f"the model is told {listed(lacking)} too; give a value of each")
        return [number for column in self.columns for number in column.encoded(values[column.name])]

    def values(self, row: Sequence[float]) -> dict[str, str]:
        """The value of each column that a y is of."""
        return {
            column.name: column.decoded(row[place])
            for column, place in zip(self.columns, self.slices, strict=True)
        }

    def said(self, values: Mapping[str, str]) -> str:
        """Values for people: of a model of one column the value alone."""
        if len(self.columns) == 1:
            return next(iter(values.values()))
        return ", ".join(f"{name} {value}" for name, value in values.items())

    def examples(self, most: int) -> list[dict[str, str]]:
        """What to show of a model: the combinations of labels, then each number low and high.

        Numbers are otherwise at their medians, and labels the most frequent combination.

        Args:
            most: Combinations, at most, the first ones.
        """
        middle = {number.name: f"{number.quantiles[QUANTILES // 2]:.5g}" for number in self.numbers}
        usual = self.combinations[self.counts.index(max(self.counts))]
        found = [self._combined(places, middle) for places in self.combinations[:most]]
        for number in self.numbers:
            for end in (number.quantiles[0], number.quantiles[-1]):
                found.append(self._combined(usual, {**middle, number.name: f"{end:.5g}"}))
        return found

    def _combined(self, places: Sequence[int], numbers: Mapping[str, str]) -> dict[str, str]:
        """Labels by their places, and numbers, in the order of the columns."""
        labels = {
            column.name: column.labels[place]
            for column, place in zip(self.categories, places, strict=True)
        }
        return {column.name: {**labels, **numbers}[column.name] for column in self.columns}


def beside_labels(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of a table that the setting `condition` names, those of labels left out."""
    names = (word.removesuffix(CATEGORY) for word in columns)
    return tuple(name for name in names if name != LABEL)


def listed(names: Sequence[str]) -> str:
    """Names in a message: the first ones, and how many there are beside them."""
    more = len(names) - NAMED_LABELS
    return ", ".join(map(in_a_line, names[:NAMED_LABELS])) + (
        f" and {more:,} more" if more > 0 else ""
    )
