"""From a word to images: a named data set, or a user's own."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from convvae.data.images import ImageSet, Split, resize, with_channels
from convvae.data.own.factors import of_table, words_of
from convvae.data.own.load import (
    TABLES,
    Preparation,
    canonical_path,
    is_own,
    load_own,
    load_parts,
    local_path,
)
from convvae.data.own.tables import columns_of
from convvae.data.published.colour import COLOUR, ColourSet, Labelled, read_colour
from convvae.data.published.download import cache_folder, download
from convvae.data.published.idx import idx_rows
from convvae.data.published.mnist import (
    PUBLISHED,
    PublishedFile,
    PublishedSet,
    read_published,
    verify_published,
)
from convvae.data.published.sprites import SHAPES, VALUES, sprites
from convvae.data.streams import Part, Run, Stream
from convvae.errors import (
    ConfigError,
    MissingFolderError,
    UnknownDataError,
    UsageError,
    did_you_mean,
    in_a_line,
)
from convvae.files import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


NAMES: tuple[str, ...] = ("digits", "sprites", *PUBLISHED, *COLOUR)
"""Names that `load` knows; they go before files and folders of the same name."""


def load(
    name: str,
    split: Split = "train",
    *,
    data_dir: Path | None = None,
    limit: int | None = None,
    prepare: Preparation = Preparation(),  # noqa: B008 - frozen
) -> ImageSet:
    """Load the training or the test images of a data set, or of images of one's own.

    - `digits`: the 1,797 digits of 8x8 pixels that come with scikit-learn (Alpaydin and Kaynak,
      1998), values 0..16 scaled to 0..255. Images 0, 5, 10, ... are the test split (360), the
      others the training split (1,437). No file, no network.
    - `sprites`: 4,608 shapes of 32x32 pixels, drawn from five known factors (`factors`); images 0,
      5, 10, ... are the test split (922). No file, no network.
    - `mnist` (LeCun, Cortes and Burges, 1998), `fashion-mnist` (Xiao, Rasul and Vollgraf, 2017,
      arXiv:1708.07747), `kmnist` (Clanuwat et al., 2018, arXiv:1812.01718): 60,000 training and
      10,000 test images of 28x28 pixels.
    - `cifar10`, `cifar100` (Krizhevsky, 2009, the fine labels) and `svhn` (Netzer et al., 2011, the
      cropped digits): colour images of 32x32 pixels.
    - A folder of images, with sub-folders as labels; a zip or tar archive of them; `.npy`, `.npz`
      or idx arrays; a CSV or Parquet table of paths; shards, here or at an address (see `shards`);
      `hf:owner/name[:split]`. They are decoded once (see `decode`) into a cache (see `cache`) and
      divided by `prepare.split` (see `load.divide`).

    The files of published sets are looked for in `data_dir`, or else in the folder that the
    environment names in CONVVAE_DATA, in these places, plain before `.gz`: `MNIST/raw`
    (`FashionMNIST`, `KMNIST`: as torchvision lays them out), a folder of the data set's name,
    `raw`, and the folder itself; then in the download cache (CONVVAE_CACHE, or the user's cache
    folder); then they are downloaded into it. The first file found is used and checked by its
    digest; an unpacked KMNIST file, for which no digest is published, by its shape, with a warning.

    Args:
        name: One of `NAMES`, a path, shards, or `hf:` and what the library `datasets` shall open.
        split: "train" or "test".
        data_dir: A folder that holds the files of a published set.
        limit: Take the first `limit` images only.
        prepare: What images become, and how one's own are divided.

    Returns:
        Images uint8 `[N, C, H, W]` and labels int64 `[N]`.

    Raises:
        UnknownDataError: `name` is not known, or a file cannot be read.
        ConfigError: `split` is not known, or `limit` is under 1 or over the number of images.
        MissingFolderError: `data_dir` or the folder in CONVVAE_DATA is not a folder.
        CorruptDataError: a file is not whole, or not of the format that its name says.
        ChecksumError: a file found is another one than its name says, or a mirror served one.
        DownloadError: no mirror could be reached.
        ImageSizeError: images of several sizes, and `prepare` chooses none.
        MissingExtraError: an optional library is not installed.
        OutputError: the cache cannot be written.

    Examples:
        >>> load("digits", "test", limit=3).images.shape
        torch.Size([3, 1, 8, 8])
    """
    _check_request(name, split, limit)
    if name not in NAMES:
        return with_columns(name, load_own(name, split, limit, prepare), prepare.columns)
    _check_published(name, prepare)
    found = _read(name, split, data_dir)
    if limit is not None and limit > len(found.images):
        raise ConfigError(
            f"limit is {limit}, but {name} ({split}) has {len(found.images)} images; ask for fewer"
        )
    whole = with_columns(name, _image_set(found, name, split, limit), prepare.columns)
    return replace(whole, images=prepared(whole.images, prepare))


def stream(
    name: str,
    part: Part = "test",
    *,
    data_dir: Path | None = None,
    prepare: Preparation = Preparation(),  # noqa: B008 - frozen
) -> Stream:
    """The images that `load` gives, read and prepared a batch at a time.

    Memory does not grow with the number of images: idx files are read as they are needed, and
    images of one's own lie in the cache. Of `digits`, and of the archives of CIFAR and SVHN, the
    content is held, and only what is made of it is not.

    Args:
        name: As in `load`.
        part: "train", "test", or "all": the test images, then the training images.
        data_dir: As in `load`.
        prepare: As in `load`.

    Raises:
        As `load`; what is wrong with a file's rows, when they are reached.
    """
    if name not in NAMES:
        check_known(name)
        parts = load_parts(name, part, prepare)
        return Stream.of([with_columns(name, each, prepare.columns) for each in parts], part)
    _check_published(name, prepare)
    splits: tuple[Split, ...] = ("test", "train") if part == "all" else (part,)
    if name not in PUBLISHED:
        sets = [
            with_columns(
                name, _image_set(_read(name, split, data_dir), name, split), prepare.columns
            )
            for split in splits
        ]
        whole = Stream.of(sets, part)
        runs = [replace(run, read=partial(_each, run.read, prepare)) for run in whole.runs]
        return replace(whole, runs=tuple(runs))
    published, folder = PUBLISHED[name], _named_folder(data_dir)
    runs, labels = list[Run](), list[torch.Tensor]()
    for split in splits:
        images, numbers = (
            (file, _find(published, file, folder)) for file in published.files(split)
        )
        verify_published(*images)
        read = partial(_idx_images, images[1])
        runs.append(Run(split, images[0].shape[0], partial(_each, read, prepare)))
        labels.append(torch.tensor(read_published(*numbers), dtype=torch.int64))
    return Stream(tuple(runs), torch.cat(labels), name, part, classes=published.classes)


def _idx_images(path: Path, count: int, start: int) -> Iterator[torch.Tensor]:
    """The grey images of an idx file, so many at a time, from a place on."""
    return (torch.from_numpy(rows[:, None]) for rows in idx_rows(path, count, start))


def _each(
    read: Callable[[int, int], Iterable[torch.Tensor]],
    prepare: Preparation,
    count: int,
    start: int,
) -> Iterator[torch.Tensor]:
    """What is made of images that come so many at a time."""
    return (prepared(images, prepare) for images in read(count, start))


def _image_set(found: Labelled, name: str, split: Split, limit: int | None = None) -> ImageSet:
    """The first so many images of a split; copied: the arrays are read-only views of a file."""
    images = torch.tensor(found.images[:limit])
    labels = torch.tensor(found.labels[:limit], dtype=torch.int64)
    factors = None if found.factors is None else torch.tensor(found.factors[:limit])
    return ImageSet(
        images,
        labels,
        name,
        split,
        classes=found.classes,
        factors=factors,
        factor_names=found.factor_names,
    )


def with_factors(word: str, images: ImageSet, wanted: Sequence[str] = ()) -> ImageSet:
    """Images with the factors that are asked for: their own, or columns of their table.

    Args:
        word: The source that they are from.
        images: Some of its images.
        wanted: Names of factors; none means all that there are.

    Raises:
        UsageError: no factors are known, or not these.
        CorruptDataError: the table lacks a value of an image, see `factors.of_table`.
    """
    table = file_of(word)
    if table is not None and table.suffix.lower() in TABLES:
        return of_table(table, wanted, images)
    if images.factors is None:
        raise UsageError(
            f"`factors` needs images whose factors are known, and those of {images.name} are not; "
            "the data set sprites has some, and so have the columns of a CSV or Parquet table"
        )
    for name in wanted:
        if name not in images.factor_names:
            raise UsageError(
                f"{images.name} has no factor {name!r}{did_you_mean(name, images.factor_names)}; "
                f"it has {', '.join(images.factor_names)}"
            )
    names = tuple(dict.fromkeys(wanted)) or images.factor_names
    places = [images.factor_names.index(name) for name in names]
    return replace(images, factors=images.factors[:, places], factor_names=names)


def with_columns(word: str, images: ImageSet, wanted: Sequence[str]) -> ImageSet:
    """Images with what is known of them beside their labels: columns of their table.

    Of sprites they are what the factors mean.

    Args:
        word: The source that they are from.
        images: Some of its images.
        wanted: Names of columns.

    Raises:
        ConfigError: there are no such columns.
        CorruptDataError: the table lacks a value of an image, see `factors.words_of`.
    """
    if not wanted:
        return images
    table = file_of(word)
    if table is not None and table.suffix.lower() in TABLES:
        _check_there(images.name, wanted, columns_of(table))
        return replace(images, columns=words_of(table, wanted, images))
    _check_there(images.name, wanted, images.factor_names)
    assert images.factors is not None  # of sprites
    return replace(
        images,
        columns={
            name: [str(VALUES[name][place]) for place in images.factors[:, number].tolist()]
            for number, name in enumerate(images.factor_names)
            if name in wanted
        },
    )


def _check_published(name: str, prepare: Preparation) -> None:
    """Check what is asked of a named data set.

    Raises:
        ConfigError: it is divided already, or has no such columns.
    """
    if prepare.split != "auto":
        raise ConfigError(f"{name} has test images of its own; leave out `split`")
    _check_there(name, prepare.columns, tuple(VALUES) if name == "sprites" else ())


def _check_there(name: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Check that images have columns.

    Raises:
        ConfigError: they lack one.
    """
    for column in wanted:
        if column not in there:
            has = in_a_line(", ".join(there)) if there else "none but label"
            raise ConfigError(
                f"{name} has no column {in_a_line(repr(column))}{did_you_mean(column, there)}; "
                f"it has {has}"
            )


def canonical(word: str) -> str:
    """What `load` takes from any folder for what it takes here: paths are made absolute."""
    return word if word in NAMES else canonical_path(word)


def file_of(word: str) -> Path | None:
    """The file or folder of this disk that `load` reads for a word; None where it reads others."""
    return None if word in NAMES else local_path(word)


def undivided(word: str) -> str:
    """The rule of division by which every image is a test image: of published sets, their own."""
    return "auto" if word in NAMES else "none"


def is_published(word: str) -> bool:
    """Whether a word names a data set that comes with test images of its own."""
    return word in NAMES


def short_name(word: str) -> str:
    """What to call a source in the name of a folder."""
    if word in NAMES:
        return word
    # Of `train-{000000..000031}.tar`, `train`.
    stem = Path(re.sub(r"\{.*?\}", "", word)).stem
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "run"


def prepared(images: torch.Tensor, prepare: Preparation) -> torch.Tensor:
    """Images uint8 `[N, C, H, W]` of the channels and the size that are asked for."""
    if prepare.channels is not None:
        images = with_channels(images, prepare.channels)
    if prepare.image_size is not None:
        images = resize(images, prepare.image_size, crop=prepare.crop)
    return images


def _check_request(name: str, split: str, limit: int | None) -> None:
    check_known(name)
    if split not in get_args(Split):
        raise ConfigError(f"unknown split {split!r}: choose train or test")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, but at least 1 image is needed")


def check_known(name: str) -> None:
    """Check that a word names images.

    Raises:
        UnknownDataError: it does not.
    """
    if name not in NAMES and not is_own(name):
        hint = did_you_mean(name, NAMES)
        raise UnknownDataError(
            f"no data set and no file or folder {name!r}{hint}; known are {', '.join(NAMES)}, "
            "paths, addresses of shards, and hf:OWNER/NAME"
        )


def _read(name: str, split: Split, data_dir: Path | None) -> Labelled:
    """A split of a named data set."""
    if name == "digits":
        return _digits(split)
    if name == "sprites":
        return _sprites(split)
    folder = _named_folder(data_dir)
    if name in COLOUR:
        colour = COLOUR[name]
        return read_colour(colour, split, _find(colour, colour.files[split], folder))
    published = PUBLISHED[name]
    images, labels = (
        read_published(file, _find(published, file, folder)) for file in published.files(split)
    )
    return Labelled(images[:, None], labels, published.classes)


def _digits(split: Split) -> Labelled:
    """The digits of scikit-learn."""
    images, labels = _all_digits()
    chosen = _every_fifth(len(images), split)
    return Labelled(images[chosen], labels[chosen], tuple("0123456789"))


@cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits of both splits: they are read from text."""
    from sklearn.datasets import load_digits

    values, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    return np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8), labels


def _sprites(split: Split) -> Labelled:
    """The sprites, labelled by their shapes."""
    images, factors = sprites()
    chosen = _every_fifth(len(images), split)
    images, factors = images[chosen], factors[chosen]
    return Labelled(images, factors[:, 0], SHAPES, factors, tuple(VALUES))


def _every_fifth(count: int, split: Split) -> np.ndarray:
    """Which images are of a split: every fifth is a test image."""
    return (np.arange(count) % 5 == 0) == (split == "test")


def _named_folder(data_dir: Path | None) -> Path | None:
    """`data_dir`, else the folder in CONVVAE_DATA, else None; a folder that is named must exist."""
    named, source = data_dir, "the data folder"
    if named is None:
        if not (value := os.environ.get("CONVVAE_DATA")):
            return None
        named, source = Path(value), "the folder in CONVVAE_DATA"
    folder = expand(Path(named))
    if not folder.is_dir():
        raise MissingFolderError(f"{source}, {folder}, is no folder; create it or name another")
    return folder


def _find(published: PublishedSet | ColourSet, file: PublishedFile, folder: Path | None) -> Path:
    """The first place that has the file; downloads it when none has."""
    for place in _places(published, folder):
        for path in (place / file.name, place / f"{file.name}.gz"):
            if path.is_file():
                return path
    return download(file, published.mirrors, cache_folder() / published.name)


def _places(published: PublishedSet | ColourSet, folder: Path | None) -> Iterator[Path]:
    """Folders that may hold the files, the most specific first: file names are not unique."""
    if folder is not None:
        yield folder / published.folder / "raw"
        yield folder / published.name
        yield folder / "raw"
        yield folder
    yield cache_folder() / published.name
