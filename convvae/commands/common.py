"""What commands that open a model share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from tyro.conf import Positional, arg

from convvae.config import DeviceName, Frozen, UserPath
from convvae.errors import ModelMismatchError

if TYPE_CHECKING:
    from pathlib import Path

    from convvae.checkpoint import Facts
    from convvae.data import ImageSet
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


class LookOptions(ModelOptions):
    """A model and the test images to look at it with."""

    data: Positional[str | None] = None
    """Images: digits, mnist, fashion-mnist or kmnist; else those of the training."""
    data_dir: UserPath | None = None
    """Folder with the data files (else $CONVVAE_DATA, else downloaded)."""
    limit: int = Field(default=10_000, ge=1)
    """Take at most so many test images."""
    seed: int = Field(default=0, ge=0)
    """Seed of samples, draws of z and projections."""


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


def load_test_images(options: LookOptions, facts: Facts) -> ImageSet:
    """The first test images as the model takes them; binarised where it was trained on such.

    Raises:
        ConvvaeError: they cannot be had, or do not fit the model.
    """
    from convvae import data
    from convvae.data.pixels import binarize_once

    source = data.load(options.data or facts.data, "test", data_dir=options.data_dir)
    labels = None if source.labels is None else source.labels[: options.limit]
    some = replace(source, images=source.images[: options.limit], labels=labels)
    images = data.fit(some, facts.model.image_size, facts.model.channels)
    if facts.binarize != "none":
        images = binarize_once(images, "test", facts.binarize_seed)
    return replace(some, images=images)


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
