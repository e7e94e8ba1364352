"""Pixels between storage (uint8) and the model (float32 in [0, 1])."""

from __future__ import annotations

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


def binarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw black or white pixels, white with probability v / 255 for a grey value v.

    Args:
        images: uint8, shape [N, C, H, W], on the CPU.
        generator: Of the draws.

    Returns:
        uint8 of 0 and 255, shape [N, C, H, W].

    Source: Salakhutdinov & Murray 2008, https://doi.org/10.1145/1390156.1390266
    """
    out = torch.empty_like(images)
    for part, drawn in zip(images.split(1000), out.split(1000), strict=True):
        level = torch.randint(255, part.shape, dtype=torch.uint8, generator=generator)
        drawn.copy_(level < part).mul_(255)
    return out


def pass_over(shape: tuple[int, ...], count: int, generator: torch.Generator) -> None:
    """Bring a generator to where `binarize` of so many images, each of that shape, leaves it."""
    for start in range(0, count, 1000):
        some = (min(1000, count - start), *shape)
        torch.randint(255, some, dtype=torch.uint8, generator=generator)


def binarize_once(images: Tensor, split: str, seed: int) -> Tensor:
    """Binarise the images of a split the same way every time: a function of (split, seed)."""
    return binarize(images, binarize_generator(split, seed))


def binarize_generator(split: str, seed: int) -> torch.Generator:
    """The draws of `binarize_once`, for images that come in parts."""
    return runtime.generator(seed, f"binarize {split}")


def is_binary(images: Tensor) -> bool:
    """Whether every value is 0 or 255."""
    return all(bool(((part == 0) | (part == 255)).all()) for part in images.split(1000))


def mean_pixel(images: Tensor, rows: Tensor) -> Tensor:
    """Mean intensity of each channel in [0, 1], shape [C].

    Args:
        images: uint8, shape [M, C, H, W].
        rows: Places of those that count, int64 [N].
    """
    sums = torch.stack([images[part].sum((0, 2, 3)) for part in rows.split(1000)]).sum(0)
    return (sums / (255 * len(rows) * images[0, 0].numel())).float()
