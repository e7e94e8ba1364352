"""The VAE: encode an image to q(z|x), decode a latent to p(x|z), and the prior p(z)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convvae.config import ModelConfig
from convvae.distributions import DiagonalGaussian, Likelihood, StandardNormal, likelihood
from convvae.networks import NETWORKS, Decoder, Encoder

LOGVAR_RANGE = (-20.0, 10.0)
"""Log-variances are clamped to this range, so that exp(logvar) neither overflows nor vanishes."""


class VAE(nn.Module):
    """A convolutional variational autoencoder.

    It knows no objective, optimiser or file. In training mode batch normalisation uses the
    statistics of the batch, in evaluation mode (`vae.eval()`) its running averages.

    Source: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Examples:
        >>> vae = VAE(ModelConfig(image_size=(28, 28), channels=1, latent_dims=2))
        >>> q = vae.encode(torch.rand(5, 1, 28, 28))
        >>> p = vae.decode(q.mean)
        >>> p.mean.shape
        torch.Size([5, 1, 28, 28])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        pair = NETWORKS[config.network]
        sizes = (config.image_size, config.channels, config.max_filters, config.latent_dims)
        more = {"depth": config.depth} if pair.has_depth else {}
        self.encoder: Encoder = pair.encoder(*sizes, **more)
        self.decoder: Decoder = pair.decoder(*sizes, **more)
        self.prior = StandardNormal(config.latent_dims)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Images x [B, C, H, W] in [0, 1] -> posterior q(z|x) over z [B, D]."""
        mu, logvar = self.encoder(x)
        return DiagonalGaussian(mu.float(), logvar.float().clamp(*LOGVAR_RANGE))

    def decode(self, z: Tensor) -> Likelihood:
        """Latents z [..., D] -> likelihood p(x|z) over x [..., C, H, W]."""
        output = self.decoder(z.reshape(-1, z.shape[-1]))
        output = output.reshape(*z.shape[:-1], *output.shape[1:])
        return likelihood(self.config.likelihood, output.float(), self.config.variance)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
