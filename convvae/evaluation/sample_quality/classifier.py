"""The small classifier whose features stand for images like MNIST's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 28
"""Height and width that it takes."""
FEATURES = 64
"""Numbers F that stand for an image."""
CLASSES = 10
WIDTHS = (32, 32, 64, 32)
"""Filters of its convolutions; the second and the fourth halve the sides."""


class DigitClassifier(nn.Module):
    """Four convolutions, a layer of features, and the digit.

    The features are normalised, before any nonlinearity: over the training images each has mean 0
    and variance 1, so that none outweighs another in a distance.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *WIDTHS[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, stride=1 + place % 2, padding=1, bias=False)
            for place, (c_in, c_out) in enumerate(zip(inputs, WIDTHS, strict=True))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)
        self.embedding = nn.Linear(WIDTHS[-1] * (SIDE // 4) ** 2, FEATURES, bias=False)
        self.standard = nn.BatchNorm1d(FEATURES, affine=False)
        self.digits = nn.Linear(FEATURES, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """Images x [B, 1, 28, 28] in [0, 1] -> features [B, 64]."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return self.standard(self.embedding(x.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Images x [B, 1, 28, 28] in [0, 1] -> logits of the digits [B, 10]."""
        return self.digits(F.relu(self.features(x)))
