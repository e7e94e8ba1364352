"""What commands that open a model share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from convvae.config import DeviceName, Frozen
from convvae.errors import ModelMismatchError

if TYPE_CHECKING:
    from pathlib import Path

    from convvae.checkpoint import Facts
    from convvae.model import VAE
    from convvae.samplers import SamplerName


class ModelOptions(Frozen):
    """Which model; and the tutorials' flags that repeat what the model file knows."""

    model: Positional[str]
    """Run folder, .safetensors file, or name of a pretrained model."""
    latent_dims: int | None = None
    """Not needed; refused if the model has another number."""
    max_filters: int | None = None
    """Not needed; refused if the model has another number."""
    channels: Annotated[int | None, arg(aliases=["--nimg-channels"])] = None
    """Not needed; refused if the model has another number."""
    device: DeviceName = "auto"
    """Where to compute (--cpu is short for --device cpu)."""


def open_model(options: ModelOptions) -> tuple[VAE, Facts]:
    """The model of a command on its device.

    Raises:
        ModelFileError: there is no such model.
        ModelMismatchError: a flag contradicts the model file.
    """
    from convvae.checkpoint import load_model
    from convvae.runtime import pick_device

    vae, facts = load_model(options.model)
    for name in ("latent_dims", "max_filters", "channels"):
        asked, actual = getattr(options, name), getattr(facts.model, name)
        if asked not in (None, actual):
            raise ModelMismatchError(
                f"--{name} {asked} contradicts the model {options.model}, which has {actual}; "
                "leave the flag out, the model file knows"
            )
    return vae.to(pick_device(options.device)), facts


def fit_prior(
    vae: VAE, facts: Facts, sampler: SamplerName, data_dir: Path | None, seed: int
) -> None:
    """Put a density fitted to the codes of a model's training images in the place of its prior.

    Raises:
        MissingExtraError: a flow is asked for and its library is not installed.
        ConvvaeError: the training images cannot be loaded, each with its own class.
    """
    from convvae import data, samplers
    from convvae.data.pixels import binarize_once

    source = data.load(facts.data, "train", data_dir=data_dir)
    images = data.fit(source, facts.model.image_size, facts.model.channels)
    if facts.binarize != "none":
        images = binarize_once(images, "train", facts.binarize_seed)
    vae.prior = samplers.fit_sampler(sampler, vae, images, seed=seed).to(vae.device)
