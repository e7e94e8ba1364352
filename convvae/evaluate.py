"""Numbers about a trained model, always in evaluation mode, each image weighing the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from convvae import runtime
from convvae.data.pixels import to_unit
from convvae.model import VAE
from convvae.objectives import Terms, elbo

BATCH = 1000
"""Decoded images a batch. Noise is drawn batch by batch: this is part of a result's definition."""


@contextmanager
def evaluating(vae: VAE) -> Iterator[None]:
    """Evaluation mode without gradients inside the block; the mode is put back after it."""
    was_training = vae.training
    vae.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        vae.train(was_training)


def mean_terms(vae: VAE, images: Tensor, *, seed: int, mc_samples: int = 1) -> Terms:
    """The terms of the evidence lower bound, averaged over images.

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        seed: Of the noise; the same seed gives every model the same noise.
        mc_samples: Draws K of z an image.

    Returns:
        Mean log_px and kl in nats per image: scalars, float64, on the CPU.
    """
    sums = torch.zeros(2, dtype=torch.float64)
    with evaluating(vae):
        batch = max(1, BATCH // mc_samples)
        for start in range(0, len(images), batch):
            x = to_unit(images[start : start + batch].to(vae.device))
            shape = (mc_samples, len(x), vae.config.latent_dims)
            eps = runtime.noise(shape, seed, "evaluate", start).to(vae.device)
            sums += torch.stack([term.cpu().double().sum() for term in elbo(vae, x, eps)])
    log_px, kl = sums / len(images)
    return Terms(log_px, kl)


def reconstruct(vae: VAE, images: Tensor) -> Tensor:
    """Means of p(x|z) at the mean of q(z|x): deterministic.

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].

    Returns:
        float32 in [0, 1], shape [N, C, H, W], on the CPU.
    """
    with evaluating(vae):
        parts = [to_unit(part.to(vae.device)) for part in images.split(BATCH)]
        return torch.cat([vae.decode(vae.encode(x).mean).mean.cpu() for x in parts])


def generate(vae: VAE, count: int, *, seed: int) -> Tensor:
    """Means of p(x|z) at draws z from the prior.

    Arguments:
        vae: The model.
        count: Number of images N.
        seed: Of the draws.

    Returns:
        float32 in [0, 1], shape [N, C, H, W], on the CPU.
    """
    z = vae.prior.sample(count, runtime.generator(seed, "generate"))
    with evaluating(vae):
        return torch.cat([vae.decode(part.to(vae.device)).mean.cpu() for part in z.split(BATCH)])
