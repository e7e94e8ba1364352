"""Convolutional variational autoencoders: train them on images, look inside them, ship them.

The names below are imported when they are first used, so that `import convvae` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convvae.checkpoint import load_model
    from convvae.config import ModelConfig, TrainConfig
    from convvae.model import VAE
    from convvae.objectives import elbo

__all__ = ["VAE", "ModelConfig", "TrainConfig", "elbo", "load_model"]

_HOMES = {
    "VAE": "model",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "elbo": "objectives",
    "load_model": "checkpoint",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
