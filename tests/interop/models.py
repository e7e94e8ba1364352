"""Models to be written in other forms."""

import torch

from convvae.config import ModelConfig
from convvae.model.vae import VAE


def made(network, **settings):
    """A model whose weights and statistics are all its own: nothing is left at 0 or 1."""
    config = {"image_size": (16, 24), "channels": 3, "latent_dims": 3, "max_filters": 8}
    vae = VAE(ModelConfig(**(config | {"network": network} | settings)))
    vae.train()
    for _ in range(2):
        vae.decode(vae.encode(torch.rand(9, vae.config.channels, *vae.config.image_size)).location)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vae.eval()
