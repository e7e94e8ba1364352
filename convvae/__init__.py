"""Convolutional variational autoencoders: train them on images, look inside them, ship them.

The names below are imported when they are first used, so that `import convvae` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convvae.api import compare, encode, evaluate, generate, load_images, reconstruct, train
    from convvae.config import ModelConfig, TrainConfig
    from convvae.estimator import ConvVAE
    from convvae.model.checkpoint import load_model
    from convvae.model.objectives import elbo
    from convvae.model.vae import VAE

    __version__: str

__all__ = [
    "VAE",
    "ConvVAE",
    "ModelConfig",
    "TrainConfig",
    "__version__",
    "compare",
    "elbo",
    "encode",
    "evaluate",
    "generate",
    "load_images",
    "load_model",
    "reconstruct",
    "train",
]

_HOMES = {
    "VAE": "model.vae",
    "ConvVAE": "estimator",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "compare": "api",
    "elbo": "model.objectives",
    "encode": "api",
    "evaluate": "api",
    "generate": "api",
    "load_images": "api",
    "load_model": "model.checkpoint",
    "reconstruct": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "__version__":
        from importlib.metadata import version

        return version("convvae")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
