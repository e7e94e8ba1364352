"""What every network has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Images to the mean and log-variance of q(z|x).

    The two heads end in a linear layer each.

    Args:
        image_size: Height and width of the images.
        channels: Channels C of the images.
        filters: Filters F of the widest convolution.
        latent_dims: Number of latents D.
        spread_dims: Numbers S that describe the spread of q(z|x); the first D are logvar.
    """

    proj_mu: nn.Module
    proj_logvar: nn.Module

    @abstractmethod
    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int,
        filters: int,
        latent_dims: int,
        spread_dims: int,
    ) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] -> mu [B, D] and the spread [B, S]."""


class Decoder(nn.Module, ABC):
    """Latents to the raw output of p(x|z), before the likelihood's sigmoid.

    Args:
        image_size: Height and width of the images.
        channels: Channels of the output, those of the likelihood's parameters.
        filters: Filters F of the widest convolution.
        latent_dims: Number of latents D.
    """

    @abstractmethod
    def __init__(
        self, image_size: tuple[int, int], channels: int, filters: int, latent_dims: int
    ) -> None:
        super().__init__()
        self.image_size = image_size

    @property
    @abstractmethod
    def output_bias(self) -> Tensor:
        """Bias of the last layer, [C]: what the raw output is where the features say nothing."""

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """z [B, D] -> raw output [B, C, H, W]."""

    def crop(self, x: Tensor) -> Tensor:
        """Cut an output of whole cells to the image size, [B, C, H, W]."""
        height, width = self.image_size
        return x[..., :height, :width]


def cells(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width of a feature map with `stride` pixels a cell, rounded up."""
    height, width = image_size
    return -(-height // stride), -(-width // stride)


def wide(x: Tensor) -> Tensor:
    """A tensor in float32 at least, in which densities are computed whatever the networks do."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
