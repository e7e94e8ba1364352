"""Pixels between storage (uint8) and the model (float32 in [0, 1])."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from convvae import runtime


def to_unit(images: Tensor) -> Tensor:
    """uint8 [..., C, H, W] in 0..255 -> float32 in [0, 1], on the same device.

    Examples:
        >>> to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    return images.to(torch.float32).div_(255)


def binarize(images: Tensor, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
    """Draw black or white pixels, white with probability v / 255 for a grey value v.

    Args:
        images: uint8, shape [N, C, H, W], on the CPU.
        generator: Of the draws.
        out: What they are written to; else memory of their own.

    Returns:
        uint8 of 0 and 255, shape [N, C, H, W].

    Source: Salakhutdinov & Murray 2008, https://doi.org/10.1145/1390156.1390266
    """
    out = torch.empty_like(images) if out is None else out
    for part, drawn in zip(images.split(1000), out.split(1000), strict=True):
        level = torch.randint(255, part.shape, dtype=torch.uint8, generator=generator)
        drawn.copy_(black_or_white(part, level))
    return out


def pass_over(shape: tuple[int, ...], count: int, generator: torch.Generator) -> None:
    """Bring a generator to where `binarize` of so many images, each of that shape, leaves it."""
    for start in range(0, count, 1000):
        some = (min(1000, count - start), *shape)
        torch.randint(255, some, dtype=torch.uint8, generator=generator)


def black_or_white(images: Tensor, levels: Tensor) -> Tensor:
    """uint8 of 255 where a pixel is beyond its level, else of 0; all of one shape and device."""
    return (levels < images).to(torch.uint8).mul_(255)


def draw_levels(shape: tuple[int, ...], seed: int, position: int) -> Tensor:
    """Grey values beyond which a pixel of a batch is white: a function of (seed, position).

    Args:
        shape: Of the batch, [B, C, H, W].
        seed: Of the run.
        position: Images seen before the batch.

    Returns:
        uint8 in 0..254, on the CPU.
    """
    draws = runtime.generator(seed, "binarize", position)
    return torch.randint(255, shape, dtype=torch.uint8, generator=draws)


def binarize_once(images: Tensor, split: str, seed: int, out: Tensor | None = None) -> Tensor:
    """Binarise the images of a split the same way every time: a function of (split, seed)."""
    return binarize(images, binarize_generator(split, seed), out)


def binarize_generator(split: str, seed: int) -> torch.Generator:
    """The draws of `binarize_once`, for images that come in parts."""
    return runtime.generator(seed, f"binarize {split}")


def is_binary(images: Tensor) -> bool:
    """Whether every value is 0 or 255."""
    return all(bool(((part == 0) | (part == 255)).all()) for part in images.split(1000))


def mean_pixel(parts: Iterable[Tensor]) -> Tensor:
    """Mean intensity of each channel in [0, 1], shape [C].

    Args:
        parts: The images, some at a time: uint8, shape [n, C, H, W].
    """
    sums, count = torch.zeros((), dtype=torch.int64), 0
    for images in parts:
        sums = sums + images.sum((0, 2, 3))
        count += len(images) * images[0, 0].numel()
    return (sums / (255 * count)).float()
