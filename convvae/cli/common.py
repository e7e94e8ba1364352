"""What several commands share."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from convvae.cli.flags import as_flags
from convvae.cli.options import Switch
from convvae.config import DeviceName, Flag, Frozen, UserPath, beside_labels
from convvae.errors import ModelMismatchError, UsageError
from convvae.files import check_free

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from convvae.data import ImageSet, Part, Preparation, Split, Stream
    from convvae.evaluation.fitted_priors import SamplerName
    from convvae.model.checkpoint import ModelMetadata
    from convvae.model.vae import VAE


class ModelOptions(Frozen):
    """Which model; and the tutorials' flags that repeat what the model file knows."""

    model: Annotated[str, Flag(positional=True)]
    """Run folder, .safetensors file, or name of a pretrained model."""
    latent_dims: int | None = None
    """Not needed; refused if the model has another number."""
    max_filters: int | None = None
    """Not needed; refused if the model has another number."""
    channels: Annotated[int | None, Flag(aliases=("--nimg-channels",))] = None
    """Not needed; refused if the model has another number."""
    device: DeviceName = "auto"
    """Where to compute (--cpu is short for --device cpu)."""


class OutputOptions(Frozen):
    """What becomes of files that are there."""

    overwrite: Switch = False
    """Replace files that are there; what the command reads is never replaced."""


class DataOptions(ModelOptions):
    """Which model, and which images; the images become what the model takes."""

    data: Annotated[str | None, Flag(positional=True)] = None
    """A name, a path or hf:OWNER/NAME, as in training; else the images of the training."""
    data_dir: UserPath | None = None
    """Folder with the files of a published data set (else $CONVVAE_DATA, else downloaded)."""
    crop: bool | None = None
    """Cut images to the model's aspect at the centre, or pad them (else as in training)."""
    split: str | None = None
    """How one's own are divided: auto, folders, a share held out, none (else as in training)."""
    skip_bad: Switch = False
    """Leave out files that cannot be read."""


class LookOptions(DataOptions):
    """A model and the test images to look at it with."""

    limit: int = Field(default=10_000, ge=1)
    """Take at most so many test images, drawn by the seed."""
    seed: int = Field(default=0, ge=0)
    """Seed of samples, draws of z and projections."""


def meant(options: DataOptions, metadata: ModelMetadata) -> str:
    """The source that a command means: a name, or an absolute path."""
    from convvae.data import canonical

    return trained_on(metadata) if options.data is None else canonical(options.data)


def trained_on(metadata: ModelMetadata) -> str:
    """The images of a model's training, as its file names them: published, or on this machine.

    A file that a stranger made does not choose whom this machine talks to.

    Raises:
        UsageError: they would be fetched from the Hub, or from an address.
    """
    from convvae.data.own.hub import LOCAL, PREFIX
    from convvae.data.own.shards import is_address

    word = metadata.data
    kind, _, path = word.removeprefix(PREFIX).partition(":")
    of_hub = word.startswith(PREFIX) and not (kind in LOCAL and os.path.exists(path))  # noqa: PTH110
    if of_hub or is_address(word):
        raise UsageError(
            f"the model file names {word!r} as its images, and that is not on this machine; if you "
            "trust it, name it yourself, else name images of your own"
        )
    return word


def division(options: DataOptions, metadata: ModelMetadata) -> str:
    """The rule by which the images of a command are divided.

    Images of one's own that were not those of the training are not divided unless asked for: all of
    them are test images.
    """
    from convvae.data import undivided

    word = meant(options, metadata)
    return options.split or (metadata.split if word == metadata.data else undivided(word))


def preparation(
    options: DataOptions, metadata: ModelMetadata, mask: str | None = None
) -> Preparation:
    """What the images of a command become: of the model's size and channels.

    Pixels that they mark are missing where `mask` says so, or where they were in the training.
    """
    from convvae.data import Preparation
    from convvae.evaluation.masks import MARKED

    as_trained = mask is None and meant(options, metadata) == metadata.data

    return Preparation(
        image_size=metadata.model.image_size,
        channels=metadata.model.channels,
        crop=metadata.crop if options.crop is None else options.crop,
        split=division(options, metadata),
        skip_bad=options.skip_bad
        or (meant(options, metadata) == metadata.data and metadata.skip_bad),
        marked=(metadata.mask if as_trained else mask) == MARKED,
        columns=told_columns(metadata),
    )


def told_columns(metadata: ModelMetadata) -> tuple[str, ...]:
    """The columns that a model is told beside the label of an image."""
    condition = metadata.model.condition
    return () if condition is None else beside_labels(condition.words)


def open_images(
    options: DataOptions, metadata: ModelMetadata, split: Split, mask: str | None = None
) -> ImageSet:
    """The images of a command, of the model's size and channels.

    Args:
        options: Of the command.
        metadata: Of the model.
        split: Which images.
        mask: `marked` where pixels that the images mark are missing.

    Raises:
        ConvvaeError: they cannot be read, each reason with its own class.
    """
    from convvae import data

    word, prepare = meant(options, metadata), preparation(options, metadata, mask)
    return data.load(word, split, data_dir=options.data_dir, prepare=prepare)


def open_stream(
    options: DataOptions, metadata: ModelMetadata, part: Part, mask: str | None = None
) -> Stream:
    """The same, read a batch at a time.

    Raises:
        ConvvaeError: they cannot be read, each reason with its own class.
    """
    from convvae import data

    word, prepare = meant(options, metadata), preparation(options, metadata, mask)
    return data.stream(word, part, data_dir=options.data_dir, prepare=prepare)


def check_outputs(
    options: OutputOptions,
    paths: Sequence[Path],
    setting: str,
    *,
    model: str | Path | None = None,
    data: str | None = None,
) -> None:
    """Refuse to write over what is there, and over what the command reads, before the work.

    Args:
        options: Whether what is there is replaced.
        paths: What the command would write.
        setting: Name of the setting that chooses another place.
        model: The model that it reads.
        data: The source of images that it reads; of a folder, the images.

    Raises:
        OutputError: one of the paths exists, or is read.
    """
    from convvae.data import file_of
    from convvae.data.items import has_image_suffix
    from convvae.model.checkpoint import find_model

    read = [] if model is None else [find_model(model)]
    place = None if data is None else file_of(data)
    if place is not None:
        inside = (path for path in paths if path.resolve().is_relative_to(place.resolve()))
        read += [place, *(path for path in inside if has_image_suffix(path.name))]
    check_free(paths, setting, overwrite=options.overwrite, inputs=read)


def training_images(
    metadata: ModelMetadata, split: Split, data_dir: Path | None, named: str | None = None
) -> ImageSet:
    """The images that a model was trained on, or those held out of them, as it saw them.

    Args:
        metadata: What its file says.
        split: Which of them.
        data_dir: Folder with the files of a published set.
        named: Images that the user named, by which the file's own are known to be meant.

    Raises:
        ConvvaeError: they cannot be read, each reason with its own class.
    """
    from convvae import data
    from convvae.evaluation.masks import MARKED

    prepare = data.Preparation(
        image_size=metadata.model.image_size,
        channels=metadata.model.channels,
        crop=metadata.crop,
        split=metadata.split,
        skip_bad=metadata.skip_bad,
        marked=metadata.mask == MARKED,
        columns=told_columns(metadata),
    )
    meant_so = named is not None and data.canonical(named) == metadata.data
    word = metadata.data if meant_so else trained_on(metadata)
    return data.load(word, split, data_dir=data_dir, prepare=prepare)


def open_model(options: ModelOptions) -> tuple[VAE, ModelMetadata]:
    """The model of a command on its device.

    Raises:
        ModelFileError: there is no such model.
        ModelMismatchError: a flag contradicts the model file.
    """
    from convvae.model.checkpoint import load_model
    from convvae.runtime import pick_device

    vae, metadata = load_model(options.model)
    for name in ("latent_dims", "max_filters", "channels"):
        asked, actual = getattr(options, name), getattr(metadata.model, name)
        if asked not in (None, actual):
            raise ModelMismatchError(
                f"`{name}={asked}` contradicts the model {options.model}, which has {actual}; "
                "leave the flag out, the model file knows"
            )
    return vae.to(pick_device(options.device)), metadata


def load_test_images(options: LookOptions, metadata: ModelMetadata) -> ImageSet:
    """Test images as the model takes them; binarised where it was trained on such.

    Raises:
        ConvvaeError: they cannot be had, or do not fit the model.
    """
    source = open_images(options, metadata, "test")
    shown = replace(source, images=as_trained(source.images, metadata, "test"))
    return shown.some(options.limit, options.seed)


def as_trained(images: Tensor, metadata: ModelMetadata, split: Split) -> Tensor:
    """Images uint8 [N, C, H, W]; in black and white if the model was trained on such."""
    from convvae.data.pixels import binarize_once

    once = metadata.binarize != "none"
    return binarize_once(images, split, metadata.binarize_seed) if once else images


def fit_prior(
    vae: VAE,
    metadata: ModelMetadata,
    sampler: SamplerName,
    data_dir: Path | None,
    seed: int,
    named: str | None = None,
) -> None:
    """Put a density fitted to the codes of a model's training images in the place of its prior.

    They are found as by `training_images`.

    Raises:
        MissingExtraError: a flow is asked for and its library is not installed.
        ConvvaeError: the training images cannot be loaded, each with its own class.
    """
    from convvae.evaluation import fitted_priors
    from convvae.model.conditions import given_labels_of

    source = training_images(metadata, "train", data_dir, named)
    images, given = as_trained(source.images, metadata, "train"), given_labels_of(vae, source)
    vae.prior = fitted_priors.fit_sampler(sampler, given, images, seed=seed).to(vae.device)


def say_notes(notes: list[str]) -> None:
    """Print what an import or export left to be known, a line each."""
    for note in notes:
        print(f"  {as_flags(note)}")


class ImagesOptions(DataOptions):
    """Which images, for which model."""

    part: Literal["train", "test", "all"] | None = None
    """Take the training images, those held out, or all (else all; of a published set the test)."""
    limit: int | None = Field(default=None, ge=1)
    """Take the first so many images."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws of z for the bounds."""

    def images(self, metadata: ModelMetadata, mask: str | None = None) -> Stream:
        """The images that are meant, whatever the limit; see `open_images` for the mask.

        A source that is not divided is that of the training, and then all are training images, or
        another one, and then none is.

        Raises:
            ConvvaeError: there are none, each reason with its own class.
        """
        from convvae.data import is_published

        word = meant(self, metadata)
        part = self.part or ("test" if is_published(word) else "all")
        if part == "all" and division(self, metadata) == "none":
            part = "train" if word == metadata.data else "test"
        return open_stream(self, metadata, part, mask)


def binarize_seed(metadata: ModelMetadata) -> int | None:
    """Seed of the black or white pixels if the model was trained on such, else None."""
    return None if metadata.binarize == "none" else metadata.binarize_seed
