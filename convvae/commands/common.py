"""What commands that open a model share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from tyro.conf import FlagCreatePairsOff, Positional, arg

from convvae.config import DeviceName, Frozen, UserPath
from convvae.errors import ModelMismatchError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from convvae.checkpoint import Facts
    from convvae.data import ImageSet, Part, Preparation, Split, Stream
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


class DataOptions(ModelOptions):
    """Which model, and which images; the images become what the model takes."""

    data: Positional[str | None] = None
    """A name, a path or hf:OWNER/NAME, as in training; else the images of the training."""
    data_dir: UserPath | None = None
    """Folder with the files of a published data set (else $CONVVAE_DATA, else downloaded)."""
    crop: bool | None = None
    """Cut images to the model's aspect at the centre, or pad them (else as in training)."""
    split: str | None = None
    """How one's own are divided: auto, folders, a share held out, none (else as in training)."""
    skip_bad: FlagCreatePairsOff[bool] = False
    """Leave out files that cannot be read."""


class LookOptions(DataOptions):
    """A model and the test images to look at it with."""

    limit: int = Field(default=10_000, ge=1)
    """Take at most so many test images, drawn by the seed."""
    seed: int = Field(default=0, ge=0)
    """Seed of samples, draws of z and projections."""


def meant(options: DataOptions, facts: Facts) -> str:
    """The source that a command means: a name, or an absolute path."""
    from convvae.data import canonical

    return facts.data if options.data is None else canonical(options.data)


def division(options: DataOptions, facts: Facts) -> str:
    """The rule by which the images of a command are divided.

    Images of one's own that were not those of the training are not divided unless asked for: all of
    them are test images.
    """
    from convvae.data import undivided

    word = meant(options, facts)
    return options.split or (facts.split if word == facts.data else undivided(word))


def preparation(options: DataOptions, facts: Facts) -> Preparation:
    """What the images of a command become: of the model's size and channels."""
    from convvae.data import Preparation

    return Preparation(
        image_size=facts.model.image_size,
        channels=facts.model.channels,
        crop=facts.crop if options.crop is None else options.crop,
        split=division(options, facts),
        skip_bad=options.skip_bad or (meant(options, facts) == facts.data and facts.skip_bad),
    )


def open_images(options: DataOptions, facts: Facts, split: Split) -> ImageSet:
    """The images of a command, of the model's size and channels.

    Raises:
        ConvvaeError: they cannot be read, each reason with its own class.
    """
    from convvae import data

    word, prepare = meant(options, facts), preparation(options, facts)
    return data.load(word, split, data_dir=options.data_dir, prepare=prepare)


def open_stream(options: DataOptions, facts: Facts, part: Part) -> Stream:
    """The same, read a batch at a time.

    Raises:
        ConvvaeError: they cannot be read, each reason with its own class.
    """
    from convvae import data

    word, prepare = meant(options, facts), preparation(options, facts)
    return data.stream(word, part, data_dir=options.data_dir, prepare=prepare)


def training_images(facts: Facts, split: Split, data_dir: Path | None) -> ImageSet:
    """The images that a model was trained on, or those held out of them, as it saw them.

    Raises:
        ConvvaeError: they cannot be read, each reason with its own class.
    """
    from convvae import data

    prepare = data.Preparation(
        image_size=facts.model.image_size,
        channels=facts.model.channels,
        crop=facts.crop,
        split=facts.split,
        skip_bad=facts.skip_bad,
    )
    return data.load(facts.data, split, data_dir=data_dir, prepare=prepare)


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
    """Test images as the model takes them; binarised where it was trained on such.

    Raises:
        ConvvaeError: they cannot be had, or do not fit the model.
    """
    source = open_images(options, facts, "test")
    shown = replace(source, images=as_trained(source.images, facts, "test"))
    return shown.some(options.limit, options.seed)


def as_trained(images: Tensor, facts: Facts, split: Split) -> Tensor:
    """Images uint8 [N, C, H, W]; in black and white if the model was trained on such."""
    from convvae.data.pixels import binarize_once

    once = facts.binarize != "none"
    return binarize_once(images, split, facts.binarize_seed) if once else images


def fit_prior(
    vae: VAE, facts: Facts, sampler: SamplerName, data_dir: Path | None, seed: int
) -> None:
    """Put a density fitted to the codes of a model's training images in the place of its prior.

    Raises:
        MissingExtraError: a flow is asked for and its library is not installed.
        ConvvaeError: the training images cannot be loaded, each with its own class.
    """
    from convvae import samplers

    images = as_trained(training_images(facts, "train", data_dir).images, facts, "train")
    vae.prior = samplers.fit_sampler(sampler, vae, images, seed=seed).to(vae.device)
