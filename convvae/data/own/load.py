"""A user's own images: opened, divided into training and test images, and said what was chosen."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from convvae.data.cache import store
from convvae.data.cache.check import PIXELS
from convvae.data.cache.worker import digest
from convvae.data.decode import Wanted
from convvae.data.images import ImageSet, Split, unmarked
from convvae.data.items import Item, Source, changed, has_image_suffix
from convvae.data.own import arrays
from convvae.data.own.archives import open_archive
from convvae.data.own.folders import Files, Folder
from convvae.data.own.hub import LOCAL, PREFIX, Hub
from convvae.data.own.shards import is_address, names_shards, open_shards
from convvae.data.own.tables import Table
from convvae.data.stored import StoredPixels
from convvae.data.streams import Part
from convvae.errors import ConfigError, CorruptDataError, UnknownDataError
from convvae.files import expand, is_there
from convvae.images.geometry import Size

SHARE = 0.1
"""Share of the images that is held out where nothing says which."""
TABLES = (".csv", ".parquet")
_OF_RUN = ("model.safetensors", "metrics.jsonl", "resume.safetensors")


@dataclass(frozen=True)
class Preparation:
    """What images become, and how a source without test images of its own is divided.

    Attributes:
        image_size: Height and width; None leaves them as they are.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; None takes 1 of grey images, 3 of others.
        crop: Fill the size and cut off what sticks out, instead of padding with black.
        split: `auto`, `folders`, `none`, or a share between 0 and 1 such as `0.2`: see `divide`.
        skip_bad: Leave out files that cannot be read, instead of refusing the source.
        marked: Take pixels that are marked for missing: NaN in arrays of floats, what is not zero
            in an array `missing` beside `images`, and what is not opaque in images with alpha.
        columns: What is read of the images beside their labels: columns of their table.
    """

    image_size: Size | None = None
    channels: int | None = None
    crop: bool = False
    split: str = "auto"
    skip_bad: bool = False
    marked: bool = False
    columns: tuple[str, ...] = ()

    @property
    def wanted(self) -> Wanted:
        """What each image shall become.

        Raises:
            ConfigError: alpha is to be a channel, and to mark what is missing.
        """
        if self.marked and self.channels in (2, 4):
            raise ConfigError(
                f"`channels={self.channels}` keeps an alpha as a channel, and `mask='marked'` "
                "takes it for a mask; choose 1 or 3"
            )
        return Wanted(self.image_size, self.channels, self.crop, self.marked)


def is_own(word: str) -> bool:
    """Whether a word names images of the user's: `hf:...`, shards, or what exists on disk."""
    return word.startswith(PREFIX) or names_shards(word) or is_there(expand(Path(word)))


def canonical_path(word: str) -> str:
    """The same source from any folder: a path is made absolute, other words are left."""
    place = local_path(word)
    if place is None:
        return word
    builder = word[: word.index(":", len(PREFIX)) + 1] if word.startswith(PREFIX) else ""
    return f"{builder}{place.resolve()}"


def local_path(word: str) -> Path | None:
    """The file or folder of this disk that a word names, if it is there, or is to be there."""
    if is_address(word):
        return None
    if not word.startswith(PREFIX):
        return expand(Path(word)) if is_own(word) else None
    name, _, rest = word.removeprefix(PREFIX).partition(":")
    return expand(Path(rest)) if name in LOCAL else None


def open_source(word: str, *, marked: bool = False) -> Source:
    """The images that a word names: a folder, a file of one or of many, shards, or `hf:...`.

    Args:
        word: What names them.
        marked: As of `Preparation`.

    Raises:
        UnknownDataError: it is none of them, or cannot be read.
    """
    if word.startswith(PREFIX):
        return Hub(word.removeprefix(PREFIX))
    if names_shards(word):
        return open_shards(word)
    path = expand(Path(word))
    if is_there(path) and not path.is_dir() and not path.is_file():
        raise UnknownDataError(
            f"{path} is a device or a pipe, which may go on without end; save it as a file"
        )
    if path.is_dir():
        _refuse_run(path)
        return Folder(path)
    suffix = path.suffix.lower()
    try:
        if suffix in TABLES:
            return Table(path)
        if suffix == ".npy":
            return arrays.Npy(path, marked=marked)
        if suffix == ".npz":
            return arrays.Npz(path, marked=marked)
        if "-idx" in path.name or ".idx" in path.name:
            return arrays.Idx(path)
        if has_image_suffix(path.name):
            return Files(path.name, [(Item(path.name, os.fspath(path)), changed(path))])
        return open_archive(path)
    except OSError as error:
        raise UnknownDataError(f"cannot read {path} ({error.strerror})") from error


def _refuse_run(folder: Path) -> None:
    """Refuse the folder of a training run, whose pictures are previews.

    Raises:
        UnknownDataError: it is one.
    """
    others = any((folder / name).is_file() for name in _OF_RUN)
    if others and (folder / "config.json").is_file():
        raise UnknownDataError(
            f"{folder} is the folder of a training run, and images are expected here; name a "
            "folder of images, and give each model a command of its own"
        )


def load_own(word: str, split: Split, limit: int | None, prepare: Preparation) -> ImageSet:
    """The training or the test images of a source, and a line on stderr that says which.

    Raises:
        ConfigError: the division leaves no images, or `limit` is over their number.
        CorruptDataError: some files cannot be read, and `prepare.skip_bad` is not set.
        ConvvaeError: as `open_source` and `store.entry_for`.
    """
    title, entry = _opened(word, prepare)
    rows, how = divide(entry, prepare.split, split)
    count = rows.stop - rows.start
    if limit is not None and limit > count:
        raise ConfigError(
            f"limit is {limit}, but {title} ({split}) has {count} images; ask for fewer"
        )
    rows = slice(rows.start, rows.start + (count if limit is None else limit))
    kind = "training" if split == "train" else "test"
    chosen = f"{rows.stop - rows.start:,} {kind} images"
    _say(_summary(title, entry, chosen, how, marked=prepare.marked))
    return _rows(title, entry, rows, split, marked=prepare.marked)


def load_parts(word: str, part: Part, prepare: Preparation) -> list[ImageSet]:
    """As `load_own`; of all images those of the test, then those of the training.

    Raises:
        As `load_own`, and
        ConfigError: all are asked for of a source that is not divided, where they are either.
    """
    if part != "all":
        return [load_own(word, part, None, prepare)]
    title, entry = _opened(word, prepare)
    tests, how = divide(entry, prepare.split, "test")
    if entry.facts["order"] == "listed":
        raise ConfigError(f"{title} is not divided (`split='none'`); choose `part='train'` or test")
    others, _ = divide(entry, prepare.split, "train")
    chosen = f"{tests.stop:,} test images and {others.stop - tests.stop:,} training images"
    _say(_summary(title, entry, chosen, how, marked=prepare.marked))
    parts: tuple[tuple[slice, Split], ...] = ((tests, "test"), (others, "train"))
    return [_rows(title, entry, *found, marked=prepare.marked) for found in parts]


def _opened(word: str, prepare: Preparation) -> tuple[str, store.Entry]:
    """What messages call a source, and its images in the cache."""
    _check_split(prepare.split)
    source = open_source(word, marked=prepare.marked)
    entry = store.entry_for(source, prepare.wanted, _orders(prepare.split), _say)
    facts = entry.facts
    if facts["bad_count"] and not prepare.skip_bad:
        more = f" and {facts['bad_count'] - 3} more" if facts["bad_count"] > 3 else ""
        raise CorruptDataError(
            f"{source.title}: {facts['bad_count']:,} of {facts['total']:,} images cannot be read: "
            f"{', '.join(facts['bad'])}{more}; mend or remove them, or leave them out with "
            f"`skip_bad=True`; all are listed in {entry.folder / 'bad.txt'}"
        )
    return source.title, entry


def _rows(title: str, entry: store.Entry, rows: slice, split: Split, *, marked: bool) -> ImageSet:
    """Some rows of the cache, with what belongs to them."""
    labels, classes = entry.labels, entry.facts["classes"]
    stored = StoredPixels(entry.folder / PIXELS, rows.start, entry.images[rows])
    found = ImageSet(
        stored.images,
        None if labels is None else labels[rows],
        title,
        split,
        store.Names(entry, rows),
        None if classes is None else tuple(classes),
        fingerprint=digest(f"{entry.key} {rows.start} {rows.stop}".encode()),
        stored=stored,
    )
    return unmarked(found) if marked else found


def divide(entry: store.Entry, rule: str, split: Split) -> tuple[slice, str]:
    """The rows of a part, and how they were chosen.

    - The folders `train` and `test` at the top, or the column or split of those names, where the
      source has them: `auto` takes them, `folders` asks for them.
    - A share, such as `0.2`: an image is a test image if the digest of its file is in the lowest
      0.2 of all digests. It stays one whatever is added, and copies of a file are never on both
      sides. At least one image is taken for each part. `auto` takes 0.1 where there are no parts.
    - `none`: every image is both.

    Raises:
        ConfigError: a part has no images.
    """
    total, tests = entry.shape[0], entry.facts["test"]
    match entry.facts["order"]:
        case "listed":
            return slice(0, total), "not divided (split none)"
        case "parts":
            how = "as train and test of the source say"
        case _ if rule == "folders":
            raise ConfigError(
                "`split='folders'` needs the folders train and test at the top of the source (or a "
                "column split of those words); choose a share such as 0.1, or none"
            )
        case _:
            if total < 2:
                raise ConfigError(
                    f"nothing can be held out of {total} image; use `split='none'` to test on the "
                    "images of the training"
                )
            share = SHARE if rule == "auto" else float(rule)
            tests = min(max(entry.below(share), 1), total - 1)
            how = f"the others held out by content, split {share:g}"
    if not 0 < tests < total:
        raise ConfigError(
            f"{tests} of {total} images are test images; both parts need some: use `split='none'`"
        )
    return slice(0, tests) if split == "test" else slice(tests, total), how


def _orders(rule: str) -> tuple[store.Order, ...]:
    match rule:
        case "none":
            return ("listed",)
        case "auto" | "folders":
            return ("parts", "content")
        case _:
            return ("content",)


def _check_split(rule: str) -> None:
    """Refuse what is no rule.

    Raises:
        ConfigError: it is none of `auto`, `folders`, `none` and a share between 0 and 1.
    """
    if rule in ("auto", "folders", "none"):
        return
    try:
        share = float(rule)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ConfigError(
            f"split is {rule!r}: choose auto, folders, none or a share between 0 and 1, as 0.1"
        )


def _summary(title: str, entry: store.Entry, chosen: str, how: str, *, marked: bool) -> str:
    """What was chosen, in one line."""
    total, channels, height, width = entry.shape
    parts = [f"{title}: {chosen} of {total:,}, {how}", f"{channels - marked} x {height} x {width}"]
    if entry.facts["classes"]:
        parts.append(f"{len(entry.facts['classes'])} classes")
    if entry.facts["bad_count"]:
        parts.append(
            f"{entry.facts['bad_count']:,} that cannot be read left out ({entry.folder}/bad.txt)"
        )
    return "; ".join([*parts, *entry.facts["remarks"]])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
