"""From a name to images: the bundled digits, or a published set from a folder, cache or mirror."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from convvae.data.download import cache_folder, download
from convvae.data.images import ImageSet, Split
from convvae.data.published import PUBLISHED, PublishedFile, PublishedSet, read_published
from convvae.errors import ConfigError, MissingFolderError, UnknownDataError, did_you_mean
from convvae.files import expand

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES: tuple[str, ...] = ("digits", *PUBLISHED)
"""What `load` knows."""


def load(
    name: str,
    split: Split = "train",
    *,
    data_dir: Path | None = None,
    limit: int | None = None,
) -> ImageSet:
    """Load one split of a named data set.

    - `digits`: the 1,797 digits of 8x8 pixels that come with scikit-learn (Alpaydin and Kaynak,
      1998), values 0..16 scaled to 0..255. Images 0, 5, 10, ... are the test split (360), the
      others the training split (1,437). No file, no network.
    - `mnist` (LeCun, Cortes and Burges, 1998), `fashion-mnist` (Xiao, Rasul and Vollgraf, 2017,
      arXiv:1708.07747), `kmnist` (Clanuwat et al., 2018, arXiv:1812.01718): 60,000 training and
      10,000 test images of 28x28 pixels.

    The files of the latter are looked for in `data_dir`, or else in the folder that the environment
    names in CONVVAE_DATA, in these places, plain before `.gz`: `MNIST/raw` (`FashionMNIST`,
    `KMNIST`: as torchvision lays them out), a folder of the data set's name, `raw`, and the folder
    itself; then in the download cache (CONVVAE_CACHE, or the user's cache folder); then they are
    downloaded into it. The first file found is used and checked by its digest; an unpacked KMNIST
    file, for which no digest is published, by its shape, with a warning.

    Args:
        name: One of `NAMES`.
        split: "train" or "test".
        data_dir: A folder that holds the files; not used by `digits`.
        limit: Take the first `limit` images only.

    Returns:
        Images uint8 `[N, 1, H, W]` and labels int64 `[N]`.

    Raises:
        UnknownDataError: `name` is not known, or a file cannot be read.
        ConfigError: `split` is not known, or `limit` is under 1 or over the number of images.
        MissingFolderError: `data_dir` or the folder in CONVVAE_DATA is not a folder.
        CorruptDataError: A file found is not a whole idx file.
        ChecksumError: A file found is another one than its name says, or a mirror served one.
        DownloadError: No mirror could be reached.
        OutputError: The download cache cannot be written.
    """
    _check_request(name, split, limit)
    images, labels = _digits(split) if name == "digits" else _read(name, split, data_dir)
    if limit is not None and limit > len(images):
        raise ConfigError(
            f"limit is {limit}, but {name} ({split}) has {len(images)} images; ask for fewer"
        )
    # Copied, since the arrays are read-only views of a file's bytes.
    return ImageSet(
        torch.tensor(images[:limit]).unsqueeze(1),
        torch.tensor(labels[:limit], dtype=torch.int64),
        name,
        split,
    )


def _check_request(name: str, split: str, limit: int | None) -> None:
    if name not in NAMES:
        hint = did_you_mean(name, NAMES)
        raise UnknownDataError(f"unknown data set {name!r}{hint}; known are {', '.join(NAMES)}")
    if split not in get_args(Split):
        raise ConfigError(f"unknown split {split!r}: choose train or test")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, but at least 1 image is needed")


def _digits(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[N, 8, 8]` and labels `[N]` of the digits of scikit-learn."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    chosen = (np.arange(len(images)) % 5 == 0) == (split == "test")
    return images[chosen], labels[chosen]


def _read(name: str, split: Split, data_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[N, H, W]` and labels uint8 `[N]` of a published data set."""
    published, folder = PUBLISHED[name], _named_folder(data_dir)
    images, labels = (
        read_published(file, _find(published, file, folder)) for file in published.files(split)
    )
    return images, labels


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


def _find(published: PublishedSet, file: PublishedFile, folder: Path | None) -> Path:
    """The first place that has the file; downloads it when none has."""
    for place in _places(published, folder):
        for path in (place / file.name, place / f"{file.name}.gz"):
            if path.is_file():
                return path
    return download(file, published.mirrors, cache_folder() / published.name)


def _places(published: PublishedSet, folder: Path | None) -> Iterator[Path]:
    """Folders that may hold the files, the most specific first: file names are not unique."""
    if folder is not None:
        yield folder / published.folder / "raw"
        yield folder / published.name
        yield folder / "raw"
        yield folder
    yield cache_folder() / published.name
