"""What a model says of pixels that are missing, or under noise: draws of p(x_missing | x_observed).

Missing pixels are drawn by Metropolis-within-Gibbs, whose equilibrium is exact however rough q(z|x)
is; clean images under noise by self-normalised importance sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from convvae import runtime
from convvae.data.pixels import to_unit
from convvae.distributions import Likelihood
from convvae.distributions.gaussian import gaussian_log_density
from convvae.evaluation.encode import batch_size, evaluating, own_noise
from convvae.model.vae import VAE

WARM_UP = 20
"""Steps in which every z is accepted and means are put in: they bring an image near its own."""


class State(NamedTuple):
    """A step of the chains of B images."""

    x: Tensor
    """Images whose missing values are drawn from p(x|z), shape [B, C, H, W]."""
    mean: Tensor
    """The same with E[x|z] in their place."""
    accepted: Tensor
    """Whether the proposed z was taken, bool [B]."""


class Imputation(NamedTuple):
    """What was put in the place of missing pixels of N images, float32, on the CPU."""

    completions: Tensor
    """K images each: observed pixels as they are, E[x|z] of a last z elsewhere, [K, N, C, H, W]."""
    mean: Tensor
    """E[x_missing | x_observed] there, averaged over chains and the later half of their steps."""
    spread: Tensor
    """Standard deviation of a missing value given the observed ones, 0 elsewhere, [N, C, H, W]."""
    accepted: float
    """Share of the proposals that were taken."""


def chains(
    vae: VAE,
    x: Tensor,
    observed: Tensor,
    steps: int,
    generator: torch.Generator,
    *,
    zeros: bool = False,
) -> Iterator[State]:
    r"""Draws of p(z, x_m | x_o) by Metropolis-within-Gibbs, a chain for each image.

    A step proposes z' ~ q(z|x), takes it with probability

        min(1, p(x|z') p(z') q(z|x) / (p(x|z) p(z) q(z'|x)))

    and draws x_m ~ p(x_m|z). `WARM_UP` steps of pseudo-Gibbs sampling come first. A model that has
    learnt from images of which pixels are missing knows q(z|x_o) instead: with `zeros` that
    proposes, and p(x_o|z) takes the place of p(x|z).

    Args:
        vae: The model, in evaluation mode.
        x: Images, shape [B, C, H, W]; what their missing values are does not matter.
        observed: bool, of a shape that broadcasts to that of x.
        steps: How many.
        generator: Of all draws.
        zeros: Whether the encoder sees 0 in the place of what is missing, as in such a training.

    Source: Mattei & Frellsen 2018, algorithm 2, https://arxiv.org/abs/1802.04826
    """
    level = (x * observed).sum((1, 2, 3), keepdim=True)
    level = level / observed.expand_as(x).sum((1, 2, 3), keepdim=True).clamp_min(1)
    x = torch.where(observed, x, 0.0 if zeros else level)
    vae = vae.observing(observed) if zeros else vae
    q = vae.encode(x)
    z = q.location
    p = vae.decode(z)
    for _ in range(WARM_UP):
        q = q if zeros else vae.encode(x)
        z = q.rsample(_normal(z, generator))
        p = vae.decode(z)
        x = torch.where(observed, x, p.mean.to(x.dtype))
    x = torch.where(observed, x, _draw(p, x, generator))
    for _ in range(steps):
        q = q if zeros else vae.encode(x)
        proposed = q.rsample(_normal(z, generator))
        new = _log_target(vae, vae.decode(proposed), x, proposed) - q.log_prob(proposed)
        old = _log_target(vae, p, x, z) - q.log_prob(z)
        uniform = torch.rand(len(x), generator=generator, dtype=torch.double)
        accepted = uniform.log().to(x.device) < (new - old)
        z = torch.where(accepted.unsqueeze(1), proposed, z)
        p = vae.decode(z)
        x = torch.where(observed, x, _draw(p, x, generator))
        yield State(x, torch.where(observed, x, p.mean.to(x.dtype)), accepted)


def _log_target(vae: VAE, p: Likelihood, x: Tensor, z: Tensor) -> Tensor:
    return (vae.log_px(p, x) + vae.prior.log_prob(z)).double()


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


def _draw(p: Likelihood, like: Tensor, generator: torch.Generator) -> Tensor:
    return p.sample(generator).to(like)


def check_parts(vae: VAE) -> None:
    """Check that pixels of a model are independent given z, so that some can be left out.

    Raises:
        ConfigError: its likelihood scores whole images only.
    """
    channels, size = vae.config.channels, vae.config.image_size
    output = torch.zeros(1, vae.head.channels(channels), *size, device=vae.device)
    with evaluating(vae):
        vae.head(output).log_probs(torch.zeros(1, channels, *size, device=vae.device))


def impute(
    vae: VAE,
    images: Tensor,
    observed: Tensor,
    *,
    completions: int,
    steps: int,
    seed: int,
    zeros: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Imputation:
    """Complete images whose pixels are missing in part.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        observed: bool [N, 1, H, W].
        completions: Chains K per image, each of which gives a completion.
        steps: Of every chain; the mean and the spread are of the later half.
        seed: Of all draws.
        zeros: As of `chains`: for a model that was trained on images with missing pixels.
        progress: Called with the number of images done since the last call.

    Raises:
        ConfigError: the pixels of the model's likelihood depend on each other given z.
    """
    check_parts(vae)
    parts: list[tuple[Tensor, Tensor, Tensor, float]] = []
    size = max(1, batch_size(vae) // completions)
    for place, (part, seen) in enumerate(
        zip(images.split(size), observed.split(size), strict=True)
    ):
        generator = runtime.generator(seed, "impute", place)
        with evaluating(vae):
            x = to_unit(part.to(vae.device)).repeat(completions, 1, 1, 1)
            there = seen.to(vae.device).repeat(completions, 1, 1, 1)
            states = chains(vae, x, there, steps, generator, zeros=zeros)
            parts.append(_of_chains(states, x, seen, completions, steps))
        progress(len(part))
    accepted = sum(part[3] * len(part[1]) for part in parts) / len(images)
    return Imputation(
        torch.cat([part[0] for part in parts], 1),
        torch.cat([part[1] for part in parts]),
        torch.cat([part[2] for part in parts]),
        accepted,
    )


def _of_chains(
    states: Iterator[State], x: Tensor, observed: Tensor, completions: int, steps: int
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Completions, mean, spread and accepted share of images, by the chains of all of them."""
    shape = (completions, len(observed), *x.shape[1:])
    mean, taken, kept = x, 0.0, 0
    means, draws, squares = torch.zeros((3, *x.shape), device=x.device)
    for step, state in enumerate(states):
        mean, taken = state.mean, taken + float(state.accepted.float().mean())
        if step >= steps // 2:
            kept += 1
            means, draws = means + state.mean, draws + state.x
            squares = squares + state.x.square()
    average, first, second = (
        (found.view(shape).mean(0) / kept).cpu() for found in (means, draws, squares)
    )
    variance = second - first.square()
    spread = torch.where(observed, 0.0, variance.clamp_min(0).sqrt())
    return mean.view(shape).cpu(), average, spread, taken / steps


class Denoised(NamedTuple):
    """What noisy images are without their noise, float32 [N, C, H, W], on the CPU."""

    mean: Tensor
    """E[m | y] of the mean m = E[x|z] of a clean image."""
    spread: Tensor
    """Standard deviation of m given y."""
    effective: Tensor
    """Draws of z that carry the weight, 1 / sum of w^2 of those that sum to 1: shape [N]."""


def denoise(
    vae: VAE,
    images: Tensor,
    *,
    noise: float,
    samples: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Denoised:
    r"""Means of p(x|z) averaged over p(z|y) ~ N(y; E[x|z], noise^2) p(z), y the noisy image.

    By K draws of q(z|y), which the weights N(y; E[x|z], noise^2) p(z) / q(z|y) make right.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        noise: Standard deviation of the noise of a value, in units of intensity.
        samples: Draws K of z per image.
        seed: Of the draws.
        progress: Called with the number of images done since the last call.
    """
    parts: list[Denoised] = []
    for part in images.split(max(1, batch_size(vae) // samples)):
        with evaluating(vae):
            y, eps = to_unit(part.to(vae.device)), own_noise(vae, part, seed)(samples)
            parts.append(Denoised(*(value.cpu() for value in denoise_batch(vae, y, eps, noise))))
        progress(len(part))
    return Denoised(*(torch.cat(column) for column in zip(*parts, strict=True)))


def denoise_batch(vae: VAE, y: Tensor, eps: Tensor, noise: float) -> Denoised:
    """The same of images y [B, C, H, W] in [0, 1], by noise eps [K, B, D]."""
    q = vae.encode(y)
    z = q.rsample(eps)
    means = vae.decode(z).mean
    square = ((y - means) / noise).square()
    log_py = gaussian_log_density(square, 2 * math.log(noise)).sum((-3, -2, -1))
    weights = (log_py + vae.prior.log_prob(z) - q.log_prob(z)).softmax(0)
    share = weights[..., None, None, None]
    mean = (share * means).sum(0)
    spread = (share * (means - mean).square()).sum(0).sqrt()
    return Denoised(mean, spread, 1 / weights.square().sum(0))
