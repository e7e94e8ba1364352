"""`convvae models`."""

from __future__ import annotations

from convvae.cli.flags import parse
from convvae.config import Frozen


class ModelsOptions(Frozen):
    """List the pretrained models."""


def models(args: list[str]) -> None:
    """List the pretrained models."""
    parse(ModelsOptions, args, "convvae models")
    from convvae.model.checkpoint import load_model, pretrained_models

    for name in pretrained_models():
        vae, metadata = load_model(name)
        assert metadata.bound is not None
        height, width = metadata.model.image_size
        print(
            f"{name:<15} {metadata.data} {height}x{width}x{metadata.model.channels}, "
            f"{metadata.model.latent_dims} latents, {metadata.model.likelihood}, "
            f"{vae.num_parameters():,} parameters, {metadata.epochs} epochs, "
            f"bound {metadata.bound:.2f} nats/image"
        )
