"""Nearest-neighbour upsampling followed by a 3x3 convolution, at 4/9 of the arithmetic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UpConv2d(nn.Conv2d):
    r"""Upsample x2 by nearest neighbour, then convolve 3x3 with padding 1.

    Every output pixel sees only 2x2 different input pixels: the three taps of a row, (w0, w1, w2),
    fall on two of them, as (w0, w1 + w2) for even rows and (w0 + w1, w2) for odd ones. That is a
    transposed convolution of stride 2 whose four taps are tied,

        k = (w2, w1 + w2, w0 + w1, w0),

    in both directions. It gives the same values and gradients as upsampling first,
    borders included, with 16 multiplications where the other needs 36.

    The parameters are those of the 3x3 convolution: weight [out, in, 3, 3], bias [out].
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, 2h, 2w]."""
        kernel = _tie(_tie(self.weight, 2), 3).transpose(0, 1)
        return F.conv_transpose2d(input, kernel, self.bias, stride=2, padding=1)


def _tie(weight: Tensor, dim: int) -> Tensor:
    """The four tied taps (w2, w1 + w2, w0 + w1, w0) of the three along a dimension."""
    w0, w1, w2 = weight.unbind(dim)
    return torch.stack((w2, w1 + w2, w0 + w1, w0), dim)
