"""Images through a model in batches: encode, decode, and the numbers of every single image.

Always in evaluation mode, without gradients; no result depends on the size of the batches but by
rounding, and only the numbers are kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from convvae import data, runtime
from convvae.data.pixels import binarize, binarize_generator, to_unit
from convvae.distributions import (
    DiagonalGaussian,
    FullGaussian,
    Posterior,
    StandardNormal,
    kl_per_latent,
)
from convvae.model.ladder import LadderPosterior
from convvae.model.objectives import draw
from convvae.model.vae import VAE

BATCH = 250
"""Images encoded or decoded at a time, at most: no result depends on it but by rounding."""
BATCH_PIXELS = BATCH * 64 * 64
"""Pixels of those images, at most: large images come in fewer, so that memory does not grow."""

FLOW_DRAWS = 100
"""Draws of z per image for the variance of a posterior that has no closed form."""


def batch_size(vae: VAE) -> int:
    """Images of a model to encode or decode at a time."""
    height, width = vae.config.image_size
    return max(1, min(BATCH, BATCH_PIXELS // (height * width)))


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


def own_noise(image: Tensor, seed: int) -> torch.Generator:
    """A generator that is a function of an image's pixels and a seed."""
    return runtime.generator(seed, "evaluate", zlib.crc32(image.cpu().numpy().tobytes()))


def generate(vae: VAE, count: int, *, seed: int) -> Tensor:
    """Means of p(x|z) at draws z from the prior.

    Args:
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


def posterior_means(
    vae: VAE, images: Tensor, visit: Callable[[Posterior], None] = lambda _: None
) -> tuple[Tensor, Tensor | None]:
    """The locations of images' posteriors (means, if Gaussian), and the mean KL of each latent.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        visit: Called with the posterior of every `batch_size(vae)` images, in their order.

    Returns:
        mu, shape [N, D], float32 (of a ladder, those of its outline), and the KL in nats, shape
        [D], float64, on the CPU; no KL where it is not a sum over the latents: for a full
        covariance, a learned prior or a ladder.
    """
    locations: list[Tensor] = []
    kl = torch.zeros(vae.config.latent_dims, dtype=torch.float64)
    splits = vae.config.posterior == "diagonal" and isinstance(vae.prior, StandardNormal)
    with evaluating(vae):
        for part in images.split(batch_size(vae)):
            q = vae.encode(to_unit(part.to(vae.device)))
            locations.append(q.location[:, : vae.config.outline].cpu())
            visit(q)
            if isinstance(q, DiagonalGaussian) and isinstance(vae.prior, StandardNormal):
                kl += kl_per_latent(q, vae.prior).cpu().double().sum(0)
    return torch.cat(locations), kl / len(images) if splits else None


class Encodings(NamedTuple):
    """Numbers of N images, on the CPU."""

    mu: Tensor
    """Location of q(z|x), shape [N, D], float32: its mean, or f(mu) of a flow; of a ladder, the
    means of its outline."""
    logvar: Tensor
    """Logarithm of the variance of each latent under q(z|x), shape [N, D], float32."""
    bound: Tensor
    """Evidence lower bound by one draw of z, nats, shape [N], float64."""
    kl: Tensor
    """KL(q(z|x) || p(z)), nats, shape [N], float64."""
    squared_error: Tensor
    """Mean over the values of (x - E[x|z = mu])^2 in [0, 1], shape [N], float64."""

    @classmethod
    def cat(cls, parts: list[Encodings]) -> Encodings:
        """The numbers of all parts, in order."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))


def encode(vae: VAE, images: Tensor, *, seed: int) -> Encodings:
    """The numbers of at most a few hundred images: one pass of the encoder, two of the decoder.

    The noise is that of `bounds.image_terms`: a function of the seed and of the image.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W], of the model's size.
        seed: Of the draw of z.
    """
    sources, dims = [own_noise(image, seed) for image in images], vae.config.latent_dims

    def noise(count: int) -> Tensor:
        eps = [torch.randn(count, dims, generator=own) for own in sources]
        return torch.stack(eps, 1).to(vae.device)

    with evaluating(vae):
        x = to_unit(images.to(vae.device))
        draws = draw(vae, x, noise(1))
        mu = draws.q.location
        errors = (vae.decode(mu).mean - x).square().flatten(1).mean(1)
        outline = vae.config.outline
        return Encodings(
            mu[:, :outline].cpu(),
            marginal_logvar(draws.q, noise)[:, :outline].cpu(),
            draws.terms.bound.cpu().double(),
            draws.kl.cpu().double(),
            errors.cpu().double(),
        )


def encode_all(
    vae: VAE,
    source: data.Images,
    *,
    seed: int,
    binarize_seed: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Encodings]:
    """The numbers of a set, batch by batch and in its order; memory does not grow with the set.

    Args:
        vae: The model.
        source: The images, of any size.
        seed: Of the draws of z.
        binarize_seed: Of the black or white pixels of a model of such images, else None.
        progress: Called with the number of images done since the last call.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    for images in batches(vae, source, binarize_seed):
        yield encode(vae, images, seed=seed)
        progress(len(images))


def stream_posterior_means(
    vae: VAE,
    source: data.Images,
    *,
    binarize_seed: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Tensor]:
    """The `mu` of `encode_all` alone, float32 [B, D]: one pass of the encoder, none of the decoder.

    Args:
        vae: The model.
        source: The images, of any size.
        binarize_seed: Of the black or white pixels of a model of such images, else None.
        progress: Called with the number of images done since the last call.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    for images in batches(vae, source, binarize_seed):
        with evaluating(vae):
            mu = vae.encode(to_unit(images.to(vae.device))).location
        yield mu[:, : vae.config.outline].cpu()
        progress(len(images))


def batches(vae: VAE, source: data.Images, binarize_seed: int | None = None) -> Iterator[Tensor]:
    """The images of a set as the model takes them, uint8 [B, C, H, W], a batch at a time.

    The black or white pixels of a split are those of `binarize_once`, however many are taken.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    config = vae.config
    draws: dict[data.Split, torch.Generator] = {}
    for split, part in source.batches(batch_size(vae)):
        some = data.ImageSet(part, None, source.name, split)
        images = data.fit(some, config.image_size, config.channels)
        if binarize_seed is None:
            yield images
            continue
        if split not in draws:
            draws[split] = binarize_generator(split, binarize_seed)
        yield binarize(images, draws[split])


def marginal_logvar(q: Posterior, noise: Callable[[int], Tensor]) -> Tensor:
    """Logarithm of each latent's variance under a posterior, shape [B, D].

    Of a full covariance L L^T it is log sum_j L_dj^2; of a flow, that of its draws; of a ladder,
    that of each group given the means above it.

    Args:
        q: The posterior.
        noise: Gives so many standard normal draws per image, shape [K, B, D].
    """
    match q:
        case DiagonalGaussian():
            return q.logvar
        case FullGaussian():
            return q.scale_tril.square().sum(-1).log()
        case LadderPosterior():
            return q.path()[1]
        case _:
            return q.rsample(noise(FLOW_DRAWS)).var(0).log()


def decode(vae: VAE, z: Tensor) -> Tensor:
    """Means of p(x|z): float32 in [0, 1], shape [..., C, H, W], on the CPU, for z [..., D]."""
    with evaluating(vae):
        flat = z.reshape(-1, z.shape[-1]).float().split(batch_size(vae))
        images = torch.cat([vae.decode(part.to(vae.device)).mean.cpu() for part in flat])
    return images.reshape(*z.shape[:-1], *images.shape[1:])
