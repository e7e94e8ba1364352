"""Images as bytes: what every source gives, and their size changed to that of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from convvae.errors import ConfigError, CorruptDataError

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "test"]

_CHUNK_BYTES = 1 << 20
"""Of the larger of input and output at a time (256 grey images of 64x64), so that it stays in cache
as float32."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one split of one data set, in the order in which they were published.

    Attributes:
        images: uint8 `[N, C, H, W]`.
        labels: int64 `[N]`, or None where a source has none.
        name: The source, as in `NAMES`.
        split: "train" or "test".

    Raises:
        CorruptDataError: There are not as many labels as images.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    split: Split

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.images):
            raise CorruptDataError(
                f"{self.name} ({self.split}) has {len(self.images)} images but {len(self.labels)} "
                "labels; use images and labels of the same release"
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

    Separable bilinear resampling `A x Bᵀ` of each plane x, antialiased when it shrinks: the rows of
    A and B are triangle filters over the pixels of x, as wide as an output pixel is. When the
    padding is odd, the extra row is at the bottom and the extra column on the right.

    It computes in float32 and rounds to the nearest, within 1 of 255 of Pillow and of
    `torch.nn.functional.interpolate(antialias=True)`. The latter is no faster on grey images, and
    in PyTorch 2.13 its floats are wrong and its bytes can fail when the output is one pixel wide.

    Args:
        images: uint8 `[N, C, H, W]`.
        size: Height h and width w.

    Returns:
        uint8 `[N, C, h, w]`; `images` itself when it already has that size.

    Raises:
        ConfigError: A side of `size` is under 1.
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
    rows = _triangles(old_height, inner[0]).to(images.device)
    columns = _triangles(old_width, inner[1]).to(images.device)
    chunk = max(1, _CHUNK_BYTES // (channels * max(height * width, old_height * old_width)))
    for part, slot in zip(images.split(chunk), target.split(chunk), strict=True):
        slot.copy_((rows @ (part.float() @ columns.mT)).round_())
    return out


def _fit(old: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The largest size with the aspect of `old` inside `size`, in whole pixels, at least 1x1."""
    scale = min(size[0] / old[0], size[1] / old[1])
    return max(1, round(old[0] * scale)), max(1, round(old[1] * scale))


def _triangles(old: int, new: int) -> Tensor:
    """The weight of each of `old` pixels in each of `new`: `[new, old]`, rows summing to 1."""
    step = old / new
    centres = (torch.arange(new) + 0.5) * step
    distances = (torch.arange(old) + 0.5 - centres[:, None]).abs()
    weights = (1 - distances / max(step, 1.0)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
