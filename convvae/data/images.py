"""Images as bytes: what every source gives, and their size changed to that of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F

from convvae.errors import ConfigError, CorruptDataError, ImageSizeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Split = Literal["train", "test"]

_CHUNK_BYTES = 1 << 22
"""Of the larger of input and output at a time: 1,024 grey images of 64x64."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one split of one data set, in the order in which they were published.

    Attributes:
        images: uint8 `[N, C, H, W]`.
        labels: int64 `[N]`, or None where a source has none.
        name: The source, as in `NAMES`.
        split: "train" or "test".
        names: What each image is called, such as its path in its folder; None where a source
            numbers its images.
        classes: What each label is called; None where a source does not say.

    Raises:
        CorruptDataError: There are not as many labels or names as images.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    split: Split
    names: Sequence[str] | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for what, values in (("labels", self.labels), ("names", self.names)):
            if values is not None and len(values) != len(self.images):
                raise CorruptDataError(
                    f"{self.name} ({self.split}) has {len(self.images)} images but {len(values)} "
                    f"{what}; use images and {what} of the same release"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """C: 1 for grey, 3 for colour."""
        return self.images.shape[1]

    @property
    def height(self) -> int:
        """H in pixels."""
        return self.images.shape[2]

    @property
    def width(self) -> int:
        """W in pixels."""
        return self.images.shape[3]


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale images to the largest size that fits `size` with their aspect, centred on black.

    Bilinear, antialiased where it shrinks, in integers as Pillow computes it: within 1 of 255 of
    the same in floats. Where the padding is odd, the extra row is at the bottom and the extra
    column on the right.

    Args:
        images: uint8 `[N, C, H, W]`.
        size: Height h and width w.

    Returns:
        uint8 `[N, C, h, w]`; `images` itself when it already has that size.

    Raises:
        ConfigError: A side of `size` is under 1.
        ImageSizeError: The images are so long or so wide that they would become a line of pixels.
    """
    height, width = size
    if min(height, width) < 1:
        raise ConfigError(
            f"image size {height}x{width} has a side under 1; both must be at least 1"
        )
    count, channels, old_height, old_width = images.shape
    if (old_height, old_width) == (height, width):
        return images
    inner = _fit((old_height, old_width), size)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out = images.new_zeros(count, channels, height, width)
    target = out[:, :, top : top + inner[0], left : left + inner[1]]
    chunk = max(1, _CHUNK_BYTES // (channels * max(height * width, old_height * old_width)))
    for part, slot in zip(images.split(chunk), target.split(chunk), strict=True):
        slot.copy_(F.interpolate(part, inner, mode="bilinear", antialias=True))
    return out


def fit(images: ImageSet, size: tuple[int, int], channels: int) -> Tensor:
    """The images as a model takes them: resized, uint8 `[N, C, h, w]`.

    Raises:
        ImageSizeError: The images have another number of channels.
    """
    if images.channels != channels:
        raise ImageSizeError(
            f"{images.name} has {images.channels} channels, but the model takes {channels}; "
            "choose images of the kind that it was trained on"
        )
    return resize(images.images, size)


def _fit(old: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The largest size with the aspect of `old` inside `size`, in whole pixels, at least 2x2."""
    scale = min(size[0] / old[0], size[1] / old[1])
    height, width = round(old[0] * scale), round(old[1] * scale)
    # Nothing is left to see in a line, and PyTorch 2.13 gets one that is a pixel wide wrong.
    if min(height, width) < 2:
        raise ImageSizeError(
            f"images of {old[0]}x{old[1]} scaled into {size[0]}x{size[1]} would be less than two "
            "pixels high or wide; crop them or choose a larger size"
        )
    return height, width
