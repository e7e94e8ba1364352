"""The networks of other tools, built from their description: what convvae's weights must fit."""

from itertools import pairwise

import torch
from torch import nn


class TorchVAEEncoder(nn.Module):
    def __init__(self, dims, channels, filters, cells):
        super().__init__()
        widths = [channels, filters // 4, filters // 2, filters]
        for number, (width, out) in enumerate(pairwise(widths), 1):
            setattr(self, f"conv{number}", nn.Conv2d(width, out, 3, stride=2, padding=1))
            setattr(self, f"bn{number}", nn.BatchNorm2d(out))
        self.shortcut2 = nn.Conv2d(filters // 4, filters // 2, 1, stride=2)
        self.shortcut3 = nn.Conv2d(filters // 2, filters, 1, stride=2)
        self.proj_mu = nn.Linear(cells * filters, dims)
        self.proj_log_var = nn.Linear(cells * filters, dims)

    def forward(self, x):
        for number in "123":
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = nn.functional.leaky_relu(x)
        x = x.flatten(1)
        return self.proj_mu(x), self.proj_log_var(x)


class TorchVAEDecoder(nn.Module):
    def __init__(self, dims, channels, filters, grid):
        super().__init__()
        self.grid = grid
        self.lin1 = nn.Linear(dims, filters * grid[0] * grid[1])
        widths = [filters, filters // 2, filters // 4, channels]
        for number, (width, out) in enumerate(pairwise(widths), 1):
            layer = nn.ConvTranspose2d(width, out, 3, stride=2, padding=1, output_padding=1)
            setattr(self, f"conv{number}", layer)
        self.shortcut1 = nn.ConvTranspose2d(filters, filters // 2, 1, stride=2, output_padding=1)
        self.shortcut2 = nn.ConvTranspose2d(
            filters // 2, filters // 4, 1, stride=2, output_padding=1
        )
        self.bn1 = nn.BatchNorm2d(filters // 2)
        self.bn2 = nn.BatchNorm2d(filters // 4)

    def forward(self, z):
        h = self.lin1(z).unflatten(1, (-1, *self.grid))
        h = nn.functional.leaky_relu(self.bn1(self.conv1(h)))
        h = nn.functional.leaky_relu(self.bn2(self.conv2(h)))
        return self.conv3(h).sigmoid()


class TorchVAE(nn.Module):
    """The network of torch-vae; features flattened (F, h, w)."""

    def __init__(self, dims, channels=1, filters=8, grid=(8, 8)):
        super().__init__()
        self.encoder = TorchVAEEncoder(dims, channels, filters, grid[0] * grid[1])
        self.decoder = TorchVAEDecoder(dims, channels, filters, grid)


class Notebook(nn.Module):
    """The network of the 2-D notebook, with names of its own; logits."""

    def __init__(self, dims=2, filters=8, heads=("mean", "log_variance"), mean_head="mean"):
        super().__init__()

        def convolve(width):
            return [
                *(nn.Conv2d(width, filters, 5, padding=2), nn.MaxPool2d(2)),
                *(nn.BatchNorm2d(filters), nn.ReLU()),
            ]

        def hidden(inputs, outputs):
            return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]

        self.features = nn.Sequential(*convolve(1), *convolve(filters), nn.Flatten())
        self.heads = heads
        for name in heads:
            setattr(self, name, nn.Sequential(*hidden(49 * filters, 64), nn.Linear(64, dims)))
        self.mean_head = mean_head
        double = {"kernel_size": 5, "stride": 2, "padding": 2, "output_padding": 1}
        self.generator = nn.Sequential(
            *(*hidden(dims, 64), *hidden(64, 49 * filters), nn.Unflatten(1, (filters, 7, 7))),
            *(nn.ConvTranspose2d(filters, filters, **double), nn.BatchNorm2d(filters), nn.ReLU()),
            nn.ConvTranspose2d(filters, 1, **double),
        )

    def encode(self, x):
        h = self.features(x)
        values = {name: getattr(self, name)(h) for name in self.heads}
        (other,) = set(self.heads) - {self.mean_head}
        return values[self.mean_head], values[other]


def trained(network, run, x, steps=3):
    """The network after a few steps that make its statistics and weights its own."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        run(network, x).backward()
        optimizer.step()
    return network.eval()
