"""Images as pictures of a page: opaque RGBA arrays, heat maps, PNG files in memory."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor

_HEAT = np.array(
    # Black, violet, red, orange, light yellow: lightness rises, as in matplotlib's inferno.
    [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]],
    dtype=np.float64,
)


def rgba(image: Tensor) -> np.ndarray:
    """uint8 [C, H, W] of 1 to 4 channels as uint8 [H, W, 4]."""
    pixels = image.permute(1, 2, 0).numpy()
    height, width, channels = pixels.shape
    out = np.full((height, width, 4), 255, dtype=np.uint8)
    out[..., :3] = pixels[..., :3] if channels >= 3 else pixels[..., :1]
    if channels in (2, 4):
        out[..., 3] = pixels[..., -1]
    return out


def heat(error: Tensor, top: float) -> np.ndarray:
    """Values [H, W] from 0 to `top` as a heat map, uint8 [H, W, 4]."""
    place = np.clip(error.numpy() / max(top, 1e-12), 0, 1) * (len(_HEAT) - 1)
    channels = [np.interp(place, np.arange(len(_HEAT)), colour) for colour in _HEAT.T]
    opaque = np.full_like(place, 255)
    return np.stack([*channels, opaque], axis=-1).round().astype(np.uint8)


def packed(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] as uint32 [H, W], a pixel a number, as Bokeh draws it."""
    return np.ascontiguousarray(pixels).view(np.uint32)[..., 0]


def strip(cells: list[np.ndarray], gap: int) -> np.ndarray:
    """Pictures uint8 [H, W, 4] of one size side by side, the gaps between them transparent."""
    height, width, _ = cells[0].shape
    sheet = np.zeros((height, len(cells) * (width + gap) - gap, 4), dtype=np.uint8)
    for place, cell in enumerate(cells):
        left = place * (width + gap)
        sheet[:, left : left + width] = cell
    return sheet


def png(pixels: np.ndarray) -> bytes:
    """A picture uint8 [H, W, 4] as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()
