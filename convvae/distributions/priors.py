"""Priors p(z): the standard normal, one for each label, and mixtures, learned or given."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convvae.distributions.gaussian import gaussian_log_density


class Prior(nn.Module, ABC):
    """A distribution p(z) over D latents.

    Args:
        latent_dims: Number of latents D.
    """

    def __init__(self, latent_dims: int) -> None:
        super().__init__()
        self.latent_dims = latent_dims

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z of shape [count, D] on the CPU, from `generator` or torch's global one."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, shape [...] for z of shape [..., D]."""


class StandardNormal(Prior):
    r"""Prior p(z) = N(z; 0, I) over D latents.

    Examples:
        >>> p, z = StandardNormal(2), torch.tensor([3.0, 4.0])
        >>> round(float(p.log_prob(torch.zeros(2)) - p.log_prob(z)), 4)  # |z|^2 / 2
        12.5
    """

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z of shape [count, D] on the CPU, from `generator` or torch's global one."""
        return torch.randn(count, self.latent_dims, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, shape [...] for z of shape [..., D]."""
        return gaussian_log_density(z**2, 0.0).sum(-1)


class ConditionalNormal(Prior):
    r"""Prior p(z|y) = N(z; mu_y, diag exp(logvar_y)), both linear in y; at first N(0, I).

    Args:
        latent_dims: Number of latents D.
        known: Numbers of y, C.

    Source: Sohn, Lee & Yan 2015, https://papers.nips.cc/paper/5775
    """

    def __init__(self, latent_dims: int, known: int) -> None:
        super().__init__(latent_dims)
        self.mu = nn.Linear(known, latent_dims, bias=False)
        self.logvar = nn.Linear(known, latent_dims, bias=False)
        for weights in self.parameters():
            nn.init.zeros_(weights)
        self.y: Tensor | None = None

    def given(self, y: Tensor) -> ConditionalNormal:
        """The prior of latents whose y is known, shape [B, C] or [1, C]; it shares the weights."""
        made = copy.copy(self)
        made.y = y
        return made

    def parameters_of(self) -> tuple[Tensor, Tensor]:
        """mu and logvar, shape [B, D] or [1, D] each, float32."""
        assert self.y is not None
        with torch.autocast(self.y.device.type, enabled=False):
            return self.mu(self.y), self.logvar(self.y)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z of shape [count, D] on the CPU, from `generator` or torch's global one."""
        mu, logvar = (part.detach().cpu() for part in self.parameters_of())
        noise = torch.randn(count, self.latent_dims, generator=generator)
        return mu + torch.exp(0.5 * logvar) * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z|y) in nats, shape [..., B] for z of shape [..., B, D]."""
        mu, logvar = self.parameters_of()
        square = (z - mu) ** 2 * torch.exp(-logvar)
        return gaussian_log_density(square, logvar).sum(-1)


class GaussianMixture(Prior, ABC):
    r"""Prior p(z) = sum_m w_m N(z; mu_m, diag exp(logvar_m)) over M components."""

    @abstractmethod
    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """log w [M], mu [M, D], logvar [M, D]."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z of shape [count, D] on the CPU, from `generator` or torch's global one."""
        logw, mu, logvar = (part.detach().cpu() for part in self.components())
        chosen = torch.multinomial(logw.exp(), count, replacement=True, generator=generator)
        noise = torch.randn(count, self.latent_dims, generator=generator)
        return mu[chosen] + torch.exp(0.5 * logvar[chosen]) * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, shape [...] for z of shape [..., D]."""
        logw, mu, logvar = self.components()
        square = (z.unsqueeze(-2) - mu) ** 2 * torch.exp(-logvar)
        each = gaussian_log_density(square, logvar).sum(-1)
        return (logw + each).logsumexp(-1)


class LearnedMixture(GaussianMixture):
    """A mixture of Gaussians whose weights, means and variances are learned.

    Args:
        latent_dims: Number of latents D.
        components: Number of components M.
    """

    def __init__(self, latent_dims: int, components: int) -> None:
        super().__init__(latent_dims)
        self.logits = nn.Parameter(torch.zeros(components))
        self.mu = nn.Parameter(torch.randn(components, latent_dims))
        self.logvar = nn.Parameter(torch.zeros(components, latent_dims))

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """log w [M], mu [M, D], logvar [M, D]."""
        return self.logits.log_softmax(0), self.mu, self.logvar


class VampPrior(GaussianMixture):
    r"""p(z) = sum_m w_m q(z|u_m): the posteriors of learned pseudo-images u_m in [0, 1].

    Args:
        latent_dims: Number of latents D.
        components: Number of components M.
        shape: Of an image, (C, H, W).
        encode: Images [M, C, H, W] -> mu, logvar [M, D] of their posteriors.

    Source: Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120
    """

    def __init__(
        self,
        latent_dims: int,
        components: int,
        shape: tuple[int, int, int],
        encode: Callable[[Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        super().__init__(latent_dims)
        self.logits = nn.Parameter(torch.zeros(components))
        self.pseudo_logits = nn.Parameter(torch.randn(components, *shape))
        self.encode = encode

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """log w [M], mu [M, D], logvar [M, D]."""
        mu, logvar = self.encode(self.pseudo_logits.sigmoid())
        return self.logits.log_softmax(0), mu, logvar


class FullMixture(Prior):
    r"""p(z) = sum_m w_m N(z; mu_m, L_m L_m^T): a mixture that is given, not learned with a model.

    Args:
        logw: log w, shape [M].
        mu: Means, shape [M, D].
        scale_tril: L, lower triangular, shape [M, D, D].
    """

    logw: Tensor
    mu: Tensor
    scale_tril: Tensor

    def __init__(self, logw: Tensor, mu: Tensor, scale_tril: Tensor) -> None:
        super().__init__(mu.shape[1])
        self.register_buffer("logw", logw)
        self.register_buffer("mu", mu)
        self.register_buffer("scale_tril", scale_tril)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z of shape [count, D] on the CPU, from `generator` or torch's global one."""
        weights, mu, scale_tril = self.logw.exp().cpu(), self.mu.cpu(), self.scale_tril.cpu()
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.latent_dims, generator=generator)
        return mu[chosen] + (scale_tril[chosen] @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, shape [...] for z of shape [..., D]."""
        difference = (z.unsqueeze(-2) - self.mu).unsqueeze(-1)
        eps = torch.linalg.solve_triangular(self.scale_tril, difference, upper=False).squeeze(-1)
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = gaussian_log_density(eps**2, 0.0).sum(-1) - log_det
        return (self.logw + each).logsumexp(-1)
