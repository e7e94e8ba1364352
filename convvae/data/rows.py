"""Rows of numbers as images: what shape they become, and which values are black and white."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from convvae.config import MIN_SIDE
from convvae.errors import ImageSizeError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def image_shape(features: int, given: tuple[int, ...] | None) -> tuple[int, int, int]:
    """The shape (C, H, W) of the images that rows of so many features become.

    Args:
        features: Values of a row, n.
        given: (H, W) or (C, H, W); None for the smallest square that holds a row.

    Raises:
        ImageSizeError: the images are smaller than `MIN_SIDE`.
        ValueError: rows of n features are no images of that shape.
    """
    if given is None:
        side = max(MIN_SIDE, math.isqrt(features - 1) + 1)
        return 1, side, side
    if len(given) not in (2, 3):
        raise ValueError(f"image_shape is (H, W) or (C, H, W), not {tuple(given)}")
    channels, height, width = given if len(given) == 3 else (1, *given)
    if math.prod(given) != features:
        raise ValueError(
            f"image_shape {tuple(given)} has {math.prod(given)} values, but X has {features} "
            "features"
        )
    if len(given) == 3 and channels > 4:
        raise ValueError(
            f"images of shape {tuple(given)} have {channels} channels, at most 4 are possible; "
            "channels come first: move the last axis with np.moveaxis(X, -1, 1)"
        )
    if min(height, width) < MIN_SIDE:
        raise ImageSizeError(
            f"images of {height}x{width} pixels are too small: the networks need at least "
            f"{MIN_SIDE} a side; enlarge them, or pass flat rows, which are padded"
        )
    return channels, height, width


def pixel_range(values: NDArray[Any], given: tuple[float, float] | None) -> tuple[float, float]:
    """The values that are black and white.

    Raises:
        ValueError: the given ones are not in rising order.
    """
    if given is not None:
        low, high = given
        if not low < high:
            raise ValueError(f"pixel_range ({low:g}, {high:g}) must rise, as (0, 1) does")
        return float(low), float(high)
    if values.dtype == np.uint8:
        return 0.0, 255.0
    return float(values.min()), float(values.max())
