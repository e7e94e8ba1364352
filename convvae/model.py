"""The VAE: encode an image to q(z|x), decode a latent to p(x|z), and the prior p(z)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convvae.config import ModelConfig
from convvae.distributions import (
    HEADS,
    ConditionalFlow,
    DiagonalGaussian,
    FlowPrior,
    FullGaussian,
    LearnedMixture,
    Likelihood,
    Posterior,
    Prior,
    StandardNormal,
    VampPrior,
)
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
        pair, dims = NETWORKS[config.network], config.latent_dims
        more = {"depth": config.depth} if pair.has_depth else {}
        spread = dims * (dims + 1) // 2 if config.posterior == "full" else dims
        self.head = HEADS[config.likelihood](config.variance)
        outputs = config.channels * self.head.outputs
        self.encoder: Encoder = pair.encoder(
            config.image_size, config.channels, config.max_filters, dims, spread, **more
        )
        self.decoder: Decoder = pair.decoder(
            config.image_size, outputs, config.max_filters, dims, **more
        )
        self.flow = ConditionalFlow(dims) if config.posterior == "flow" else None
        self.prior: Prior = self._make_prior()

    def _make_prior(self) -> Prior:
        config = self.config
        match config.prior:
            case "normal":
                return StandardNormal(config.latent_dims)
            case "mixture":
                return LearnedMixture(config.latent_dims, config.prior_components)
            case "flow":
                return FlowPrior(config.latent_dims)
            case "vamp":
                shape = (config.channels, *config.image_size)
                return VampPrior(
                    config.latent_dims, config.prior_components, shape, self._components
                )

    def _components(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar of images' posteriors, which a VampPrior mixes."""
        q = self.encode(images)
        assert isinstance(q, DiagonalGaussian)
        return q.mu, q.logvar

    def encode(self, x: Tensor) -> Posterior:
        """Images x [B, C, H, W] in [0, 1] -> posterior q(z|x) over z [B, D]."""
        mu, spread = self.encoder(x)
        mu, spread, dims = mu.float(), spread.float(), self.config.latent_dims
        logvar = spread[:, :dims].clamp(*LOGVAR_RANGE)
        if self.config.posterior == "full":
            return FullGaussian(mu, logvar, spread[:, dims:])
        base = DiagonalGaussian(mu, logvar)
        return base if self.flow is None else self.flow(base)

    def decode(self, z: Tensor) -> Likelihood:
        """Latents z [..., D] -> likelihood p(x|z) over x [..., C, H, W]."""
        output = self.decoder(z.reshape(-1, z.shape[-1]))
        return self.head(output.reshape(*z.shape[:-1], *output.shape[1:]).float())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def _repr_html_(self) -> str:
        """What a notebook shows: the settings of the model and its size."""
        config = self.config.model_dump(mode="json")
        config["image_size"] = "x".join(str(side) for side in self.config.image_size)
        lines = "".join(f"<tr><th>{name}<td>{value}" for name, value in config.items())
        size = f"{self.num_parameters():,} trainable parameters"
        return f"<p>VAE, {size}, on {self.device}</p><table>{lines}</table>"
