"""Three strided convolutions and their two mirrors: the networks `upsample` and `transposed`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from convvae.networks.base import Decoder, Encoder, cells
from convvae.networks.upconv import UpConv2d

STRIDE = 8
"""Pixels of an image that one cell of the feature map covers, a side."""


class StridedEncoder(Encoder):
    """3 x [Conv 3x3 stride 2 -> BatchNorm -> LeakyReLU], C -> F/4 -> F/2 -> F, then two heads.

    The feature map is flattened in (h, w, F) order, as channels-last frameworks do.
    """

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
        self.conv1 = nn.Conv2d(channels, filters // 4, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(filters // 4)
        self.conv2 = nn.Conv2d(filters // 4, filters // 2, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(filters // 2)
        self.conv3 = nn.Conv2d(filters // 2, filters, 3, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(filters)
        self.proj_mu = nn.Linear(h * w * filters, latent_dims)
        self.proj_logvar = nn.Linear(h * w * filters, spread_dims)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] -> mu [B, D] and the spread [B, S]."""
        h = _rectify(self.bn1(self.conv1(x)))
        h = _rectify(self.bn2(self.conv2(h)))
        h = _rectify(self.bn3(self.conv3(h)))
        h = h.permute(0, 2, 3, 1).flatten(1)
        return self.proj_mu(h), self.proj_logvar(h)


class UpsampleDecoder(Decoder):
    """Linear -> (h, w, F), then 3 x [nearest upsample x2 -> Conv 3x3], F -> F/2 -> F/4 -> C.

    BatchNorm and LeakyReLU follow the first two; the last gives the raw output, cropped to H x W.
    """

    def __init__(
        self, image_size: tuple[int, int], channels: int, filters: int, latent_dims: int
    ) -> None:
        super().__init__(image_size, channels, filters, latent_dims)
        self.grid = (*cells(image_size, STRIDE), filters)
        self.lin1 = _fan_out(latent_dims, self.grid[0] * self.grid[1] * filters)
        self.upconv1 = UpConv2d(filters, filters // 2)
        self.bn1 = nn.BatchNorm2d(filters // 2)
        self.upconv2 = UpConv2d(filters // 2, filters // 4)
        self.bn2 = nn.BatchNorm2d(filters // 4)
        self.upconv3 = UpConv2d(filters // 4, channels)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, [C]."""
        assert self.upconv3.bias is not None
        return self.upconv3.bias

    def forward(self, z: Tensor) -> Tensor:
        """z [B, D] -> raw output [B, C, H, W]."""
        h = self.lin1(z).unflatten(1, self.grid).permute(0, 3, 1, 2)
        h = _rectify(self.bn1(self.upconv1(h)))
        h = _rectify(self.bn2(self.upconv2(h)))
        return self.crop(self.upconv3(h))


class TransposedDecoder(Decoder):
    """Linear -> (h, w, F), then 3 x [ConvTranspose 3x3 stride 2], F -> F/2 -> F/4 -> C.

    BatchNorm and LeakyReLU follow the first two; the last gives the raw output, cropped to H x W.

    Source: the decoder of torch-vae, https://github.com/menzHSE/torch-vae
    """

    def __init__(
        self, image_size: tuple[int, int], channels: int, filters: int, latent_dims: int
    ) -> None:
        super().__init__(image_size, channels, filters, latent_dims)
        self.grid = (*cells(image_size, STRIDE), filters)
        self.lin1 = _fan_out(latent_dims, self.grid[0] * self.grid[1] * filters)
        self.conv1 = _double(filters, filters // 2)
        self.bn1 = nn.BatchNorm2d(filters // 2)
        self.conv2 = _double(filters // 2, filters // 4)
        self.bn2 = nn.BatchNorm2d(filters // 4)
        self.conv3 = _double(filters // 4, channels)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, [C]."""
        assert self.conv3.bias is not None
        return self.conv3.bias

    def forward(self, z: Tensor) -> Tensor:
        """z [B, D] -> raw output [B, C, H, W]."""
        h = self.lin1(z).unflatten(1, self.grid).permute(0, 3, 1, 2)
        h = _rectify(self.bn1(self.conv1(h)))
        h = _rectify(self.bn2(self.conv2(h)))
        return self.crop(self.conv3(h))


def _fan_out(latent_dims: int, features: int) -> nn.Linear:
    """The linear layer out of the latents, its weights drawn for both of its unequal sides.

    With few inputs and thousands of outputs, weights drawn for the inputs alone are so large that
    training spends its first epochs on unlearning them.

    Source: Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html
    """
    layer = nn.Linear(latent_dims, features)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def _double(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """A 3x3 transposed convolution that doubles height and width exactly."""
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)


def _rectify(h: Tensor) -> Tensor:
    """LeakyReLU with slope 0.01, over its input: nothing else needs what went in."""
    return leaky_relu(h, 0.01, inplace=True)
