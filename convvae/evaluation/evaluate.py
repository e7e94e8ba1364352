"""What a model is worth on images: its bounds, its latents, its reconstructions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from convvae.data.pixels import is_binary
from convvae.evaluation.bounds import image_terms, importance_bounds
from convvae.evaluation.encode import posterior_means
from convvae.evaluation.estimates import Estimate, Undefined
from convvae.evaluation.groups import kl_per_group
from convvae.evaluation.reconstruction import reconstruction_scores
from convvae.model.vae import VAE


class Evaluation(NamedTuple):
    """What a model is worth on images: nats per image, where nothing else is said."""

    bound: Estimate
    """The evidence lower bound log_px - kl."""
    log_px: Estimate
    kl: Estimate
    importance_weighted: Estimate | None
    """The bound L_K of `samples` draws; None where none was asked for."""
    samples: int
    bits_per_dim: float | None
    """-bound / (C H W log 2) of the tighter bound; None where p(x|z) is no mass of pixel values."""
    kl_per_latent: list[float] | None
    """None where the KL is not a sum over the latents."""
    kl_per_group: dict[str, Estimate] | None
    """KL of each group of a ladder, the coarsest first; None of other networks."""
    latents: int
    """Latents that the units are counted of: all, or the outline of a ladder."""
    active_units: int
    """Latents whose location varies over the images by more than 0.01, of variance 1."""
    squared_error: Estimate
    """Mean squared error of a value of the reconstruction from the location, in [0, 1]."""
    psnr: float | None
    """Peak signal-to-noise ratio of the mean squared error, dB; None of perfect reconstructions."""
    ssim: Estimate | Undefined
    """Structural similarity of an image and the decoding of its posterior's location."""


ACTIVE = 0.01
"""Variance of the location above which a latent counts as active."""


def evaluate(
    vae: VAE,
    images: Tensor,
    *,
    seed: int,
    mc_samples: int = 1,
    samples: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Evaluate a model on images.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        seed: Of all noise.
        mc_samples: Draws of z per image for the evidence lower bound.
        samples: Draws K of z per image for the importance-weighted bound; 0 leaves it out.
        progress: Called with the number of images that the latter has done since the last call.

    Source: active units from Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519
    """
    terms = image_terms(vae, images, seed=seed, mc_samples=mc_samples)
    mu, kl = posterior_means(vae, images)
    weighted = None
    if samples:
        weighted = Estimate.of(
            importance_bounds(vae, images, samples=samples, seed=seed, progress=progress)
        )
    groups = kl_per_group(vae, images, seed=seed)
    errors, similarities = reconstruction_scores(vae, images)
    bound = Estimate.of(terms.bound)
    tightest = (weighted or bound).mean
    is_bernoulli = vae.config.likelihood == "bernoulli"
    is_mass = vae.head.is_mass or (is_bernoulli and is_binary(images))
    error = float(errors.mean())
    return Evaluation(
        bound=bound,
        log_px=Estimate.of(terms.log_px),
        kl=Estimate.of(terms.kl),
        importance_weighted=weighted,
        samples=samples,
        bits_per_dim=-tightest / (vae.config.pixels * math.log(2)) if is_mass else None,
        kl_per_latent=None if kl is None else kl.tolist(),
        kl_per_group={name: Estimate.of(values) for name, values in groups.items()} or None,
        latents=mu.shape[1],
        active_units=int((mu.var(0) > ACTIVE).sum()) if len(images) > 1 else 0,
        squared_error=Estimate.of(errors),
        psnr=-10 * math.log10(error) if error else None,
        ssim=similarities if isinstance(similarities, Undefined) else Estimate.of(similarities),
    )
