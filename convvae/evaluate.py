"""Numbers about a trained model, always in evaluation mode, each image weighing the same."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from convvae import runtime
from convvae.data.pixels import to_unit
from convvae.model import VAE
from convvae.objectives import Terms, elbo, log_weights

BATCH = 1000
"""Decoded images a batch. Noise is drawn batch by batch: this is part of a result's definition."""
DRAWS = 50
"""Draws of z an image that are decoded at a time for an importance-weighted bound."""


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


def importance_bounds(
    vae: VAE,
    images: Tensor,
    *,
    samples: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """The importance-weighted bound L_K of every image.

    The noise of an image is a function of the seed and of its pixels, so that it has the same bound
    alone and in any company. Memory does not grow with K: the weights are summed as they come.

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        samples: Draws K of z an image, at least 1.
        seed: Of the noise.
        progress: Called with the number of images done since the last call.

    Returns:
        Nats, shape [N], float64, on the CPU.

    Source: Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519
    """
    assert samples >= 1
    batch = max(1, BATCH // min(samples, DRAWS))
    bounds: list[Tensor] = []
    with evaluating(vae):
        for part in images.split(batch):
            x = to_unit(part.to(vae.device))
            q, sources = vae.encode(x), [_own_noise(image, seed) for image in part]
            total = torch.full((len(part),), -math.inf, dtype=torch.float64)
            for done in range(0, samples, DRAWS):
                shape = (min(DRAWS, samples - done), vae.config.latent_dims)
                eps = torch.stack([torch.randn(shape, generator=own) for own in sources], 1)
                weights = log_weights(vae, x, q, eps.to(vae.device))
                total = torch.logaddexp(total, weights.cpu().double().logsumexp(0))
            bounds.append(total - math.log(samples))
            progress(len(part))
    return torch.cat(bounds)


def _own_noise(image: Tensor, seed: int) -> torch.Generator:
    """A generator that is a function of an image's pixels and a seed."""
    return runtime.generator(seed, "importance", zlib.crc32(image.cpu().numpy().tobytes()))


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
