"""What training maximises and evaluation reports: pure functions from images to terms.

The loss and the reported bound are made from the same `Terms`, so they cannot drift apart.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from convvae.config import ModelConfig
from convvae.distributions import Posterior, gaussian_squared_error, kl_divergence
from convvae.model import VAE


class Terms(NamedTuple):
    """The two parts of the evidence lower bound, in nats an image."""

    log_px: Tensor
    """E_q[log p(x|z)], shape [B]."""
    kl: Tensor
    """KL(q(z|x) || p(z)), shape [B]."""

    @property
    def bound(self) -> Tensor:
        """The evidence lower bound log p(x) >= log_px - kl, shape [B]."""
        return self.log_px - self.kl


def elbo(vae: VAE, x: Tensor, eps: Tensor | None = None) -> Terms:
    r"""The evidence lower bound E_q[log p(x|z)] - KL(q(z|x) || p(z)), by K draws of z.

    The K log-likelihoods are averaged (not the K images or logits). The KL is exact where it has a
    closed form, and else the mean over the same draws.

    Arguments:
        vae: The model.
        x: Images, shape [B, C, H, W], in [0, 1].
        eps: Standard normal noise, shape [K, B, D]; one draw from torch's generator if absent.

    Source: Kingma & Welling 2014, equation 10, https://arxiv.org/abs/1312.6114
    """
    q = vae.encode(x)
    if eps is None:
        eps = torch.randn_like(q.mean).unsqueeze(0)
    z = q.rsample(eps)
    return Terms(vae.decode(z).log_prob(x).mean(0), kl_divergence(q, vae.prior, z))


def log_weights(vae: VAE, x: Tensor, q: Posterior, eps: Tensor) -> Tensor:
    r"""Logarithms of the importance weights p(x|z) p(z) / q(z|x) of K draws z ~ q(z|x).

    Arguments:
        vae: The model.
        x: Images, shape [B, C, H, W], in [0, 1].
        q: Their posterior, `vae.encode(x)`.
        eps: Standard normal noise, shape [K, B, D].

    Returns:
        Nats, shape [K, B].
    """
    z = q.rsample(eps)
    return vae.decode(z).log_prob(x) + vae.prior.log_prob(z) - q.log_prob(z)


def importance_weighted_bound(vae: VAE, x: Tensor, eps: Tensor) -> Tensor:
    r"""L_K = E[log 1/K sum_k p(x, z_k) / q(z_k|x)] <= log p(x), by one draw of z_1 ... z_K.

    Not above log p(x) in expectation, and not below L_{K-1}; at K = 1 it is the evidence lower
    bound with its KL by the same draw.

    Arguments:
        vae: The model.
        x: Images, shape [B, C, H, W], in [0, 1].
        eps: Standard normal noise, shape [K, B, D].

    Returns:
        Nats an image, shape [B].

    Source: Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519
    """
    weights = log_weights(vae, x, vae.encode(x), eps)
    return weights.logsumexp(0) - math.log(len(eps))


def loss(terms: Terms, beta: float | Tensor = 1.0) -> Tensor:
    r"""What training minimises: the mean over the batch of -log_px + beta kl, in nats an image.

    Source: beta from Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl
    """
    return (beta * terms.kl - terms.log_px).mean()


def squared_error_and_kl(config: ModelConfig, log_px: float, kl: float) -> float | None:
    """Sum of squared error + KL an image, the loss that the MLX and Lux tutorials print.

    With the Gaussian likelihood at variance 1/2 it differs from -bound by the constant
    n/2 log(pi); at any variance it is recovered from log p(x|z). Not defined for other likelihoods.
    """
    if config.likelihood != "gaussian":
        return None
    return gaussian_squared_error(log_px, config.pixels, config.variance) + kl
