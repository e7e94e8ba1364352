"""Images of which pixels are missing: what a training asks of them, and of its model."""

from __future__ import annotations

import torch
from torch import Tensor

from convvae.config import TrainConfig
from convvae.data.images import ImageSet
from convvae.data.pixels import mean_pixel
from convvae.errors import ConfigError
from convvae.evaluation.encode import evaluating
from convvae.model.vae import VAE
from convvae.training.holdout import RunImages


def check_mask(config: TrainConfig, vae: VAE, images: ImageSet) -> None:
    """Check that a model can learn from images of which pixels are missing, and that some are.

    Args:
        config: The run; nothing is asked where it has no mask.
        vae: The model.
        images: The training images.

    Raises:
        ConfigError: no pixel is missing, or the likelihood scores whole images only.
    """
    if config.mask is None:
        return
    if images.observed is None:
        raise ConfigError(f"no pixel of {images.name} is missing; leave out `mask`")
    channels, size = vae.config.channels, vae.config.image_size
    output = torch.zeros(1, vae.head.channels(channels), *size, device=vae.device)
    with evaluating(vae):
        vae.head(output).log_probs(torch.zeros(1, channels, *size, device=vae.device))


def mean_observed(images: RunImages) -> Tensor:
    """Mean intensity of each channel of the training images' observed pixels, in [0, 1]: [C]."""
    mean = mean_pixel(map(images.source.read, images.rows.split(1000)))
    if images.source.observed is None:
        return mean
    # What is missing is 0, and the same share of every channel is.
    return mean / images.source.observed[images.rows].float().mean()
