"""Posteriors q(z|x), and their divergence from a prior."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from convvae.distributions import display
from convvae.distributions.gaussian import gaussian_log_density


class Posterior(ABC):
    """A distribution q(z|x) over z of shape [..., B, D]."""

    @property
    @abstractmethod
    def location(self) -> Tensor:
        """The latent that stands for an image, shape [B, D].

        E[z] where q is a Gaussian. A flow's mean has no closed form: there it is f(mu), the image
        of its Gaussian's mean, which is not E[z].
        """

    @abstractmethod
    def rsample(self, eps: Tensor) -> Tensor:
        """Reparameterised draws z, shape [..., B, D], from standard normal noise of that shape."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, shape [..., B] for z of shape [..., B, D]."""

    def __repr__(self) -> str:
        images, latents = self.location.shape
        return f"{type(self).__name__}(q(z|x) of {images} images, {latents} latents)"


class DiagonalGaussian(Posterior):
    r"""Posterior q(z|x) = N(z; mu, diag exp(logvar)).

    Args:
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

    @property
    def location(self) -> Tensor:
        """E[z], shape [B, D]."""
        return self.mu

    def rsample(self, eps: Tensor) -> Tensor:
        r"""Reparameterised draws z = mu + sigma eps with sigma = exp(logvar / 2).

        Args:
            eps: Standard normal noise, shape [..., B, D].

        Returns:
            z, shape [..., B, D].
        """
        return self.mu + torch.exp(0.5 * self.logvar) * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, shape [..., B] for z of shape [..., B, D]."""
        square = (z - self.mu) ** 2 * torch.exp(-self.logvar)
        return gaussian_log_density(square, self.logvar).sum(-1)

    def detach(self) -> DiagonalGaussian:
        """The same distribution, its parameters constants."""
        return DiagonalGaussian(self.mu.detach(), self.logvar.detach())

    def _repr_html_(self) -> str:
        return display.table("Posterior q(z|x)", self.mu, torch.exp(0.5 * self.logvar))


class FullGaussian(Posterior):
    r"""Posterior q(z|x) = N(z; mu, L L^T), L = (I + N) diag exp(logvar / 2), N strictly lower.

    The logarithm of its density needs no inverse: a triangular solve, and the sum of logvar.

    Args:
        mu: Means, shape [B, D].
        logvar: Logarithms of the squared diagonal of L, shape [B, D].
        lower: The entries of N below the diagonal, row by row, shape [B, D (D - 1) / 2].
    """

    def __init__(self, mu: Tensor, logvar: Tensor, lower: Tensor) -> None:
        self.mu = mu
        self.logvar = logvar
        self.lower = lower

    @property
    def mean(self) -> Tensor:
        """E[z], shape [B, D]."""
        return self.mu

    @property
    def location(self) -> Tensor:
        """E[z], shape [B, D]."""
        return self.mu

    @property
    def scale_tril(self) -> Tensor:
        """L, shape [B, D, D]."""
        batch, dims = self.mu.shape
        rows, columns = torch.tril_indices(dims, dims, -1, device=self.mu.device)
        unit = torch.eye(dims, device=self.mu.device, dtype=self.mu.dtype).repeat(batch, 1, 1)
        unit[:, rows, columns] = self.lower
        return unit * torch.exp(0.5 * self.logvar).unsqueeze(1)

    def rsample(self, eps: Tensor) -> Tensor:
        r"""Reparameterised draws z = mu + L eps.

        Args:
            eps: Standard normal noise, shape [..., B, D].

        Returns:
            z, shape [..., B, D].
        """
        return self.mu + (self.scale_tril * eps.unsqueeze(-2)).sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, shape [..., B] for z of shape [..., B, D]."""
        difference = (z - self.mu).unsqueeze(-1)
        eps = torch.linalg.solve_triangular(self.scale_tril, difference, upper=False).squeeze(-1)
        return gaussian_log_density(eps**2, self.logvar).sum(-1)

    def detach(self) -> FullGaussian:
        """The same distribution, its parameters constants."""
        return FullGaussian(self.mu.detach(), self.logvar.detach(), self.lower.detach())

    def _repr_html_(self) -> str:
        deviation = self.scale_tril.square().sum(-1).sqrt()
        return display.table("Posterior q(z|x)", self.mu, deviation)
