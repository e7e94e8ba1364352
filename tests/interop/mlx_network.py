"""The MLX tutorial's network, built in MLX itself with the names of its weight files."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

mx.set_default_device(mx.cpu)


class UpConv(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.upsample = nn.Upsample(2, mode="nearest")
        self.conv = nn.Conv2d(width, out, 3, padding=1)

    def __call__(self, h):
        return self.conv(self.upsample(h))


class Encoder(nn.Module):
    def __init__(self, dims, channels, filters, cells):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters // 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(filters // 4, filters // 2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(filters // 2, filters, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm(filters // 4)
        self.bn2 = nn.BatchNorm(filters // 2)
        self.bn3 = nn.BatchNorm(filters)
        self.proj_mu = nn.Linear(cells * filters, dims)
        self.proj_log_var = nn.Linear(cells * filters, dims)

    def __call__(self, x):
        h = nn.leaky_relu(self.bn1(self.conv1(x)))
        h = nn.leaky_relu(self.bn2(self.conv2(h)))
        h = nn.leaky_relu(self.bn3(self.conv3(h))).flatten(1)
        return self.proj_mu(h), self.proj_log_var(h)


class Decoder(nn.Module):
    def __init__(self, dims, channels, filters, grid):
        super().__init__()
        self.grid = (*grid, filters)
        self.lin1 = nn.Linear(dims, grid[0] * grid[1] * filters)
        self.upconv1 = UpConv(filters, filters // 2)
        self.upconv2 = UpConv(filters // 2, filters // 4)
        self.upconv3 = UpConv(filters // 4, channels)
        self.bn1 = nn.BatchNorm(filters // 2)
        self.bn2 = nn.BatchNorm(filters // 4)

    def __call__(self, z):
        h = self.lin1(z).reshape(-1, *self.grid)
        h = nn.leaky_relu(self.bn1(self.upconv1(h)))
        h = nn.leaky_relu(self.bn2(self.upconv2(h)))
        return mx.sigmoid(self.upconv3(h))


class CVAE(nn.Module):
    def __init__(self, dims, channels=1, filters=8, grid=(2, 3)):
        super().__init__()
        self.encoder = Encoder(dims, channels, filters, grid[0] * grid[1])
        self.decoder = Decoder(dims, channels, filters, grid)

    def __call__(self, x):
        mu, logvar = self.encoder(x)
        return self.decoder(mu + mx.exp(0.5 * logvar) * mx.random.normal(mu.shape)), mu, logvar


def trained(dims, channels, grid, steps=12):
    """The network after a few steps on images of all brightnesses: its weights are its own."""
    mx.random.seed(0)
    network = CVAE(dims, channels, grid=grid).train()
    shape = (16, 8 * grid[0], 8 * grid[1], channels)
    x = mx.random.uniform(shape=shape) * mx.linspace(0, 1, 16).reshape(16, 1, 1, 1)

    def loss(network):
        y, mu, logvar = network(x)
        return ((y - x) ** 2).sum() - 0.5 * (1 + logvar - mu**2 - mx.exp(logvar)).sum()

    optimizer = optim.AdamW(1e-2)
    value_and_grad = nn.value_and_grad(network, loss)
    for _ in range(steps):
        _, grads = value_and_grad(network)
        optimizer.update(network, grads)
        mx.eval(network.state, optimizer.state)
    return network.eval()


def decode(network, z):
    """z [B, D] -> images [B, C, H, W], as numpy arrays."""
    return np.array(network.decoder(mx.array(z))).transpose(0, 3, 1, 2)


def encode(network, x):
    """x [B, C, H, W] -> mu and logvar, as numpy arrays."""
    found = network.encoder(mx.array(x.transpose(0, 2, 3, 1)))
    return tuple(np.array(value) for value in found)
