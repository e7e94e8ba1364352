"""What a model is worth on images: its bounds, its latents, its reconstructions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from convvae.data.pixels import is_binary
from convvae.distributions import DiagonalGaussian, Posterior, StandardNormal, kl_per_latent
from convvae.evaluation.bounds import image_terms, importance_bounds
from convvae.evaluation.encode import posterior_means
from convvae.evaluation.estimates import Estimate, Undefined
from convvae.evaluation.groups import kl_per_group
from convvae.evaluation.reconstruction import no_similarity, reconstruction_scores
from convvae.model.vae import VAE
from convvae.parts import OF_BINARY_IMAGES


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
    """-bound / (C H W log 2) of the tighter bound, of observed values where some are missing; None
    where p(x|z) is no mass of pixel values."""
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
    observed: float | None = None
    """Share of the pixels that bounds and errors are of, the others being missing; None: all."""


ACTIVE = 0.01
"""Variance of the location above which a latent counts as active."""
OF_GROUP = "kl of group "
"""Begins the name under which `measure` has the KL of a group of a ladder."""


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

    """
    found = measure(
        vae, images, seed=seed, mc_samples=mc_samples, samples=samples, progress=progress
    )
    return summary(vae, images, found, samples)


def measure(
    vae: VAE,
    images: Tensor,
    *,
    seed: int,
    mc_samples: int = 1,
    samples: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Tensor]:
    """The numbers of every single image that an evaluation is made of.

    Arguments as of `evaluate`.

    Returns:
        Name -> values of N images, on the CPU: `log_px`, `kl`, `squared_error`, float64 [N]; `mu`,
        float32 [N, D]; where they are defined, `importance_bound`, `ssim` and the KL of each group,
        float64 [N], and `kl_per_latent`, float32 [N, D].
    """
    kls: list[Tensor] = []

    def visit(q: Posterior) -> None:
        if isinstance(q, DiagonalGaussian) and isinstance(vae.prior, StandardNormal):
            kls.append(kl_per_latent(q, vae.prior).cpu())

    terms = image_terms(vae, images, seed=seed, mc_samples=mc_samples)
    errors, similarities = reconstruction_scores(vae, images)
    found = {"log_px": terms.log_px, "kl": terms.kl, "squared_error": errors}
    found["mu"] = posterior_means(vae, images, visit)[0]
    if kls:
        found["kl_per_latent"] = torch.cat(kls)
    if samples:
        found["importance_bound"] = importance_bounds(
            vae, images, samples=samples, seed=seed, progress=progress
        )
    if isinstance(similarities, Tensor):
        found["ssim"] = similarities
    groups = kl_per_group(vae, images, seed=seed)
    return found | {OF_GROUP + name: values for name, values in groups.items()}


def summary(vae: VAE, images: Tensor, found: Mapping[str, Tensor], samples: int) -> Evaluation:
    """What the numbers of images come to.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        found: Their numbers, as of `measure`.
        samples: Draws K of z per image for the importance-weighted bound; 0 where it is left out.

    Source: active units from Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519
    """
    weighted = Estimate.of(found["importance_bound"]) if samples else None
    bound = Estimate.of(found["log_px"] - found["kl"])
    tightest = (weighted or bound).mean
    of_binary = vae.config.likelihood in OF_BINARY_IMAGES
    is_mass = vae.head.is_mass or (of_binary and is_binary(images))
    mu, error = found["mu"], float(found["squared_error"].mean())
    groups = {group.name: Estimate.of(found[OF_GROUP + group.name]) for group in vae.config.plan}
    latents = found.get("kl_per_latent")
    share = None if vae.observed is None else float(vae.observed.double().mean())
    values = vae.config.pixels * (1.0 if share is None else share)
    return Evaluation(
        bound=bound,
        log_px=Estimate.of(found["log_px"]),
        kl=Estimate.of(found["kl"]),
        importance_weighted=weighted,
        samples=samples,
        bits_per_dim=-tightest / (values * math.log(2)) if is_mass else None,
        kl_per_latent=None if latents is None else latents.double().mean(0).tolist(),
        kl_per_group=groups or None,
        latents=mu.shape[1],
        active_units=int((mu.var(0) > ACTIVE).sum()) if len(images) > 1 else 0,
        squared_error=Estimate.of(found["squared_error"]),
        psnr=-10 * math.log10(error) if error else None,
        ssim=Estimate.of(found["ssim"]) if "ssim" in found else no_similarity(vae, images),
        observed=share,
    )
