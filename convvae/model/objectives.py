"""What training maximises and evaluation reports: pure functions from images to terms.

The loss and the reported bound are made from the same `Terms`, so they cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from convvae.config import ModelConfig, TrainConfig
from convvae.distributions import (
    DiagonalGaussian,
    FullGaussian,
    Likelihood,
    Posterior,
    StandardNormal,
    gaussian_squared_error,
    kl_per_latent,
)
from convvae.distributions.gaussian import gaussian_log_density
from convvae.model.vae import VAE
from convvae.parts import OBJECTIVE_NAMES


class Terms(NamedTuple):
    """The two parts of the evidence lower bound, in nats per image."""

    log_px: Tensor
    """E_q[log p(x|z)], shape [B]."""
    kl: Tensor
    """KL(q(z|x) || p(z)), shape [B]."""

    @property
    def bound(self) -> Tensor:
        """The evidence lower bound log p(x) >= log_px - kl, shape [B]."""
        return self.log_px - self.kl


class Means(NamedTuple):
    """What many images came to, each weighing the same: scalars on the CPU, nats per image."""

    loss: Tensor
    """The objective that training minimises, see `training_loss`."""
    log_px: Tensor
    """E_q[log p(x|z)]."""
    kl: Tensor
    """KL(q(z|x) || p(z))."""

    @property
    def bound(self) -> Tensor:
        """The evidence lower bound log_px - kl, whatever the objective."""
        return self.log_px - self.kl

    def is_finite(self) -> bool:
        """Whether all are finite numbers."""
        return all(math.isfinite(value) for value in self)


class Draws(NamedTuple):
    """Everything that an objective needs of K draws of z per image, computed once."""

    q: Posterior
    """The posterior."""
    z: Tensor
    """The draws, shape [K, B, D]."""
    p: Likelihood
    """p(x|z), over x of shape [K, B, C, H, W]."""
    log_px: Tensor
    """log p(x|z) of each, nats, shape [K, B]."""
    kl: Tensor
    """KL(q || p), nats, shape [B]."""
    eps: Tensor
    """The noise that the draws were made of, shape [K, B, D]."""
    log_ratio: Callable[[], Tensor]
    """log p(z) - log q(z|x) of each draw, nats, shape [K, B], computed when it is asked for."""
    kl_per_group: Tensor | None
    """The part of each group of a ladder in the KL, shape [L, B]; None of other networks."""

    @property
    def log_weights(self) -> Tensor:
        """Logarithms of the importance weights p(x|z) p(z) / q(z|x), nats, shape [K, B]."""
        return self.log_px + self.log_ratio()

    @property
    def terms(self) -> Terms:
        """The terms of the evidence lower bound, the log-likelihoods averaged over the draws."""
        return Terms(self.log_px.mean(0), self.kl)


def draw(vae: VAE, x: Tensor, eps: Tensor) -> Draws:
    """Encode images, draw latents, and score the images under each draw.

    Args:
        vae: The model.
        x: Images, shape [B, C, H, W], in [0, 1].
        eps: Standard normal noise, shape [K, B, D].
    """
    return _score(vae, x, vae.encode(x), eps)


def _score(vae: VAE, x: Tensor, q: Posterior, eps: Tensor) -> Draws:
    made = vae.draw(q, eps)
    log_px = vae.log_px(made.p, x)
    return Draws(q, made.z, made.p, log_px, made.kl, eps, made.log_ratio, made.kl_per_group)


def elbo(vae: VAE, x: Tensor, eps: Tensor | None = None) -> Terms:
    r"""The evidence lower bound E_q[log p(x|z)] - KL(q(z|x) || p(z)), by K draws of z.

    The K log-likelihoods are averaged (not the K images or logits). The KL is exact where it has a
    closed form, and else the mean over the same draws.

    Args:
        vae: The model.
        x: Images, shape [B, C, H, W], in [0, 1].
        eps: Standard normal noise, shape [K, B, D]; one draw from torch's generator if absent.

    Source: Kingma & Welling 2014, equation 10, https://arxiv.org/abs/1312.6114

    Examples:
        >>> vae = VAE(ModelConfig(image_size=8, channels=1, latent_dims=2)).eval()
        >>> terms = elbo(vae, torch.rand(5, 1, 8, 8))
        >>> terms.bound.shape, torch.equal(terms.bound, terms.log_px - terms.kl)
        (torch.Size([5]), True)
    """
    if eps is None:
        eps = torch.randn(1, len(x), vae.prior.latent_dims, device=x.device)
    return draw(vae, x, eps).terms


def log_weights(vae: VAE, x: Tensor, q: Posterior, eps: Tensor) -> Tensor:
    r"""Logarithms of the importance weights p(x|z) p(z) / q(z|x) of K draws z ~ q(z|x).

    Args:
        vae: The model.
        x: Images, shape [B, C, H, W], in [0, 1].
        q: Their posterior, `vae.encode(x)`.
        eps: Standard normal noise, shape [K, B, D].

    Returns:
        Nats, shape [K, B].
    """
    return _score(vae, x, q, eps).log_weights


def importance_weighted_bound(vae: VAE, x: Tensor, eps: Tensor) -> Tensor:
    r"""L_K = E[log 1/K sum_k p(x, z_k) / q(z_k|x)] <= log p(x), by one draw of z_1 ... z_K.

    Not above log p(x) in expectation, and not below L_{K-1}; at K = 1 it is the evidence lower
    bound with its KL by the same draw.

    Args:
        vae: The model.
        x: Images, shape [B, C, H, W], in [0, 1].
        eps: Standard normal noise, shape [K, B, D].

    Returns:
        Nats per image, shape [B].

    Source: Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519
    """
    return _log_mean(log_weights(vae, x, vae.encode(x), eps))


def _log_mean(log_weights: Tensor) -> Tensor:
    """log 1/K sum_k w_k, shape [B], of log-weights [K, B]."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def iwae_loss(draws: Draws) -> Tensor:
    r"""Minus the importance-weighted bound, the mean over the batch, nats per image.

    Its gradient is that of this number in every network. Where a network normalises by the batch,
    all K B draws share their statistics: the number is then the bound of a decoder that sees the
    batch, and of log p(x) only in evaluation mode. So it is with the ELBO in training mode.
    """
    return -_log_mean(draws.log_weights).mean()


def dreg_loss(vae: VAE, draws: Draws) -> Tensor:
    r"""Minus the importance-weighted bound, with the doubly reparameterised gradient.

    Its value is that of `iwae_loss`. Its gradient by the decoder and the prior is too; that by the
    encoder has the same expectation, sum_k w_k^2 d log w_k / dz_k dz_k / dphi with normalised
    weights w, and a variance that does not swamp it as K grows.

    That holds where w_k depends on the draws by z_k alone. Batch normalisation in the decoder, or
    a variance of p(x|z) fitted to the draws, breaks it: `TrainConfig` refuses both.

    Source: Tucker et al. 2019, https://arxiv.org/abs/1810.04152
    """
    assert isinstance(draws.q, DiagonalGaussian | FullGaussian)
    log_q = draws.q.detach().log_prob(draws.z)
    log_w = draws.log_px + vae.prior.log_prob(draws.z) - log_q
    shares = log_w.detach().softmax(0)
    if draws.z.requires_grad:
        draws.z.register_hook(lambda gradient: gradient * shares.unsqueeze(-1))
    surrogate = (shares * log_w).sum(0)
    # The value of the bound, the gradient of the surrogate.
    return -(surrogate + (_log_mean(log_w) - surrogate).detach()).mean()


def free_bits_loss(vae: VAE, draws: Draws, beta: float | Tensor, free_bits: float) -> Tensor:
    r"""mean(-log_px) + beta sum_d max(free_bits, mean(kl_d)): a latent is free up to some nats.

    Of a ladder, d counts the groups instead of the latents.

    Source: Kingma et al. 2016, appendix C.8, https://arxiv.org/abs/1606.04934
    """
    if draws.kl_per_group is not None:
        each = draws.kl_per_group.mean(1)
    else:
        assert isinstance(draws.q, DiagonalGaussian)
        assert isinstance(vae.prior, StandardNormal)
        each = kl_per_latent(draws.q, vae.prior).mean(0)
    return beta * each.clamp_min(free_bits).sum() - draws.log_px.mean()


def capacity_loss(draws: Draws, beta: float | Tensor, capacity: float | Tensor) -> Tensor:
    r"""mean(-log_px) + beta |mean(kl) - capacity|: the code may hold so many nats, and shall.

    Source: Burgess et al. 2018, equation 8, https://arxiv.org/abs/1804.03599
    """
    return beta * (draws.kl.mean() - capacity).abs() - draws.log_px.mean()


def log_aggregate(q: DiagonalGaussian, z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    r"""log q(z) and log q(z_d) of the aggregate posterior q(z) = 1/N sum_n q(z|x_n), from a batch.

    The batch was drawn without replacement: q(z_b) is q(z_b|x_b) / N plus (N - 1) / N times the
    mean of q(z_b|x_j) over the others, which is without bias (before the logarithm), and exact for
    B = N.

    Args:
        q: Posteriors of the batch.
        z: Draws of them, shape [K, B, D].
        count: Number of training images N, at least B.

    Returns:
        Nats, shapes [K, B] and [K, B, D].
    """
    batch = z.shape[1]
    square = (z.unsqueeze(2) - q.mu) ** 2 * torch.exp(-q.logvar)
    each = gaussian_log_density(square, q.logvar)  # log q(z_bd|x_j), [K, B, B, D]
    own = torch.eye(batch, device=z.device)
    share = own / count + (1 - own) * (count - 1) / (count * max(1, batch - 1))
    logw = share.log()
    return (each.sum(-1) + logw).logsumexp(2), (each + logw.unsqueeze(-1)).logsumexp(2)


def total_correlation(q: DiagonalGaussian, z: Tensor, count: int) -> Tensor:
    r"""TC = KL(q(z) || prod_d q(z_d)) of the aggregate posterior, estimated as `log_aggregate`.

    Args:
        q: Posteriors of a batch.
        z: Draws of them, shape [K, B, D].
        count: Number of training images N.

    Returns:
        Nats, a scalar.

    Source: Chen et al. 2018, https://arxiv.org/abs/1802.04942 (there with one of the other images
    weighted apart)
    """
    log_joint, log_each = log_aggregate(q, z, count)
    return (log_joint - log_each.sum(-1)).mean()


def beta_tc_loss(draws: Draws, beta: float | Tensor, count: int) -> Tensor:
    r"""mean(kl - log_px) + (beta - 1) TC: of the parts of the KL, only that between the latents.

    Source: Chen et al. 2018, https://arxiv.org/abs/1802.04942
    """
    assert isinstance(draws.q, DiagonalGaussian)
    return loss(draws.terms) + (beta - 1) * total_correlation(draws.q, draws.z, count)


def squared_mmd(z: Tensor, eps: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy of draws z from standard normal ones, without bias.

    The mean over pairs i != j of k(z_i, z_j) + k(eps_i, eps_j) - 2 k(z_i, eps_j), with the kernel
    k(a, b) = exp(-|a - b|^2 / 2D), whose width is that of the prior. The noise that z was made of
    serves as the other sample: z_i depends on eps_i alone. A single image makes no pair: 0.

    Args:
        z: Draws of the posteriors of a batch, shape [K, B, D].
        eps: Standard normal noise, of the same shape.

    Source: Gretton et al. 2012, lemma 6, https://jmlr.org/papers/v13/gretton12a.html
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(torch.cdist(a, b).square() / (-2 * z.shape[-1]))

    between = kernel(z, eps)
    pairs = kernel(z, z) + kernel(eps, eps) - between - between.mT
    off_diagonal = pairs.sum((1, 2)) - pairs.diagonal(dim1=1, dim2=2).sum(1)
    batch = z.shape[1]
    return (off_diagonal / max(1, batch * (batch - 1))).mean()


Objective: TypeAlias = Callable[[VAE, Draws, float | Tensor, int], Tensor]
"""The model, the draws of a batch, the weight beta of the KL at this step, and the number of
training images N -> what the step minimises, nats per image, a scalar."""
OBJECTIVES: dict[str, Objective] = {}
"""Those registered, by name; convvae's own are in `training_loss`."""


def register(name: str, objective: Objective) -> None:
    """Make an objective of one's own a value of the setting `objective`.

    Evaluation reports the bounds all the same. Models do not name their objective: only training,
    and a run that is resumed, need it registered. A name registered before stands for the newer
    function from then on.

    Args:
        name: Small letters, digits and hyphens.
        objective: See `Objective`. On a GPU it must not wait for a value: no `float(tensor)`.

    Raises:
        ConfigError: the name is convvae's own, or no name.
    """
    OBJECTIVE_NAMES.add(name)
    OBJECTIVES[name] = objective


def training_loss(
    config: TrainConfig,
    vae: VAE,
    draws: Draws,
    beta: float | Tensor,
    capacity: float | Tensor,
    count: int,
) -> Tensor:
    """What a training step minimises, nats per image, and what `train_loss` and `val_loss` are of.

    Free bits, a capacity, the total correlation and the maximum mean discrepancy are functions of a
    batch as a whole; the other parts are means over its images.

    Args:
        config: Which objective.
        vae: The model.
        draws: Of the batch.
        beta: Weight of the KL term at this step.
        capacity: Nats that the KL is held at, at this step, if the run has a capacity.
        count: Number of training images N.
    """
    match config.objective:
        case "iwae":
            return iwae_loss(draws)
        case "dreg":
            return dreg_loss(vae, draws)
        case "beta-tc":
            return beta_tc_loss(draws, beta, count)
        case "elbo" if config.free_bits:
            total = free_bits_loss(vae, draws, beta, config.free_bits)
        case "elbo" if config.capacity is not None:
            total = capacity_loss(draws, beta, capacity)
        case "elbo":
            total = loss(draws.terms, beta)
        case own:
            return OBJECTIVES[own](vae, draws, beta, count)
    if config.mmd:
        # Zhao et al. 2019, equation 6, https://arxiv.org/abs/1706.02262
        total = total + config.mmd * squared_mmd(draws.z, draws.eps)
    return total


def loss(terms: Terms, beta: float | Tensor = 1.0) -> Tensor:
    r"""The plain objective: the mean over the batch of -log_px + beta kl, in nats per image.

    Source: beta from Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl

    Examples:
        >>> loss(Terms(log_px=torch.tensor([-3.0, -5.0]), kl=torch.tensor([1.0, 1.0])), beta=2.0)
        tensor(6.)
    """
    return (beta * terms.kl - terms.log_px).mean()


def squared_error_and_kl_per_image(config: ModelConfig, log_px: float, kl: float) -> float | None:
    """Sum of squared error + KL of an image, the loss that the MLX and Lux tutorials print.

    With the Gaussian likelihood at variance 1/2 it differs from -bound by the constant
    n/2 log(pi); at any variance it is recovered from log p(x|z). Not defined for other likelihoods.
    """
    if config.likelihood != "gaussian":
        return None
    return gaussian_squared_error(log_px, config.pixels, config.variance) + kl
