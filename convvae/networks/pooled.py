"""Two 5x5 convolutions with max-pooling and their mirror: the network `pooled`."""

from __future__ import annotations

from torch import Tensor, nn

from convvae.networks.base import Decoder, Encoder, cells

STRIDE = 4
"""Pixels of an image that one cell of the feature map covers, a side."""
HIDDEN = 64
"""Width of the hidden layer between the feature map and the latents."""


def _convolve(in_channels: int, filters: int) -> nn.Sequential:
    """Conv 5x5 -> MaxPool 2 -> BatchNorm -> ReLU; an odd border row is pooled alone."""
    return nn.Sequential(
        nn.Conv2d(in_channels, filters, 5, padding=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
    )


def _head(features: int, latent_dims: int) -> nn.Sequential:
    """Linear -> BatchNorm -> ReLU -> Linear."""
    return nn.Sequential(
        nn.Linear(features, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, latent_dims),
    )


def _double(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """A 5x5 transposed convolution that doubles height and width exactly."""
    return nn.ConvTranspose2d(in_channels, out_channels, 5, stride=2, padding=2, output_padding=1)


class PooledEncoder(Encoder):
    """2 x [Conv 5x5 -> MaxPool 2 -> BatchNorm -> ReLU], then two heads with a hidden layer."""

    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int,
        filters: int,
        latent_dims: int,
        spread_dims: int,
    ) -> None:
        super().__init__(image_size, channels, filters, latent_dims, spread_dims)
        h, w = cells(image_size, STRIDE)
        self.conv1 = _convolve(channels, filters)
        self.conv2 = _convolve(filters, filters)
        self.proj_mu = _head(h * w * filters, latent_dims)
        self.proj_logvar = _head(h * w * filters, spread_dims)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] -> mu [B, D] and the spread [B, S]."""
        h = self.conv2(self.conv1(x)).flatten(1)
        return self.proj_mu(h), self.proj_logvar(h)


class PooledDecoder(Decoder):
    """Two linear layers to (F, h, w), then two ConvTranspose 5x5 stride 2; cropped to H x W."""

    def __init__(
        self, image_size: tuple[int, int], channels: int, filters: int, latent_dims: int
    ) -> None:
        super().__init__(image_size, channels, filters, latent_dims)
        h, w = cells(image_size, STRIDE)
        self.lin1 = nn.Linear(latent_dims, HIDDEN)
        self.bn1 = nn.BatchNorm1d(HIDDEN)
        self.lin2 = nn.Linear(HIDDEN, h * w * filters)
        self.bn2 = nn.BatchNorm1d(h * w * filters)
        self.unflatten = nn.Unflatten(1, (filters, h, w))
        self.conv1 = _double(filters, filters)
        self.bn3 = nn.BatchNorm2d(filters)
        self.conv2 = _double(filters, channels)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, [C]."""
        assert self.conv2.bias is not None
        return self.conv2.bias

    def forward(self, z: Tensor) -> Tensor:
        """z [B, D] -> raw output [B, C, H, W]."""
        h = self.bn1(self.lin1(z)).relu()
        h = self.unflatten(self.bn2(self.lin2(h)).relu())
        h = self.bn3(self.conv1(h)).relu()
        return self.crop(self.conv2(h))
