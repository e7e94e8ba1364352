"""Residual blocks without batch statistics, for quality rather than size: `residual`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from convvae.networks.base import Decoder, Encoder, cells
from convvae.networks.upconv import UpConv2d

STRIDE = 8
"""Pixels of an image that one cell of the feature map covers, a side."""
SILU_GAIN = 1.7881
"""Keeps the variance of standard normal values through SiLU."""


class StandardizedConv2d(nn.Conv2d):
    r"""A 3x3 convolution with standardised weights, W = g (V - mean(V)) / (std(V) sqrt(n)).

    Mean and standard deviation run over the n inputs of each filter; g starts at SiLU's gain. The
    output keeps the variance of the input with no statistic of images: scoring an image alone or in
    a batch is the same, and there is no pass over the feature map.

    Source: Brock et al. 2021, https://arxiv.org/abs/2101.08692
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1)
        self.gain = nn.Parameter(torch.full((out_channels, 1, 1, 1), SILU_GAIN))

    def forward(self, input: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, h / stride, w / stride], rounded up."""
        inputs = math.prod(self.weight.shape[1:])
        var, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        scale = self.gain * torch.rsqrt(var * inputs + 1e-4)
        return self._conv_forward(input, (self.weight - mean) * scale, self.bias)


class ResidualBlock(nn.Module):
    """x + a f(x), with f two pre-activated 3x3 convolutions and a a learnt scalar, 0 at first.

    Source: He et al. 2016, https://arxiv.org/abs/1603.05027; De & Smith 2020,
    https://arxiv.org/abs/2002.10444
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = StandardizedConv2d(channels, channels)
        self.conv2 = StandardizedConv2d(channels, channels)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        return x + self.scale * self.conv2(silu(self.conv1(silu(x))))


def _stage(channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))


class ResidualEncoder(Encoder):
    """3 x [Conv 3x3 stride 2 -> residual blocks], C -> F/2 -> F -> F, then the heads.

    Args:
        depth: Residual blocks a resolution.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int,
        filters: int,
        latent_dims: int,
        spread_dims: int,
        depth: int,
    ) -> None:
        super().__init__(image_size, channels, filters, latent_dims, spread_dims)
        h, w = cells(image_size, STRIDE)
        self.conv1 = nn.Conv2d(channels, filters // 2, 3, stride=2, padding=1)
        self.stage1 = _stage(filters // 2, depth)
        self.conv2 = StandardizedConv2d(filters // 2, filters, stride=2)
        self.stage2 = _stage(filters, depth)
        self.conv3 = StandardizedConv2d(filters, filters, stride=2)
        self.stage3 = _stage(filters, depth)
        self.proj_mu = nn.Linear(h * w * filters, latent_dims)
        self.proj_logvar = nn.Linear(h * w * filters, spread_dims)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] -> mu [B, D] and the spread [B, S]."""
        h = self.stage1(self.conv1(x))
        h = self.stage2(self.conv2(silu(h)))
        h = self.stage3(self.conv3(silu(h)))
        h = silu(h).permute(0, 2, 3, 1).flatten(1)
        return self.proj_mu(h), self.proj_logvar(h)


class ResidualDecoder(Decoder):
    """Linear -> (h, w, F), then 3 x [residual blocks -> up-convolution], -> F -> F/2 -> F/4.

    A last 3x3 convolution gives the raw output, cropped to H x W.

    Args:
        depth: Residual blocks a resolution.
    """

    def __init__(
        self, image_size: tuple[int, int], channels: int, filters: int, latent_dims: int, depth: int
    ) -> None:
        super().__init__(image_size, channels, filters, latent_dims)
        self.grid = (*cells(image_size, STRIDE), filters)
        self.lin1 = nn.Linear(latent_dims, math.prod(self.grid))
        self.stage1 = _stage(filters, depth)
        self.upconv1 = UpConv2d(filters, filters)
        self.stage2 = _stage(filters, depth)
        self.upconv2 = UpConv2d(filters, filters // 2)
        self.stage3 = _stage(filters // 2, depth)
        self.upconv3 = UpConv2d(filters // 2, filters // 4)
        self.conv = nn.Conv2d(filters // 4, channels, 3, padding=1)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, [C]."""
        assert self.conv.bias is not None
        return self.conv.bias

    def forward(self, z: Tensor) -> Tensor:
        """z [B, D] -> raw output [B, C, H, W]."""
        h = self.lin1(z).unflatten(1, self.grid).permute(0, 3, 1, 2)
        h = self.upconv1(silu(self.stage1(h)))
        h = self.upconv2(silu(self.stage2(h)))
        h = self.upconv3(silu(self.stage3(h)))
        return self.crop(self.conv(silu(h)))
