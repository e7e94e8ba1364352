"""Reconstructions from the posterior's mean, and how near they are to the images."""

from __future__ import annotations

import torch
from torch import Tensor

from convvae.data.pixels import to_unit
from convvae.evaluation.encode import batch_size, each_part, evaluating, mean_per_image
from convvae.evaluation.estimates import Undefined
from convvae.images.ssim import SSIM_WINDOW, ssim
from convvae.model.vae import VAE


def reconstruct(vae: VAE, images: Tensor) -> Tensor:
    """Means of p(x|z) at the location of q(z|x): deterministic.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].

    Returns:
        float32 in [0, 1], shape [N, C, H, W], on the CPU.
    """
    parts = each_part(vae, images.split(batch_size(vae)))
    return torch.cat([_reconstruct_batch(model, part) for model, part in parts])


def _reconstruct_batch(vae: VAE, images: Tensor) -> Tensor:
    with evaluating(vae):
        q = vae.encode(to_unit(images.to(vae.device)))
        return vae.decode(q.location).mean.cpu()


def reconstruction_scores(vae: VAE, images: Tensor) -> tuple[Tensor, Tensor | Undefined]:
    """How near images are to their reconstructions from the posterior's location.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].

    Returns:
        The mean squared error of a value, and the structural similarity, each shape [N], float64;
        the latter is not defined for images smaller than its window, or with missing pixels, which
        the error leaves out.
    """
    height, width = images.shape[-2:]
    errors: list[Tensor] = []
    similarities: list[Tensor] = []
    for model, part in each_part(vae, images.split(batch_size(vae))):
        x, mean = to_unit(part), reconstruct(model, part)
        errors.append(mean_per_image((mean - x).square(), model.observed).double())
        if vae.observed is None and min(height, width) >= SSIM_WINDOW:
            similarities.append(ssim(x, mean))
    if not similarities:
        return torch.cat(errors), no_similarity(vae, images)
    return torch.cat(errors), torch.cat(similarities)


def no_similarity(vae: VAE, images: Tensor) -> Undefined:
    """Why images [N, C, H, W] have no structural similarity: for their size, or what is missing."""
    if vae.observed is not None:
        return Undefined("pixels are missing")
    height, width = images.shape[-2:]
    return Undefined(
        f"images of {height}x{width} are smaller than its {SSIM_WINDOW}x{SSIM_WINDOW} window"
    )
