"""Images of which pixels are missing: what a training asks of them, and of its model."""

from __future__ import annotations

from torch import Tensor

from convvae.config import TrainConfig
from convvae.data.images import ImageSet
from convvae.data.pixels import mean_pixel
from convvae.errors import ConfigError
from convvae.evaluation.imputation import check_parts
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
    check_parts(vae)


def mean_observed(images: RunImages) -> Tensor:
    """Mean intensity of each channel of the training images' observed pixels, in [0, 1]: [C]."""
    mean = mean_pixel(map(images.source.read, images.rows.split(1000)))
    if images.source.observed is None:
        return mean
    # What is missing is 0, and the same share of every channel is.
    return mean / images.source.observed[images.rows].float().mean()
