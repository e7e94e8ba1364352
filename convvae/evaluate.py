"""Numbers about a trained model, always in evaluation mode, each image weighing the same."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from convvae import runtime
from convvae.data.pixels import to_unit
from convvae.distributions import (
    DiagonalGaussian,
    Posterior,
    StandardNormal,
    kl_per_latent,
)
from convvae.model import VAE
from convvae.objectives import Terms, elbo, log_weights
from convvae.similarity import WINDOW, ssim

BATCH = 250
"""Images encoded or decoded at a time, at most: no result depends on it but by rounding."""
PIXELS = BATCH * 64 * 64
"""Pixels of those images, at most: large images come in fewer, so that memory does not grow."""
DRAWS = 50
"""Draws of z an image that are decoded at a time for an importance-weighted bound."""


def batch_size(vae: VAE) -> int:
    """Images of a model to encode or decode at a time."""
    height, width = vae.config.image_size
    return max(1, min(BATCH, PIXELS // (height * width)))


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

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        seed: Of the noise; every model is given the same.
        mc_samples: Draws K of z an image.

    Returns:
        log_px and kl in nats, shape [N], float64, on the CPU.
    """
    found: list[Tensor] = []
    with evaluating(vae):
        for part in images.split(max(1, batch_size(vae) // mc_samples)):
            shape = (mc_samples, vae.config.latent_dims)
            eps = [torch.randn(shape, generator=own_noise(image, seed)) for image in part]
            x = to_unit(part.to(vae.device))
            terms = elbo(vae, x, torch.stack(eps, 1).to(vae.device))
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
    draws = min(samples, DRAWS, batch_size(vae))
    batch = max(1, batch_size(vae) // draws)
    bounds: list[Tensor] = []
    with evaluating(vae):
        for part in images.split(batch):
            x = to_unit(part.to(vae.device))
            q, sources = vae.encode(x), [own_noise(image, seed) for image in part]
            total = torch.full((len(part),), -math.inf, dtype=torch.float64)
            for done in range(0, samples, draws):
                shape = (min(draws, samples - done), vae.config.latent_dims)
                eps = torch.stack([torch.randn(shape, generator=own) for own in sources], 1)
                weights = log_weights(vae, x, q, eps.to(vae.device))
                total = torch.logaddexp(total, weights.cpu().double().logsumexp(0))
            bounds.append(total - math.log(samples))
            progress(len(part))
    return torch.cat(bounds)


def own_noise(image: Tensor, seed: int) -> torch.Generator:
    """A generator that is a function of an image's pixels and a seed."""
    return runtime.generator(seed, "evaluate", zlib.crc32(image.cpu().numpy().tobytes()))


def reconstruct(vae: VAE, images: Tensor) -> Tensor:
    """Means of p(x|z) at the location of q(z|x): deterministic.

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].

    Returns:
        float32 in [0, 1], shape [N, C, H, W], on the CPU.
    """
    with evaluating(vae):
        parts = (to_unit(part.to(vae.device)) for part in images.split(batch_size(vae)))
        return torch.cat([vae.decode(vae.encode(x).location).mean.cpu() for x in parts])


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
        parts = z.split(batch_size(vae))
        return torch.cat([vae.decode(part.to(vae.device)).mean.cpu() for part in parts])


def latents(
    vae: VAE, images: Tensor, visit: Callable[[Posterior], None] = lambda _: None
) -> tuple[Tensor, Tensor | None]:
    """The locations of images' posteriors (means, if Gaussian), and the mean KL of each latent.

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        visit: Called with the posterior of every `batch_size(vae)` images, in their order.

    Returns:
        mu, shape [N, D], float32, and the KL in nats, shape [D], float64, on the CPU; no KL where
        it is not a sum over the latents: for a full covariance or a learned prior.
    """
    locations: list[Tensor] = []
    kl = torch.zeros(vae.config.latent_dims, dtype=torch.float64)
    splits = vae.config.posterior == "diagonal" and isinstance(vae.prior, StandardNormal)
    with evaluating(vae):
        for part in images.split(batch_size(vae)):
            q = vae.encode(to_unit(part.to(vae.device)))
            locations.append(q.location.cpu())
            visit(q)
            if isinstance(q, DiagonalGaussian) and isinstance(vae.prior, StandardNormal):
                kl += kl_per_latent(q, vae.prior).cpu().double().sum(0)
    return torch.cat(locations), kl / len(images) if splits else None


class Estimate(NamedTuple):
    """A mean over images and its standard error."""

    mean: float
    standard_error: float | None
    """Standard deviation over images / sqrt(N); None of a single image."""

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The estimate from a value an image, shape [N]."""
        error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(float(values.mean()), error)


class Undefined(NamedTuple):
    """Stands where a number would be, had it a meaning."""

    not_defined: str
    """Why it has none."""


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
    latents: int
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


def evaluation(
    vae: VAE,
    images: Tensor,
    *,
    seed: int,
    mc_samples: int = 1,
    samples: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Evaluate a model on images.

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        seed: Of all noise.
        mc_samples: Draws of z an image for the evidence lower bound.
        samples: Draws K of z an image for the importance-weighted bound; 0 leaves it out.
        progress: Called with the number of images that the latter has done since the last call.

    Source: active units from Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519
    """
    terms = image_terms(vae, images, seed=seed, mc_samples=mc_samples)
    mu, kl = latents(vae, images)
    weighted = None
    if samples:
        weighted = Estimate.of(
            importance_bounds(vae, images, samples=samples, seed=seed, progress=progress)
        )
    errors, similarities = reconstruction_scores(vae, images)
    bound = Estimate.of(terms.bound)
    tightest = (weighted or bound).mean
    name = vae.config.likelihood
    is_mass = name.startswith("discretized") or (name == "bernoulli" and is_binary(images))
    error = float(errors.mean())
    return Evaluation(
        bound=bound,
        log_px=Estimate.of(terms.log_px),
        kl=Estimate.of(terms.kl),
        importance_weighted=weighted,
        samples=samples,
        bits_per_dim=-tightest / (vae.config.pixels * math.log(2)) if is_mass else None,
        kl_per_latent=None if kl is None else kl.tolist(),
        latents=mu.shape[1],
        active_units=int((mu.var(0) > ACTIVE).sum()) if len(images) > 1 else 0,
        squared_error=Estimate.of(errors),
        psnr=-10 * math.log10(error) if error else None,
        ssim=similarities if isinstance(similarities, Undefined) else Estimate.of(similarities),
    )


def reconstruction_scores(vae: VAE, images: Tensor) -> tuple[Tensor, Tensor | Undefined]:
    """How near images are to their reconstructions from the posterior's location.

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].

    Returns:
        The mean squared error of a value, and the structural similarity, each shape [N], float64;
        the latter is not defined for images smaller than its window.
    """
    height, width = images.shape[-2:]
    errors: list[Tensor] = []
    similarities: list[Tensor] = []
    for part in images.split(batch_size(vae)):
        x, mean = to_unit(part), reconstruct(vae, part)
        errors.append((mean - x).square().flatten(1).mean(1).double())
        if min(height, width) >= WINDOW:
            similarities.append(ssim(x, mean))
    if not similarities:
        reason = f"images of {height}x{width} are smaller than its {WINDOW}x{WINDOW} window"
        return torch.cat(errors), Undefined(reason)
    return torch.cat(errors), torch.cat(similarities)


def is_binary(images: Tensor) -> bool:
    """Whether every value is 0 or 255."""
    return all(bool(((part == 0) | (part == 255)).all()) for part in images.split(BATCH))
