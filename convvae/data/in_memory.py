"""Arrays that are in memory already, by the rule that array files have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from convvae.data.images import ImageSet, Split, unmarked
from convvae.data.own.arrays import as_bytes, channels_last, marked_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

IN_MEMORY = "arrays"
"""What a model file says of the images that it was trained on, where they came from no source."""
CHUNK = 1000
"""Images made bytes at a time."""


def image_set(
    values: NDArray[Any] | Tensor, split: Split = "train", *, marked: bool = False
) -> ImageSet:
    """An array of images as uint8 `[N, C, H, W]`; the pixels are copied.

    Args:
        values: `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` with C from 1 to 4: uint8, bool,
            uint16 (the high byte is kept) or floats in [0, 1] (rounded to the nearest of 256
            levels). The axis with at most 4 places is C; an array in which both could be is
            refused.
        split: What the images are called.
        marked: Whether NaN stands for a pixel that is missing; else it is refused.

    Raises:
        CorruptDataError: the shape, the dtype or the values are not those of images, or axis 1 and
            axis 3 could both be the channels.
    """
    array, where = _plain(values), "the array"
    last = channels_last(array.shape, where)
    if array.ndim == 3:
        array = array[..., None]
    array = array if last else array.transpose(0, 2, 3, 1)
    count, height, width, channels = array.shape
    images = torch.empty(count, channels + marked, height, width, dtype=torch.uint8)
    for start in range(0, len(array), CHUNK):
        part = slice(start, start + CHUNK)
        some = array[part]
        made = marked_bytes(some, None, start, where) if marked else as_bytes(some, start, where)
        images.numpy()[part] = made.transpose(0, 3, 1, 2)
    found = ImageSet(images, None, IN_MEMORY, split)
    return unmarked(found) if marked else found


def _plain(values: NDArray[Any] | Tensor) -> NDArray[Any]:
    """A tensor as a NumPy array, on the CPU; half precision as float32."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    return (values.float() if values.is_floating_point() else values).detach().cpu().numpy()
