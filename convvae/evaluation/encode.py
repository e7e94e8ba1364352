"""Images through a model in batches: encode, decode, and the numbers of every single image.

Always in evaluation mode, without gradients; no result depends on the size of the batches but by
rounding, and only the numbers are kept. The loop over batches of posteriors is `map_posteriors`,
that over batches of decoded latents is `decoded_batches`; all others are made of these two. A model
that is given the label of each image (`VAE.given`) goes through them by `each_part`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from convvae import data, runtime
from convvae.data.pixels import binarize, binarize_generator, pass_over, to_unit
from convvae.distributions import (
    DiagonalGaussian,
    FullGaussian,
    Posterior,
    StandardNormal,
    kl_per_latent,
)
from convvae.model.conditions import with_labels
from convvae.model.ladder import LadderPosterior
from convvae.model.objectives import draw
from convvae.model.vae import VAE

BATCH = 250
"""Images encoded or decoded at a time, at most: no result depends on it but by rounding."""
BATCH_PIXELS = BATCH * 64 * 64
"""Pixels of those images, at most: large images come in fewer, so that memory does not grow."""

FLOW_DRAWS = 100
"""Draws of z per image for the variance of a posterior that has no closed form."""

T = TypeVar("T")


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


def each_part(vae: VAE, batches: Iterable[Tensor]) -> Iterator[tuple[VAE, Tensor]]:
    """Batches in their order, each with the model that is given the labels of its images."""
    done = 0
    for part in batches:
        rows = slice(done, done + len(part))
        yield vae.at(rows), part
        done = rows.stop


def map_posteriors(
    vae: VAE, batches: Iterable[Tensor], read: Callable[[Posterior], T]
) -> Iterator[T]:
    """What a function makes of the posteriors of images, batch by batch and in their order.

    Args:
        vae: The model.
        batches: uint8, shape [B, C, H, W] each.
        read: Called with q(z|x) of every batch, in evaluation mode and without gradients.
    """
    for model, images in each_part(vae, batches):
        with evaluating(model):
            found = read(model.encode(to_unit(images.to(model.device))))
        yield found


def decoded_batches(vae: VAE, z: Tensor) -> Iterator[Tensor]:
    """Means of p(x|z) of latents [N, D], `batch_size(vae)` at a time and in their order.

    Yields:
        float32 in [0, 1], shape [B, C, H, W], on the device of the model.
    """
    for model, part in each_part(vae, z.float().split(batch_size(vae))):
        with evaluating(model):
            images = model.decode(part.to(model.device)).mean
        yield images


def mean_per_image(values: Tensor, observed: Tensor | None) -> Tensor:
    """Means over the values of each image, of its observed pixels where some are missing: [B].

    Args:
        values: Shape [B, C, H, W].
        observed: bool, shape [B, 1, H, W]; None where all are.
    """
    if observed is None:
        return values.flatten(1).mean(1)
    there = observed.to(values.device).expand_as(values)
    return torch.where(there, values, 0.0).flatten(1).sum(1) / there.flatten(1).sum(1)


def own_noise(vae: VAE, images: Tensor, seed: int) -> Callable[[int], Tensor]:
    """Noise that is a function of each image's pixels and a seed, whatever its company.

    Args:
        vae: The model that it is for.
        images: uint8, shape [B, C, H, W].
        seed: Of the noise.

    Returns:
        A function of a number K: the next K standard normal draws of each image, [K, B, D], on
        the device of the model.
    """
    sources = [
        runtime.generator(seed, "evaluate", zlib.crc32(image.cpu().numpy().tobytes()))
        for image in images
    ]

    def noise(count: int) -> Tensor:
        shape = (count, vae.config.latent_dims)
        return torch.stack([torch.randn(shape, generator=own) for own in sources], 1).to(vae.device)

    return noise


def generate(vae: VAE, count: int, *, seed: int) -> Tensor:
    """Means of p(x|z) at draws z from the prior.

    Args:
        vae: The model; a conditional one that is given no label has those drawn from p(y).
        count: Number of images N.
        seed: Of the draws.

    Returns:
        float32 in [0, 1], shape [N, C, H, W], on the CPU.
    """
    vae = with_labels(vae, count, seed=seed)
    return decode(vae, sample_prior(vae, count, runtime.generator(seed, "generate")))


def sample_prior(vae: VAE, count: int, generator: torch.Generator) -> Tensor:
    """Draws z of the prior, shape [count, D], on the CPU.

    Args:
        vae: The model; where it is given labels, one for each draw, or one for all.
        count: How many.
        generator: Of the draws.
    """
    if vae.y is None or len(vae.y) == 1:
        return vae.prior.sample(count, generator)
    parts = each_part(vae, torch.arange(count).split(batch_size(vae)))
    return torch.cat([model.prior.sample(len(part), generator) for model, part in parts])


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
    kl = torch.zeros(vae.config.latent_dims, dtype=torch.float64)
    splits = vae.config.posterior == "diagonal" and isinstance(vae.prior, StandardNormal)

    def location(q: Posterior) -> Tensor:
        visit(q)
        if isinstance(q, DiagonalGaussian) and isinstance(vae.prior, StandardNormal):
            kl.add_(kl_per_latent(q, vae.prior).cpu().double().sum(0))
        return q.location[:, : vae.config.outline].cpu()

    found = torch.cat([*map_posteriors(vae, images.split(batch_size(vae)), location)])
    return found, kl / len(images) if splits else None


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
    """Mean over the values of (x - E[x|z = mu])^2 in [0, 1], of the observed ones where some are
    missing: shape [N], float64."""

    @classmethod
    def cat(cls, parts: list[Encodings]) -> Encodings:
        """The numbers of all parts, in order."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))


def encode(vae: VAE, images: Tensor, *, seed: int) -> Encodings:
    """The numbers of images: one pass of the encoder, two of the decoder.

    The noise is that of `bounds.image_terms`: a function of the seed and of the image.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W], of the model's size.
        seed: Of the draw of z.
    """
    parts = each_part(vae, images.split(batch_size(vae)))
    return Encodings.cat([_encode_batch(model, part, seed) for model, part in parts])


def _encode_batch(vae: VAE, images: Tensor, seed: int) -> Encodings:
    noise = own_noise(vae, images, seed)
    with evaluating(vae):
        x = to_unit(images.to(vae.device))
        draws = draw(vae, x, noise(1))
        mu = draws.q.location
        errors = mean_per_image((vae.decode(mu).mean - x).square(), vae.observed)
        outline = vae.config.outline
        return Encodings(
            mu[:, :outline].cpu(),
            marginal_logvar(draws.q, noise)[:, :outline].cpu(),
            draws.terms.bound.cpu().double(),
            draws.kl.cpu().double(),
            errors.cpu().double(),
        )


def stream_encodings(
    vae: VAE,
    source: data.Images,
    *,
    seed: int,
    binarize_seed: int | None = None,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Encodings]:
    """The numbers of a set, batch by batch and in its order; memory does not grow with the set.

    Args:
        vae: The model.
        source: The images, of any size.
        seed: Of the draws of z.
        binarize_seed: Of the black or white pixels of a model of such images, else None.
        start: The place of the first image.
        stop: The place behind the last; absent, they go on to the end.
        progress: Called with the number of images done since the last call.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    parts = batches(vae, source, binarize_seed, start, stop)
    for model, images in each_part(vae.at(slice(start, stop)), parts):
        yield encode(model, images, seed=seed)
        progress(len(images))


def stream_posterior_means(
    vae: VAE,
    source: data.Images,
    *,
    binarize_seed: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Tensor]:
    """The `mu` of `stream_encodings` alone, float32 [B, D]: the encoder alone.

    Args:
        vae: The model.
        source: The images, of any size.
        binarize_seed: Of the black or white pixels of a model of such images, else None.
        progress: Called with the number of images done since the last call.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    outline = vae.config.outline
    images = batches(vae, source, binarize_seed)
    for mu in map_posteriors(vae, images, lambda q: q.location[:, :outline].cpu()):
        yield mu
        progress(len(mu))


def batches(
    vae: VAE,
    source: data.Images,
    binarize_seed: int | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Tensor]:
    """The images of a set as the model takes them, uint8 [B, C, H, W], a batch at a time.

    The black or white pixels of a split are those of `binarize_once`, whichever are taken.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    config = vae.config
    draws: dict[data.Split, torch.Generator] = {}
    for split, part in source.batches(batch_size(vae), start, stop):
        some = data.ImageSet(part, None, source.name, split)
        images = data.fit(some, config.image_size, config.channels)
        if binarize_seed is None:
            yield images
            continue
        if split not in draws:
            draws[split] = binarize_generator(split, binarize_seed)
            shape = (config.channels, *config.image_size)
            pass_over(shape, source.splits[:start].count(split), draws[split])
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
    parts = decoded_batches(vae, z.reshape(-1, z.shape[-1]))
    images = torch.cat([part.cpu() for part in parts])
    return images.reshape(*z.shape[:-1], *images.shape[1:])
