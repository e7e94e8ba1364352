"""The network before what makes the engine fast: upsampling done, images in NCHW order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convvae.model.vae import VAE
from convvae.networks import UpConv2d


class PlainUpConv2d(nn.Conv2d):
    """Upsample x2 by nearest neighbour, then convolve 3x3 with padding 1, one after the other.

    Args:
        fast: The layer to stand in for; it lends its parameters.
    """

    def __init__(self, fast: UpConv2d) -> None:
        super().__init__(fast.in_channels, fast.out_channels, kernel_size=3, padding=1)
        self.weight, self.bias = fast.weight, fast.bias

    def forward(self, input: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, 2h, 2w]."""
        return super().forward(F.interpolate(input, scale_factor=2.0, mode="nearest"))


def upsample_plainly(vae: VAE) -> None:
    """Put plain up-convolutions in place of those by phases, with the same parameters."""
    for name, layer in list(vae.decoder.named_children()):
        if isinstance(layer, UpConv2d):
            setattr(vae.decoder, name, PlainUpConv2d(layer))


def use_nchw(vae: VAE) -> None:
    """Keep weights and feature maps in NCHW order.

    The decoder's first feature map is channels-last by its making, and all that follow would be.
    """
    vae.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    for layer in vae.decoder.children():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(_contiguous)


def _contiguous(_layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].contiguous()
