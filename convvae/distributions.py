"""The probability in a VAE: posteriors q(z|x), priors p(z), likelihoods p(x|z), and KL(q || p).

In the style of `torch.distributions`, and always reduced to one number an image: `log_prob` sums
over the latents or over the pixels, in nats. Random draws take their standard normal noise as an
argument, so that everything here is a pure function.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_2PI = math.log(2 * math.pi)


class DiagonalGaussian:
    r"""Posterior q(z|x) = N(z; mu, diag exp(logvar)).

    Arguments:
        mu: Means, shape [B, D].
        logvar: Logarithms of the variances, shape [B, D].

    Source: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
    """

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        self.mu = mu
        self.logvar = logvar

    @property
    def mean(self) -> Tensor:
        """E[z], shape [B, D]."""
        return self.mu

    def rsample(self, eps: Tensor) -> Tensor:
        r"""Reparameterised draws z = mu + sigma eps with sigma = exp(logvar / 2).

        Arguments:
            eps: Standard normal noise, shape [..., B, D].

        Returns:
            z, shape [..., B, D].
        """
        return self.mu + torch.exp(0.5 * self.logvar) * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, shape [..., B] for z of shape [..., B, D]."""
        square = (z - self.mu) ** 2 * torch.exp(-self.logvar)
        return -0.5 * (LOG_2PI + self.logvar + square).sum(-1)


class StandardNormal(nn.Module):
    r"""Prior p(z) = N(z; 0, I) over D latents."""

    def __init__(self, latent_dims: int) -> None:
        super().__init__()
        self.latent_dims = latent_dims

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z of shape [count, D] on the CPU, from `generator` or torch's global one."""
        return torch.randn(count, self.latent_dims, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, shape [...] for z of shape [..., D]."""
        return -0.5 * (LOG_2PI + z**2).sum(-1)


def kl_per_latent(q: DiagonalGaussian, p: StandardNormal) -> Tensor:
    r"""The KL of each latent, -1/2 (1 + logvar - mu^2 - exp(logvar)), exactly.

    Returns:
        Nats, shape [B, D].

    Source: Kingma & Welling 2014, appendix B, https://arxiv.org/abs/1312.6114
    """
    assert q.mu.shape[-1] == p.latent_dims
    return -0.5 * (1 + q.logvar - q.mu**2 - torch.exp(q.logvar))


def kl_divergence(q: DiagonalGaussian, p: StandardNormal) -> Tensor:
    r"""KL(q || p), the sum over the latents, exactly.

    Returns:
        Nats an image, shape [B].
    """
    return kl_per_latent(q, p).sum(-1)


class Likelihood(ABC):
    """A distribution p(x|z) over images x of shape [..., C, H, W]."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E[x|z] in [0, 1], shape [..., C, H, W]."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over C, H, W: shape [...]."""


class Bernoulli(Likelihood):
    r"""p(x|z) = prod m^x (1 - m)^(1 - x) with m = sigmoid(logits).

    Normalised over binary x. For grey x in (0, 1) the same expression is the expected log-
    probability of the image binarised at random with probabilities x: a cross-entropy, not a
    density, and not to be compared with one.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def mean(self) -> Tensor:
        """E[x|z] = sigmoid(logits), shape [..., C, H, W]."""
        return torch.sigmoid(self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, shape [...]."""
        logits, x = torch.broadcast_tensors(self.logits, x)
        nats = -F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        return nats.sum((-3, -2, -1))


class Gaussian(Likelihood):
    r"""p(x|z) = prod N(x; m, variance), one fixed variance for all pixels.

    With variance 1/2 its negative logarithm is the squared error plus n/2 log(pi) for n pixels.

    Arguments:
        mean: The means m, shape [..., C, H, W].
        variance: The variance of a pixel, in units of squared intensity.
    """

    def __init__(self, mean: Tensor, variance: float) -> None:
        self._mean = mean
        self.variance = variance

    @property
    def mean(self) -> Tensor:
        """E[x|z] = m, shape [..., C, H, W]."""
        return self._mean

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, shape [...]."""
        squared_error = ((x - self._mean) ** 2).sum((-3, -2, -1))
        pixels = math.prod(self._mean.shape[-3:])
        return gaussian_log_prob(squared_error, pixels, self.variance)


def gaussian_log_prob(squared_error: Tensor, pixels: int, variance: float) -> Tensor:
    """log N of `pixels` values at that summed squared error: -SSE/(2v) - n/2 log(2 pi v), nats."""
    return -squared_error / (2 * variance) - 0.5 * pixels * (LOG_2PI + math.log(variance))


def gaussian_squared_error(log_px: float, pixels: int, variance: float) -> float:
    """The summed squared error SSE behind a log-probability: inverse of `gaussian_log_prob`."""
    return -2 * variance * (log_px + 0.5 * pixels * (LOG_2PI + math.log(variance)))


def likelihood(name: str, output: Tensor, variance: float) -> Likelihood:
    """The likelihood called `name` around a decoder's raw output, shape [..., C, H, W].

    Both keep the mean in (0, 1) by a sigmoid.
    """
    match name:
        case "bernoulli":
            return Bernoulli(logits=output)
        case "gaussian":
            return Gaussian(mean=torch.sigmoid(output), variance=variance)
        case _:
            raise KeyError(name)
