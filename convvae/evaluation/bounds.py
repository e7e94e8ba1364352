"""Bounds of log p(x): the terms of the ELBO of every image, and its importance-weighted bound."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from convvae.data.pixels import to_unit
from convvae.evaluation.encode import batch_size, each_part, evaluating, own_noise
from convvae.model.objectives import Terms, elbo, log_weights
from convvae.model.vae import VAE

DRAWS_AT_ONCE = 50
"""Draws of z per image that are decoded at a time for an importance-weighted bound."""


def mean_terms(vae: VAE, images: Tensor, *, seed: int, mc_samples: int = 1) -> Terms:
    """The terms of the evidence lower bound, averaged over images: see `image_terms`.

    Returns:
        Mean log_px and kl in nats per image: scalars, float64, on the CPU.
    """
    log_px, kl = image_terms(vae, images, seed=seed, mc_samples=mc_samples)
    return Terms(log_px.mean(), kl.mean())


def image_terms(vae: VAE, images: Tensor, *, seed: int, mc_samples: int = 1) -> Terms:
    """The terms of the evidence lower bound of every image.

    The noise of an image is a function of the seed and of its pixels, so that it has the same terms
    alone and in any company.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        seed: Of the noise; every model is given the same.
        mc_samples: Draws K of z per image.

    Returns:
        log_px and kl in nats, shape [N], float64, on the CPU.
    """
    found: list[Tensor] = []
    parts = images.split(max(1, batch_size(vae) // mc_samples))
    with evaluating(vae):
        for model, part in each_part(vae, parts):
            eps = own_noise(vae, part, seed)(mc_samples)
            terms = elbo(model, to_unit(part.to(vae.device)), eps)
            found.append(torch.stack(terms).cpu().double())
    return Terms(*torch.cat(found, 1))


def importance_bounds(
    vae: VAE,
    images: Tensor,
    *,
    samples: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """The importance-weighted bound L_K of every image.

    Noise as in `image_terms`. Memory does not grow with K: the weights are summed as they come.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        samples: Draws K of z per image, at least 1.
        seed: Of the noise.
        progress: Called with the number of images done since the last call.

    Returns:
        Nats, shape [N], float64, on the CPU.

    Source: Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519
    """
    assert samples >= 1
    draws = min(samples, DRAWS_AT_ONCE, batch_size(vae))
    batch = max(1, batch_size(vae) // draws)
    bounds: list[Tensor] = []
    with evaluating(vae):
        for model, part in each_part(vae, images.split(batch)):
            x = to_unit(part.to(vae.device))
            q, noise = model.encode(x), own_noise(vae, part, seed)
            total = torch.full((len(part),), -math.inf, dtype=torch.float64)
            for done in range(0, samples, draws):
                weights = log_weights(model, x, q, noise(min(draws, samples - done)))
                total = torch.logaddexp(total, weights.cpu().double().logsumexp(0))
            bounds.append(total - math.log(samples))
            progress(len(part))
    return torch.cat(bounds)
