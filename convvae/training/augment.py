"""Random flips and small shifts of training images, drawn from (seed, position)."""

from __future__ import annotations

import torch
from torch import Tensor

from convvae import runtime
from convvae.config import Augmentation

LARGEST_SHIFT = 1 / 16
"""Largest shift as a part of a side, one pixel at least."""


def draw_moves(
    kind: Augmentation, count: int, size: tuple[int, int], seed: int, position: int
) -> Tensor | None:
    """How each image of a batch is moved: a function of the seed and of the images seen before.

    Args:
        kind: Which moves; half of the images are flipped, every shift of whole pixels up to
            `LARGEST_SHIFT` of a side is as likely as another.
        count: Number of images B.
        size: Their height and width.
        seed: Of the run.
        position: Images seen before the batch.

    Returns:
        int64 [B, 3] on the CPU: whether it is flipped from left to right (1 or 0), and pixels down
        and to the right; None where no image is moved.
    """
    if kind == "none":
        return None
    generator = runtime.generator(seed, "augment", position)
    moves = torch.zeros(count, 3, dtype=torch.int64)
    if kind in ("flip", "flip-shift"):
        moves[:, 0] = torch.randint(2, (count,), generator=generator)
    if kind in ("shift", "flip-shift"):
        for axis, side in enumerate(size, 1):
            most = max(1, round(LARGEST_SHIFT * side))
            moves[:, axis] = torch.randint(-most, most + 1, (count,), generator=generator)
    return moves


def moved(images: Tensor, moves: Tensor | None) -> Tensor:
    """Images, moved: the pixels at an edge are repeated where a shift leaves room.

    Args:
        images: Of any dtype, shape [B, C, H, W].
        moves: As `draw_moves` gives them, on their device, or None.

    Returns:
        Of the same dtype, shape [B, C, H, W].
    """
    if moves is None:
        return images
    flipped, down, right = (part.unsqueeze(1) for part in moves.unbind(1))
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    columns = torch.where(flipped == 1, width - 1 - columns, columns)
    # One gather; the batch is channels last, as the networks like it.
    index = torch.arange(len(images), device=images.device)
    batch = images[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return batch.permute(0, 3, 1, 2)
