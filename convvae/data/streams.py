"""Images that are read a batch at a time: memory does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from convvae.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from convvae.data.images import ImageSet, Split


Part = Literal["train", "test", "all"]
"""A split, or both: the test images first, then the training images."""


class Images(Protocol):
    """Images in an order, which can be gone through again and again: a set, or a stream."""

    @property
    def name(self) -> str:
        """The source."""
        ...

    @property
    def split(self) -> Part:
        """What part of the source it is."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """int64 `[N]`, or None where the source has none."""
        ...

    @property
    def names(self) -> Sequence[str] | None:
        """What each image is called, or None where the source numbers its images."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What each label is called, or None where the source does not say."""
        ...

    @property
    def observed(self) -> Tensor | None:
        """Where a pixel is there, bool `[N, 1, H, W]`, or None where all are."""
        ...

    @property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """What else is known of the images: name -> a word for each, those asked for."""
        ...

    @property
    def splits(self) -> list[Split]:
        """The split of each image."""
        ...

    @property
    def counts(self) -> list[int]:
        """How many images of one split follow each other, before some of another."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """Changes whenever the images do; None where the name says all, or nothing is known."""
        ...

    def __len__(self) -> int: ...

    def batches(
        self, count: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[Split, Tensor]]:
        """At most so many images of one split at a time, uint8 `[n, C, H, W]`, in order."""
        ...


@dataclass(frozen=True)
class Run:
    """Images of one split that follow each other in a stream.

    Attributes:
        split: "train" or "test".
        count: How many of them, from the first.
        read: Gives them so many at a time, from a place on, uint8 `[n, C, H, W]`.
    """

    split: Split
    count: int
    read: Callable[[int, int], Iterable[Tensor]]


@dataclass(frozen=True)
class Stream:
    """Images of one or both splits of a source; satisfies `Images`.

    Attributes:
        runs: Where the images come from, in order.
        labels: int64 `[N]`, or None where the source has none.
        name: The source.
        split: What part of the source it is.
        names: What each image is called; None where the source numbers its images.
        classes: What each label is called; None where the source does not say.
        fingerprint: Changes whenever the images do; None of a published set, whose name says it.
        observed: Where a pixel is there, bool `[N, 1, H, W]`; None where all are.
        columns: What else is known of the images: name -> a word for each, those asked for.
    """

    runs: tuple[Run, ...]
    labels: Tensor | None
    name: str
    split: Part
    names: Sequence[str] | None = None
    classes: tuple[str, ...] | None = None
    fingerprint: str | None = None
    observed: Tensor | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])

    @classmethod
    def of(cls, sets: Sequence[ImageSet], split: Part) -> Stream:
        """The images of one or more sets of the same source, one after the other."""
        labels = [found.labels for found in sets if found.labels is not None]
        names = [name for found in sets if found.names is not None for name in found.names]
        return cls(
            tuple(Run(found.split, len(found), partial(_rows, found.images)) for found in sets),
            torch.cat(labels) if labels else None,
            sets[0].name,
            split,
            names or None,
            sets[0].classes,
            " ".join(found.fingerprint for found in sets if found.fingerprint) or None,
            _observed(sets),
            {
                name: [word for found in sets for word in found.columns[name]]
                for name in sets[0].columns
            },
        )

    def __len__(self) -> int:
        return sum(run.count for run in self.runs)

    @property
    def counts(self) -> list[int]:
        """How many images of one split follow each other, before some of another."""
        return [run.count for run in self.runs]

    @property
    def splits(self) -> list[Split]:
        """The split of each image."""
        return [run.split for run in self.runs for _ in range(run.count)]

    def batches(
        self, count: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[Split, Tensor]]:
        """At most so many images of one split at a time, uint8 `[n, C, H, W]`, in order.

        Args:
            count: How many at a time.
            start: The place of the first of them.
            stop: The place behind the last; absent, they go on to the end.
        """
        begin = 0
        for run in self.runs:
            first = max(start - begin, 0)
            left = (run.count if stop is None else min(run.count, stop - begin)) - first
            for images in run.read(count, first) if left > 0 else ():
                yield run.split, images[:left]
                left -= len(images)
                if left <= 0:
                    break
            begin += run.count

    def first(self, count: int) -> Stream:
        """The first so many of the images.

        Raises:
            ConfigError: there are fewer.
        """
        if count > len(self):
            raise ConfigError(
                f"limit is {count}, but {self.name} ({self.split}) has {len(self)} images; ask for "
                "fewer"
            )
        runs: list[Run] = []
        left = count
        for run in self.runs:
            runs.append(replace(run, count=min(run.count, left)))
            left -= runs[-1].count
        return replace(
            self,
            runs=tuple(run for run in runs if run.count),
            labels=None if self.labels is None else self.labels[:count],
            names=None if self.names is None else self.names[:count],
            observed=None if self.observed is None else self.observed[:count],
            columns={name: words[:count] for name, words in self.columns.items()},
        )


def _observed(sets: Sequence[ImageSet]) -> Tensor | None:
    """Where a pixel of the images of all sets is there; None where all are."""
    if all(found.observed is None for found in sets):
        return None
    shapes = [(len(found), 1, *found.images.shape[2:]) for found in sets]
    parts = [
        torch.ones(shape, dtype=torch.bool) if found.observed is None else found.observed
        for found, shape in zip(sets, shapes, strict=True)
    ]
    return torch.cat(parts)


def _rows(images: Tensor, count: int, start: int) -> Iterator[Tensor]:
    """Images in memory, or mapped, so many at a time from a place on."""
    for place in range(start, len(images), count):
        yield images[place : place + count]
