"""Pixels between storage (uint8) and the model (float32 in [0, 1])."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """uint8 [..., C, H, W] in 0..255 -> float32 in [0, 1], on the same device."""
    return images.to(torch.float32).div_(255)


def to_uint8(x: Tensor) -> Tensor:
    """Float [..., C, H, W] in [0, 1] -> the nearest uint8, on the CPU."""
    return x.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
