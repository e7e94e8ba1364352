"""Numbers of single images that scores are made of, and that need no normal images.

Each takes images x and what a model makes of them, in [0, 1], and gives a number per image; none
of them draws anything but `bounds_ratio`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from convvae.images.ssim import K1, K2
from convvae.model.ladder import LadderPosterior, LadderPrior
from convvae.model.vae import VAE

WINDOW = 7
"""Side of the window of `dissimilarity`, in pixels."""
RESOLUTIONS = 3
"""Of `dissimilarity`, at most: each has half the side of the one before it."""


def complexity(x: Tensor) -> Tensor:
    """How much there is in an image: log(1 + sum of x^2), log(1 + total variation), shape [N, 2].

    The total variation is the sum of |differences| of neighbouring values: strokes, edges and
    noise have much of it, a blank image none.

    Args:
        x: Images, shape [N, C, H, W].
    """
    down, right = x.diff(dim=2).abs(), x.diff(dim=3).abs()
    variation = down.flatten(1).sum(1) + right.flatten(1).sum(1)
    return torch.stack([x.square().flatten(1).sum(1), variation], 1).log1p()


def coarse_error(x: Tensor, mean: Tensor) -> Tensor:
    """Mean over the values of the square of x - mean, averaged over 3x3 pixels before, shape [N].

    What a model does not keep of fine texture averages out; a stroke in the wrong place does not.

    Args:
        x: Images, shape [N, C, H, W].
        mean: Their reconstructions, of the same shape.
    """
    near = F.avg_pool2d(x - mean, 3, 1, 1, count_include_pad=False)
    return near.square().flatten(1).mean(1)


def dissimilarity(x: Tensor, mean: Tensor) -> Tensor:
    """1 minus the structural similarity, averaged over resolutions: 0 where images are equal, [N].

    At every resolution the mean over all places of a uniform window, which at the border holds
    what of it lies inside; an image is halved while its sides are twice the window.

    Args:
        x: Images, shape [N, C, H, W].
        mean: Their reconstructions, of the same shape.

    Source: Wang, Simoncelli & Bovik 2003, https://doi.org/10.1109/ACSSC.2003.1292216 (there the
    resolutions are multiplied)
    """
    found: list[Tensor] = []
    while True:
        found.append(1 - _similarity(x, mean).flatten(1).mean(1))
        if len(found) == RESOLUTIONS or min(x.shape[2:]) < 2 * WINDOW:
            return torch.stack(found).mean(0)
        x, mean = F.avg_pool2d(x, 2), F.avg_pool2d(mean, 2)


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """The structural similarity around every value, shape [N, C, H, W]."""

    def local(values: Tensor) -> Tensor:
        padding = WINDOW // 2
        return F.avg_pool2d(values, WINDOW, 1, padding, count_include_pad=False)

    mu_x, mu_y = local(x), local(y)
    # A variance is not negative; rounding alone could make it so.
    var_x = (local(x * x) - mu_x * mu_x).clamp_min(0)
    var_y = (local(y * y) - mu_y * mu_y).clamp_min(0)
    covariance = local(x * y) - mu_x * mu_y
    means = (2 * mu_x * mu_y + K1**2) / (mu_x * mu_x + mu_y * mu_y + K1**2)
    return means * (2 * covariance + K2**2) / (var_x + var_y + K2**2)


def bounds_ratio(vae: VAE, x: Tensor, eps: Tensor) -> Tensor:
    r"""LLR = L - L_top of a ladder, whose L_top leaves the lower half of its groups to the prior.

    L is the evidence lower bound. In L_top the first groups, half of them rounded up, come from
    q(z|x) and the others from p(z_l | z_<l): an image whose details alone explain it loses much.

    Args:
        vae: A model with groups, in evaluation mode.
        x: Images, shape [B, C, H, W], in [0, 1].
        eps: Standard normal noise, shape [K, B, D].

    Returns:
        Nats per image, shape [B], the mean over the K draws.

    Source: Havtorn et al. 2021, equation 9, https://arxiv.org/abs/2102.08248
    """
    q, prior = vae.encode(x), vae.prior
    assert isinstance(q, LadderPosterior)
    assert isinstance(prior, LadderPrior)
    plan = vae.config.plan
    kept = -(-len(plan) // 2)
    end = sum(group.size for group in plan[:kept])
    drawn = vae.draw(q, eps)
    assert drawn.kl_per_group is not None
    z = torch.stack(
        [prior.draw(part, top[:, :end]) for part, top in zip(eps, drawn.z, strict=True)]
    )
    lost = (drawn.p.log_prob(x) - vae.decode(z).log_prob(x)).mean(0)
    return lost - drawn.kl_per_group[kept:].sum(0)


def has_groups(vae: VAE) -> bool:
    """Whether a model has groups of latents to leave to the prior: a ladder of at least two."""
    return len(vae.config.plan) > 1
