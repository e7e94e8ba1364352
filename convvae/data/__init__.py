"""Where images come from: named data sets and a user's own, each as uint8 `[N, C, H, W]`.

`load` finds the files of a published data set in a folder of yours, in the download cache, or on
its mirrors, and checks every one of them; a folder, archive, array or table of yours is decoded
once into a cache that is memory-mapped. `stream` reads either a batch at a time. `resize` brings
images to the size of a model; `read_idx` reads the file format of MNIST.

The names below are imported when they are first used: processes that decode images need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convvae.data.images import ImageSet, Split, fingerprint, fit, resize
    from convvae.data.own.load import Preparation
    from convvae.data.published.idx import read_idx
    from convvae.data.sources import (
        NAMES,
        canonical,
        file_of,
        is_published,
        load,
        short_name,
        stream,
        undivided,
        with_factors,
    )
    from convvae.data.streams import Images, Part, Stream

__all__ = [
    "NAMES",
    "ImageSet",
    "Images",
    "Part",
    "Preparation",
    "Split",
    "Stream",
    "canonical",
    "file_of",
    "fingerprint",
    "fit",
    "is_published",
    "load",
    "read_idx",
    "resize",
    "short_name",
    "stream",
    "undivided",
    "with_factors",
]

_HOMES = {
    "NAMES": "sources",
    "ImageSet": "images",
    "Images": "streams",
    "Part": "streams",
    "Preparation": "own.load",
    "Split": "images",
    "Stream": "streams",
    "canonical": "sources",
    "file_of": "sources",
    "fingerprint": "images",
    "fit": "images",
    "is_published": "sources",
    "load": "sources",
    "read_idx": "published.idx",
    "resize": "images",
    "short_name": "sources",
    "stream": "sources",
    "undivided": "sources",
    "with_factors": "sources",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
