"""How distributions show themselves in a notebook, without matplotlib."""

from __future__ import annotations

import torch
from torch import Tensor

from convvae.images.sheets import grid, png

IMAGES_SHOWN = 64
"""Images in a picture."""
IMAGES_LISTED = 8
"""Images of whose posterior the latents are listed."""
LATENTS_LISTED = 8
"""Latents that are listed."""


def picture(images: Tensor) -> bytes:
    """The first images of [..., C, H, W] in [0, 1], enlarged, as the content of a PNG file."""
    flat = images.detach().reshape(-1, *images.shape[-3:])[:IMAGES_SHOWN]
    scale = max(1, 64 // max(flat.shape[2:]))
    large = flat.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return png(grid(large, rows=max(1, -(-len(flat) // 16))))


def table(name: str, mean: Tensor, deviation: Tensor) -> str:
    """Mean ± standard deviation of the first latents [B, D] of the first images, as HTML."""
    images, latents = mean.shape
    cells = torch.stack([mean, deviation], -1)[:IMAGES_LISTED, :LATENTS_LISTED].tolist()
    head = "".join(f"<th>z{latent}</th>" for latent in range(min(latents, LATENTS_LISTED)))
    lines = [
        f"<tr><th>{place}</th>"
        + "".join(f"<td>{mu:.2f} ± {sigma:.2f}</td>" for mu, sigma in row)
        + "</tr>"
        for place, row in enumerate(cells)
    ]
    more = "" if images <= IMAGES_LISTED and latents <= LATENTS_LISTED else "; the first of them:"
    return (
        f"<p>{name} of {images} images, {latents} latents, mean ± standard deviation{more}</p>"
        f"<table><tr><th>image</th>{head}</tr>{''.join(lines)}</table>"
    )
