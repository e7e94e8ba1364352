"""Where an image is abnormal: a p-value of every pixel, by the errors of normal images there."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from convvae.anomalies.calibration import first_normal
from convvae.data import Images
from convvae.data.pixels import to_unit
from convvae.errors import UsageError
from convvae.evaluation.encode import batches
from convvae.evaluation.reconstruction import reconstruct
from convvae.model.vae import VAE

NEIGHBOURHOOD = 3
"""Side of the square over which errors are averaged, in pixels: one pixel alone is mostly noise."""
MOST_PIXELS = 2**24
"""Pixels of all normal images that are compared, at most: large images come in fewer."""
MOST_WRITTEN = 2**27
"""Pixels of all images in an array of p-values, at most: 512 MiB."""
EVERY_RANK, RANKS = 20, 60
"""Ranks that are kept of the errors at a pixel: the first ones, and about so many in all."""


def local_error(vae: VAE, images: Tensor) -> Tensor:
    """Squared error of the reconstruction around every pixel, averaged over the channels.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].

    Returns:
        Shape [N, H, W], float32, on the CPU.
    """
    squares = (to_unit(images) - reconstruct(vae, images)).square().mean(1, keepdim=True)
    padding = NEIGHBOURHOOD // 2
    return F.avg_pool2d(squares, NEIGHBOURHOOD, 1, padding, count_include_pad=False)[:, 0]


class PixelCalibration(NamedTuple):
    """Errors of M normal images at every pixel, from the largest down, at some ranks."""

    ranks: Tensor
    """1 is the largest error; ascending, the last is M: int64 [R]."""
    errors: Tensor
    """Of that rank at that pixel, shape [R, H, W]."""

    @classmethod
    def of(cls, errors: Tensor) -> PixelCalibration:
        """By the local errors of M normal images, shape [M, H, W]."""
        count = len(errors)
        steps = torch.linspace(0, 1, RANKS - EVERY_RANK + 1, dtype=torch.double)[1:]
        spaced = EVERY_RANK * (max(1.0, count / EVERY_RANK) ** steps)
        every = torch.arange(1, 1 + min(count, EVERY_RANK))
        ranks = torch.cat([every, spaced.round().long().clamp_max(count)]).unique()
        return cls(ranks, errors.sort(0, descending=True).values[ranks - 1])

    def p_values(self, errors: Tensor) -> Tensor:
        """(1 + number of normal errors at least as large) / (1 + M), at every pixel.

        The number is that of the next rank that is kept, so that no p-value is smaller than it
        should be: of new normal images a share r / (1 + M) has p <= r / (1 + M), exactly so at the
        ranks r that are kept.

        Args:
            errors: Local errors, shape [N, H, W].

        Returns:
            Shape [N, H, W], float32, in (0, 1].
        """
        outdone = torch.stack([(errors <= level) for level in self.errors]).sum(0)
        count = int(self.ranks[-1])
        steps = torch.cat([self.ranks, torch.tensor([count + 1])]).float()
        return steps[outdone] / (count + 1)


def calibrate(
    vae: VAE, normal: Images, chosen: Tensor, binarize_seed: int | None
) -> PixelCalibration:
    """By the first of the normal images, as many as are compared.

    Args:
        vae: The model.
        normal: A set.
        chosen: Which of its images are normal ones, bool [N].
        binarize_seed: Of the black or white pixels of a model of such images, else None.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    height, width = vae.config.image_size
    wanted = max(100, MOST_PIXELS // (height * width))
    parts = first_normal(vae, normal, chosen, wanted, binarize_seed)
    return PixelCalibration.of(torch.cat([local_error(vae, part) for part in parts]))


def p_values(
    vae: VAE, source: Images, count: int, pixels: PixelCalibration, binarize_seed: int | None
) -> Tensor:
    """p-values of the pixels of the first so many images of a set, float32 [N, H, W].

    Normal images that calibrated are held against themselves as well: their p-values are larger
    by less than 1 / M.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    images = batches(vae, source, binarize_seed, 0, count)
    return torch.cat([pixels.p_values(local_error(vae, batch)) for batch in images])


def check_size(vae: VAE, count: int) -> None:
    """Check that the p-values of so many images fit into one array.

    Raises:
        UsageError: they do not.
    """
    height, width = vae.config.image_size
    most = MOST_WRITTEN // (height * width)
    if count > most:
        raise UsageError(
            f"heat maps of {count:,} images of {height}x{width} are too large for one array; give "
            f"`limit` of at most {most:,}"
        )
