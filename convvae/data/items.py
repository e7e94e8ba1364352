"""What a source of images is made of: items, their labels, and which part they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from convvae.data.decode import SUFFIXES

PARTS = ("train", "test")
"""Names of folders, and values of a column `split`, that divide a source."""


class Bad(NamedTuple):
    """The place of an image that cannot be read, and why."""

    reason: str


class Item(NamedTuple):
    """One image of a source."""

    name: str
    """Its path in the source, with slashes; its number where it has no name."""
    payload: str | bytes | np.ndarray | Bad
    """The path of its file, the content of its file, or its pixels uint8 `[H, W, C]`."""
    label: str | int | None = None
    """What the source says of its class; folders are looked at by `folder_labels`."""
    part: str | None = None
    """"train" or "test" where the source says so."""


class Source(Protocol):
    """Images that can be gone through again and again."""

    title: str
    """What messages call it."""
    remarks: tuple[str, ...]
    """What was left aside, such as "12 files that are no images"."""
    by_path: bool
    """Whether names are paths whose folders may be classes and parts."""

    def stamp(self) -> str:
        """What changes whenever the images might have: paths, sizes, times."""
        ...

    def outline(self) -> str:
        """What a copy shares, without reading it: names and sizes."""
        ...

    def newest(self) -> float:
        """When the last change was made, in seconds since 1970."""
        ...

    def count(self) -> int | None:
        """Number of images, if it is known before they are read."""
        ...

    def items(self) -> Iterator[Item]:
        """The images in their order."""
        ...


def changed(path: str | Path) -> tuple[int, int, int]:
    """Size, modification and change time of a file, in bytes and nanoseconds."""
    found = os.stat(path)  # noqa: PTH116 - called for every file of a folder
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_hidden(part: str) -> bool:
    """Whether a file or folder is passed over by its name."""
    return part == "__MACOSX" or (part.startswith(".") and bool(part.strip(".")))


def has_image_suffix(name: str) -> bool:
    """Whether a path ends as those of images do."""
    stem, dot, suffix = name.rpartition(".")
    return bool(dot and stem) and suffix.lower() in SUFFIXES


def is_image_name(name: str) -> bool:
    """Whether a path is that of an image: a known suffix, and nothing hidden on the way."""
    return has_image_suffix(name) and not any(map(is_hidden, name.split("/")))


def common_folder(names: Sequence[str]) -> str:
    """The folders, with a slash at the end, in which all paths lie; "" if there is none."""
    if not names:
        return ""
    # Every other path lies between these two in sorted order.
    low, high = min(names).split("/")[:-1], max(names).split("/")[:-1]
    shared = 0
    while shared < min(len(low), len(high)) and low[shared] == high[shared]:
        shared += 1
    return "".join(f"{folder}/" for folder in low[:shared])


def folder_parts(names: Sequence[str]) -> list[str | None] | None:
    """The part of each path, where both a folder `train` and a folder `test` are at the top.

    Returns:
        "train", "test" or None (left out) a path; None where there are no such two folders.
    """
    skip = len(common_folder(names))
    tops = [name[skip:].partition("/") for name in names]
    found = [top if slash and top in PARTS else None for top, slash, _ in tops]
    return found if set(PARTS) <= set(found) else None


def folder_labels(names: Sequence[str], parts: Sequence[str | None] | None) -> list[str] | None:
    """The folder of each path in which it differs from others, below `train` and `test`.

    Returns:
        A name a path, of two or more in all; None where some path lies in no such folder.
    """
    skip = len(common_folder(names))
    inner = [name[skip:] for name in names]
    if parts is not None:
        inner = [
            name.partition("/")[2] if part else name
            for name, part in zip(inner, parts, strict=True)
        ]
        skip = len(common_folder(inner))
        inner = [name[skip:] for name in inner]
    split = [name.partition("/") for name in inner]
    found = [top for top, slash, _ in split if slash]
    return found if len(found) == len(names) and len(set(found)) > 1 else None


def looked_up(
    names: Sequence[str],
    labels: Sequence[str | int | None],
    parts: Sequence[str | None],
    *,
    by_path: bool,
) -> tuple[Sequence[str | int | None], Sequence[str | None] | None]:
    """Labels and parts of all images: what the source says, else what their folders say.

    Args:
        names: What each image is called.
        labels: What the source says of its class.
        parts: What the source says of its part.
        by_path: Whether names are paths whose folders may be classes and parts.

    Returns:
        A label a name; a part a name, or None where the source is not divided.
    """
    if not by_path:
        return labels, parts if set(PARTS) <= set(parts) else None
    folders = folder_parts(names)
    if any(label is None for label in labels):
        labels = folder_labels(names, folders) or labels
    return labels, folders


def numbered(
    labels: Sequence[str | int | None],
) -> tuple[np.ndarray, tuple[str, ...] | None] | None:
    """Labels as numbers, and what the numbers are called.

    Whole numbers stay what they are, without names; words are numbered in sorted order.

    Returns:
        int64 `[N]` and the names; None where an image has no label.
    """
    if not labels or any(label is None for label in labels):
        return None
    if all(isinstance(label, int) for label in labels):
        return np.array(labels, np.int64), None
    words = [str(label) for label in labels]
    classes = tuple(sorted(set(words)))
    number = {word: place for place, word in enumerate(classes)}
    return np.array([number[word] for word in words], np.int64), classes
