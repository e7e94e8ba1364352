"""KL(q || p) of a posterior from a prior: exact where it has a closed form, else by draws."""

from __future__ import annotations

import torch
from torch import Tensor

from convvae.distributions.gaussian import normal_kl
from convvae.distributions.posteriors import DiagonalGaussian, FullGaussian, Posterior
from convvae.distributions.priors import ConditionalNormal, Prior, StandardNormal


def kl_per_latent(q: DiagonalGaussian, p: StandardNormal) -> Tensor:
    r"""The KL of each latent, -1/2 (1 + logvar - mu^2 - exp(logvar)), exactly.

    Returns:
        Nats, shape [B, D].

    Source: Kingma & Welling 2014, appendix B, https://arxiv.org/abs/1312.6114

    Examples:
        >>> q = DiagonalGaussian(mu=torch.tensor([[2.0, 4.0]]), logvar=torch.zeros(1, 2))
        >>> kl_per_latent(q, StandardNormal(2))  # mu^2 / 2 at variance 1
        tensor([[2., 8.]])
    """
    assert q.mu.shape[-1] == p.latent_dims
    return -0.5 * (1 + q.logvar - q.mu**2 - torch.exp(q.logvar))


def kl_divergence(q: Posterior, p: Prior, z: Tensor | None = None) -> Tensor:
    r"""KL(q || p): exact for a Gaussian from the standard normal, else the mean over draws of q.

    With L as in `FullGaussian`, the exact one is 1/2 (|L|_F^2 + |mu|^2 - D - sum_d logvar_d). That
    of a diagonal Gaussian from p(z|y) is exact too, see `normal_kl`.

    Args:
        q: The posterior.
        p: The prior.
        z: Draws of q, shape [K, B, D]; needed where no closed form is known.

    Returns:
        Nats per image, shape [B].

    Raises:
        ValueError: draws are needed and absent.
    """
    if isinstance(p, StandardNormal) and isinstance(q, DiagonalGaussian):
        return kl_per_latent(q, p).sum(-1)
    if isinstance(p, StandardNormal) and isinstance(q, FullGaussian):
        squares = q.scale_tril.square().sum((-2, -1)) + q.mu.square().sum(-1)
        return 0.5 * (squares - q.mu.shape[-1] - q.logvar.sum(-1))
    if isinstance(p, ConditionalNormal) and isinstance(q, DiagonalGaussian):
        mu, logvar = p.parameters_of()
        return normal_kl(q.mu, torch.exp(0.5 * q.logvar), mu, torch.exp(0.5 * logvar)).sum(-1)
    if z is None:
        raise ValueError(f"KL({type(q).__name__} || {type(p).__name__}) needs draws of z")
    return (q.log_prob(z) - p.log_prob(z)).mean(0)
