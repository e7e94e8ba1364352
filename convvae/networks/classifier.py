"""The classifier q(y|x) of a model that learns from images of which some have no label."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from convvae.networks.base import cells, wide

STRIDE = 8
"""Pixels of an image that one cell of the last map covers, a side."""


class Classifier(nn.Module):
    """3 x [Conv 3x3 stride 2 -> LeakyReLU], C -> F/4 -> F/2 -> F, then a linear layer.

    It has no batch normalisation: what it says of an image does not depend on others.

    Args:
        image_size: Height and width of the images.
        channels: Channels C of the images.
        filters: Filters F of the widest convolution.
        labels: Number of labels.
    """

    def __init__(
        self, image_size: tuple[int, int], channels: int, filters: int, labels: int
    ) -> None:
        super().__init__()
        h, w = cells(image_size, STRIDE)
        self.conv1 = nn.Conv2d(channels, filters // 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(filters // 4, filters // 2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(filters // 2, filters, 3, stride=2, padding=1)
        self.lin = nn.Linear(h * w * filters, labels)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> log q(y|x) of every label, nats, float32."""
        h = leaky_relu(self.conv1(x))
        h = leaky_relu(self.conv2(h))
        h = leaky_relu(self.conv3(h))
        return wide(self.lin(h.flatten(1))).log_softmax(1)
