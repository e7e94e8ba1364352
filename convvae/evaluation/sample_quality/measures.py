"""How near two sets of features are: Frechet and kernel distance, and neighbourhoods.

All are functions of the features alone, in float64. Whatever compares every image with every image
does so a block at a time: memory grows with the number of images, not with its square.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from convvae.evaluation.distances import nearest, rowwise, within
from convvae.evaluation.estimates import Estimate, Undefined

KERNEL_BLOCK = 1000
"""Images of a block of the kernel distance, at most."""
KERNEL_BLOCKS = 10
"""Disjoint blocks, at least, over which the kernel distance is averaged."""
MANIFOLD_NEIGHBOUR = 3
"""k of precision and recall, as their authors chose it."""
BALL_NEIGHBOUR = 5
"""k of density and coverage, as their authors chose it."""


def frechet_distance(a: Tensor, b: Tensor) -> float | Undefined:
    r"""The Frechet distance of two Gaussians fitted to features, squared as is the custom.

        |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a^1/2 S_b S_a^1/2)^1/2)

    with the covariances S that divide by one less than the number of images. The last trace is the
    sum of the singular values of S_a^1/2 S_b^1/2, so that no root of a matrix that is not symmetric
    is taken. It is not negative, in the squared unit of the features, and biased: of two samples
    of the same distribution it is above 0, the more so the fewer images.

    Args:
        a: Features, shape [N, F].
        b: Features, shape [M, F].

    Returns:
        Not defined where N or M is below F + 1: the covariance is singular then whatever the
        distribution.

    Source: Dowson & Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X; Heusel et al. 2017,
    https://arxiv.org/abs/1706.08500
    """
    features = a.shape[1]
    if min(len(a), len(b)) < features + 1:
        return Undefined(f"needs at least {features + 1} images of each set")
    cov_a, cov_b = a.double().T.cov(), b.double().T.cov()
    overlap = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    means = (a.double().mean(0) - b.double().mean(0)).square().sum()
    return float((means + cov_a.trace() + cov_b.trace() - 2 * overlap).clamp_min(0))


def _root(covariance: Tensor) -> Tensor:
    """The symmetric root of a covariance [F, F]; eigenvalues that rounding made negative are 0."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def kernel_distance(a: Tensor, b: Tensor, generator: torch.Generator) -> Estimate | Undefined:
    r"""The squared maximum mean discrepancy under the kernel k(x, y) = (x . y / F + 1)^3.

    Both sets are shuffled and cut into as many disjoint blocks, at least 10, of at most 1,000
    images; each pair of blocks gives the unbiased estimate

        mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    and the result is their mean, with its standard error. The mean is 0 in expectation where
    the distributions are equal, and may be below 0.

    Args:
        a: Features, shape [N, F].
        b: Features, shape [M, F].
        generator: Of the order.

    Returns:
        Not defined where a block would hold fewer than two images.

    Source: Gretton et al. 2012, https://jmlr.org/papers/v13/gretton12a.html; Binkowski et al. 2018,
    https://arxiv.org/abs/1801.01401
    """
    blocks = max(KERNEL_BLOCKS, -(-max(len(a), len(b)) // KERNEL_BLOCK))
    if min(len(a), len(b)) < 2 * blocks:
        return Undefined(f"needs at least {2 * blocks} images of each set")
    parts = zip(_blocks(a, blocks, generator), _blocks(b, blocks, generator), strict=True)
    return Estimate.of(torch.stack([unbiased_mmd(x, y) for x, y in parts]))


def _blocks(features: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    """Disjoint blocks of the same size, drawn at random; what is left over is not used."""
    order = torch.randperm(len(features), generator=generator)
    size = len(features) // count
    return [features[part].double() for part in order[: size * count].split(size)]


def unbiased_mmd(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate of `kernel_distance` from one pair of blocks [N, F] and [M, F]."""

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return (p @ q.T / p.shape[1] + 1) ** 3

    def within(p: Tensor) -> Tensor:
        each = kernel(p, p)
        return (each.sum() - each.trace()) / (len(p) * (len(p) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


class Neighbourhoods(NamedTuple):
    """What the balls around images say; each a share of images but the density."""

    precision: float | Undefined
    """Generated images in a ball of the manifold of the real ones."""
    recall: float | Undefined
    """Real images in a ball of the manifold of the generated ones."""
    density: float | Undefined
    """Balls of real images that a generated one lies in, over k: 1 on average where the
    distributions are equal, and above 1 where the generated ones crowd."""
    coverage: float | Undefined
    """Real images whose ball holds a generated one."""


def neighbourhoods(real: Tensor, generated: Tensor) -> Neighbourhoods:
    r"""Improved precision and recall, density and coverage.

    B_k(x) is the closed ball around x through its k-th nearest neighbour in its own set, itself
    not counted. With N real x_i and M generated y_j,

        precision = 1/M sum_j [y_j in a B_3(x_i)]         recall   = 1/N sum_i [x_i in a B_3(y_j)]
        density   = 1/(5 M) sum_ij [y_j in B_5(x_i)]      coverage = 1/N sum_i [a y_j in B_5(x_i)]

    A point is on the edge of a ball, and in it, up to a relative difference of 1e-6.

    Args:
        real: Features, shape [N, F].
        generated: Features, shape [M, F].

    Returns:
        Each not defined where a set that has balls is not larger than their k.

    Source: Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991; Naeem et al. 2020,
    https://arxiv.org/abs/2002.09797
    """
    manifold, ball = _radii(real, (MANIFOLD_NEIGHBOUR, BALL_NEIGHBOUR))
    (theirs,) = _radii(generated, (MANIFOLD_NEIGHBOUR,))
    precise = torch.zeros(len(generated), dtype=torch.bool)
    recalled, inside, covered = (torch.zeros((), dtype=torch.int64) for _ in range(3))
    for rows, far in rowwise(real, generated):
        precise |= within(far, manifold[rows, None]).any(0)
        recalled += within(far, theirs).any(1).sum()
        held = within(far, ball[rows, None])
        inside += held.sum()
        covered += held.any(1).sum()
    numbers = Neighbourhoods(
        precision=float(precise.double().mean()),
        recall=recalled.item() / len(real),
        density=inside.item() / (BALL_NEIGHBOUR * len(generated)),
        coverage=covered.item() / len(real),
    )
    return numbers._replace(**_too_few(len(real), len(generated)))


def _too_few(real: int, generated: int) -> dict[str, Undefined]:
    """What has no meaning for want of images, by name."""
    found: dict[str, Undefined] = {}
    for name, kind, k, count in (
        ("precision", "real", MANIFOLD_NEIGHBOUR, real),
        ("recall", "generated", MANIFOLD_NEIGHBOUR, generated),
        ("density", "real", BALL_NEIGHBOUR, real),
        ("coverage", "real", BALL_NEIGHBOUR, real),
    ):
        if count <= k:
            found[name] = Undefined(f"needs at least {k + 1} {kind} images")
    return found


def _radii(points: Tensor, ranks: tuple[int, ...]) -> list[Tensor]:
    """Distances of every point to its k-th nearest others, [N] a k; nan where there is none."""
    most = min(max(ranks), len(points) - 1)
    # The nearest of all is the point itself, at distance 0.
    found = nearest(points, points, most + 1)
    nowhere = torch.full((len(points),), torch.nan, dtype=torch.float64)
    return [found[:, k] if k <= most else nowhere for k in ranks]
