"""Which pixels are missing: those that the images mark, a box, a share drawn at random, a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from convvae import runtime
from convvae.data import ImageSet
from convvae.data.images import with_mask
from convvae.errors import ConfigError, CorruptDataError

MARKED = "marked"
"""The mask that images bring along, see `data.Preparation`."""
FORMS = f"{MARKED}, box:LEFT,TOP,WIDTH,HEIGHT, random:SHARE, or a .png or .npy file"


def masked(images: ImageSet, mask: str | None, seed: int) -> ImageSet:
    """Images of which only some pixels are there.

    Args:
        images: The images; those that are marked have lost their marked pixels where they were
            loaded.
        mask: None, `marked`, or as of `missing_pixels`.
        seed: Of what is drawn.

    Raises:
        ConfigError: the mask is none, or does not fit.
        CorruptDataError: the file cannot be read.
    """
    if mask is None or mask == MARKED:
        return images
    missing = missing_pixels(mask, len(images), (images.height, images.width), seed)
    return with_mask(images, ~missing)


def missing_pixels(mask: str, count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Which pixels of images are missing, bool [N, 1, H, W].

    Args:
        mask: `box:LEFT,TOP,WIDTH,HEIGHT` in pixels; `random:SHARE`, drawn anew for every image;
            or a picture or an array [H, W] or [N, H, W], non-zero where a pixel is missing.
        count: Number of images N.
        size: Height and width of the images.
        seed: Of what is drawn.

    Raises:
        ConfigError: it is none of these, of another size, or leaves all or nothing out.
        CorruptDataError: the file cannot be read.
    """
    height, width = size
    kind, _, rest = mask.partition(":")
    if kind == "random":
        found = _random(rest, mask, count, size, seed)
    elif kind == "box":
        found = _box(rest, mask, size)
    else:
        found = _read(Path(mask))
        if found.shape not in ((height, width), (count, height, width)):
            shape = "x".join(str(side) for side in found.shape)
            raise ConfigError(
                f"the mask {mask} is {shape}, and the {count} images are {height}x{width}; give "
                "one of their size"
            )
    found = found.expand(count, height, width).unsqueeze(1)
    each = found.flatten(1)
    if bool(each.all(1).any()):
        raise ConfigError(f"the mask {mask} leaves no pixel of an image; let some be seen")
    if not bool(found.any()):
        raise ConfigError(f"the mask {mask} covers no pixel: nothing is missing")
    return found


def _random(rest: str, mask: str, count: int, size: tuple[int, int], seed: int) -> Tensor:
    """A share of the pixels of every image: the same number in all."""
    try:
        share = float(rest)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ConfigError(f"the mask {mask!r} is to be random:SHARE, a share between 0 and 1")
    pixels = size[0] * size[1]
    missing = round(share * pixels)
    found = torch.zeros(count, pixels, dtype=torch.bool)
    for place in range(count):
        order = torch.randperm(pixels, generator=runtime.generator(seed, "mask", place))
        found[place, order[:missing]] = True
    return found.view(count, *size)


def _box(rest: str, mask: str, size: tuple[int, int]) -> Tensor:
    """A rectangle that lies inside the images."""
    found = re.fullmatch(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})", rest)
    left, top, width, height = (int(side) for side in found.groups()) if found else (0, 0, 0, 0)
    if not (width and height) or left + width > size[1] or top + height > size[0]:
        raise ConfigError(
            f"the mask {mask!r} is to be box:LEFT,TOP,WIDTH,HEIGHT inside of {size[0]}x{size[1]} "
            "pixels"
        )
    box = torch.zeros(size, dtype=torch.bool)
    box[top : top + height, left : left + width] = True
    return box


def _read(path: Path) -> Tensor:
    """The mask in a file."""
    if path.suffix.lower() not in (".png", ".npy") or not path.is_file():
        raise ConfigError(f"no mask {str(path)!r}: give {FORMS}")
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                values = np.asarray(picture.convert("L"))
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CorruptDataError(f"cannot read the mask {path}: {error}") from error
    if values.dtype.kind not in "biuf":
        raise ConfigError(f"the mask {path} holds no numbers: give {FORMS}")
    return torch.from_numpy(np.array(values != 0))
