"""Euclidean distances of all points of one set from all of another, a few rows at a time.

They are sums of squared differences: |a|^2 - 2 a . b + |b|^2 is faster and cancels, so that equal
points are not at 0 and equal distances differ, by another amount on every processor.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PAIRS_AT_ONCE = 2_500_000
"""Pairs of points that are compared at a time: 20 MB."""
TOLERANCE = 1e-6
"""Distances that differ by this share are equal: that much float32 rounds off what is compared."""


def rowwise(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Distances of rows of a [N, D] from b [M, D]: the rows, and their distances [rows, M].

    Both sets are made float64; memory grows with N and with M, not with their product.
    """
    a, b = a.double(), b.double()
    rows = max(1, PAIRS_AT_ONCE // max(1, len(b)))
    for start in range(0, len(a), rows):
        these = slice(start, start + rows)
        yield these, torch.cdist(a[these], b, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(a: Tensor, b: Tensor, count: int) -> Tensor:
    """Distances of every point of a [N, D] to its nearest ones of b [M, D], M >= count.

    Returns:
        Shape [N, count], float64, the smallest first.
    """
    found = [far.topk(count, dim=1, largest=False).values for _, far in rowwise(a, b)]
    return torch.cat(found) if found else a.new_zeros((0, count), dtype=torch.float64)


def within(far: Tensor, radius: Tensor) -> Tensor:
    """Whether distances are at most a radius, those on the edge included: bool."""
    return far <= radius * (1 + TOLERANCE)


def chosen_nearest(far: Tensor, count: int) -> Tensor:
    """The `count` nearest points of each row of distances [N, M]: bool [N, M], `count` True a row.

    Of points at the same distance the first ones are chosen.
    """
    edge = far.topk(count, dim=1, largest=False).values[:, -1:]
    inside = far < edge * (1 - TOLERANCE)
    level = within(far, edge) & ~inside
    room = count - inside.sum(1, keepdim=True)
    return inside | (level & (level.cumsum(1) <= room))
