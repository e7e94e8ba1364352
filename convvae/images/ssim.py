"""How alike two images look: the structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor

SSIM_WINDOW = 11
"""Side of the Gaussian window, in pixels."""
SIGMA = 1.5
"""Its standard deviation, in pixels."""
K1, K2 = 0.01, 0.03
"""Of the constants C1 = K1^2 and C2 = K2^2, for values in [0, 1]."""


def ssim(x: Tensor, y: Tensor) -> Tensor:
    r"""The structural similarity of pairs of images, 1 where they are equal.

        SSIM = mean of (2 mu_x mu_y + C1) (2 s_xy + C2)
                       / ((mu_x^2 + mu_y^2 + C1) (s_x^2 + s_y^2 + C2))

    over the channels and over every place where the whole 11x11 window lies inside the image: mu
    and s are means, variances and the covariance (divided by the window's weight, not by one less)
    under a Gaussian window of standard deviation 1.5. Two constant images differ by their mean
    alone. Images are not shrunk beforehand.

    Args:
        x: Images, shape [N, C, H, W], in [0, 1]; H and W at least 11.
        y: The others, of the same shape.

    Returns:
        Shape [N], float64, in [-1, 1], without unit.

    Source: Wang, Bovik, Sheikh & Simoncelli 2004, https://doi.org/10.1109/TIP.2003.819861
    """
    assert x.shape == y.shape
    assert min(x.shape[-2:]) >= SSIM_WINDOW
    x, y = x.double(), y.double()
    down, across = (_band(side).to(x.device) for side in x.shape[-2:])

    def local(values: Tensor) -> Tensor:
        return down @ values @ across.mT

    mu_x, mu_y = local(x), local(y)
    # A variance is not negative; rounding alone could make it so.
    var_x = (local(x * x) - mu_x * mu_x).clamp_min(0)
    var_y = (local(y * y) - mu_y * mu_y).clamp_min(0)
    covariance = local(x * y) - mu_x * mu_y
    c1, c2 = K1**2, K2**2
    means = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)
    structures = (2 * covariance + c2) / (var_x + var_y + c2)
    return (means * structures).flatten(1).mean(1)


def _band(side: int) -> Tensor:
    """The window along one side as a matrix: [side - 10, side], every row a shifted Gaussian."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights /= weights.sum()
    places = side - SSIM_WINDOW + 1
    band = torch.zeros(places, side, dtype=torch.float64)
    for offset in range(SSIM_WINDOW):
        band[torch.arange(places), torch.arange(places) + offset] = weights[offset]
    return band
