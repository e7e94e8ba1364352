"""`convvae info` and `convvae models`."""

from __future__ import annotations

import json
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from convvae.config import Frozen
from convvae.flags import parse


class InfoOptions(Frozen):
    """Say what a model is, from its own file."""

    model: Positional[str]
    """Run folder, .safetensors file, or name of a pretrained model."""
    as_json: Annotated[FlagCreatePairsOff[bool], arg(name="json")] = False
    """Print JSON."""


class ModelsOptions(Frozen):
    """List the pretrained models."""


def info(args: list[str]) -> None:
    """Say what a model is and how it was trained."""
    options = parse(InfoOptions, args, "convvae info")
    from convvae.checkpoint import find_model, load_model

    vae, facts = load_model(options.model)
    content = {**facts.model_dump(mode="json"), "parameters": vae.num_parameters()}
    if options.as_json:
        print(json.dumps(content, indent=2))
        return
    print(find_model(options.model))
    for name, value in {**content.pop("model"), **content}.items():
        print(f"  {name:<13} {_in_words(value)}")


def models(args: list[str]) -> None:
    """List the pretrained models."""
    parse(ModelsOptions, args, "convvae models")
    from convvae.checkpoint import load_model, pretrained_models

    for name in pretrained_models():
        vae, facts = load_model(name)
        assert facts.bound is not None
        height, width = facts.model.image_size
        print(
            f"{name:<12} {facts.data} {height}x{width}x{facts.model.channels}, "
            f"{facts.model.latent_dims} latents, {facts.model.likelihood}, "
            f"{vae.num_parameters():,} parameters, {facts.epochs} epochs, "
            f"bound {facts.bound:.2f} nats/image"
        )


def _in_words(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return "x".join(str(item) for item in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)
