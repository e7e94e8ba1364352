"""`convvae evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from convvae.cli.common import (
    DataOptions,
    OutputOptions,
    check_outputs,
    division,
    fit_prior,
    meant,
    open_images,
    open_model,
)
from convvae.cli.flags import parse
from convvae.cli.options import Switch
from convvae.config import Flag, UserPath
from convvae.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from convvae.data import ImageSet
    from convvae.evaluation.disentanglement import Disentanglement
    from convvae.evaluation.estimates import Undefined
    from convvae.evaluation.label_evidence import LabelEvidence
    from convvae.evaluation.probes import Probes
    from convvae.evaluation.sample_quality import SampleQuality
    from convvae.evaluation.scorecard import Section
    from convvae.model.checkpoint import ModelMetadata
    from convvae.model.vae import VAE


class EvaluateOptions(DataOptions, OutputOptions):
    """Measure a model on test images: bounds, their parts and errors, latents, reconstructions."""

    limit: int | None = Field(default=None, ge=1)
    """Evaluate on so many of the images, drawn by the seed."""
    samples: int = Field(default=0, ge=0, le=1_000_000)
    """Draws K of z per image for the importance-weighted bound; 0 leaves it out."""
    binarize: Literal["auto", "none", "once"] = "auto"
    """Draw black or white pixels by the grey values; auto does what the training did."""
    binarize_seed: int | None = Field(default=None, ge=0)
    """Seed of that draw (else that of the training)."""
    sampler: Literal["prior", "mixture", "flow"] = "prior"
    """Evaluate with the prior, or with a density fitted to the codes of the training images."""
    probe: Switch = False
    """Classify the labels from the latents: by a linear probe, and by nearest neighbours."""
    factors: Switch = False
    """Score how well single latents stand for the factors that the images were made of."""
    quality: int = Field(default=0, ge=0, le=1_000_000)
    """Samples to draw and compare with the images as sets; 0 leaves it out."""
    features: Literal["mnist", "inception"] = "mnist"
    """Feature space of that comparison: of a small digit classifier, or Inception's."""
    seed: int = Field(default=0, ge=0)
    """Seed of all that is drawn: z, the images of --limit, and what a fit begins with."""
    json_file: Annotated[UserPath | None, Flag(name="json")] = None
    """Write the numbers to this file as well."""


def evaluate(args: list[str]) -> None:
    """Measure a model on test images: bounds, latents, reconstructions, labels, samples."""
    options = parse(EvaluateOptions, args, "convvae evaluate")
    vae, metadata = open_model(options)
    from convvae.cli.console import FlagConsole
    from convvae.data.pixels import binarize_once
    from convvae.evaluation import scorecard
    from convvae.evaluation.probes import MAX_TRAIN
    from convvae.model.conditions import given_labels_of

    word, written = meant(options, metadata), [options.json_file] if options.json_file else []
    check_outputs(options, written, "json", model=options.model, data=word)
    seed = metadata.binarize_seed if options.binarize_seed is None else options.binarize_seed
    as_trained = options.binarize == "auto" and metadata.binarize != "none"
    drawn = as_trained or options.binarize == "once"

    def shown(found: ImageSet) -> ImageSet:
        """The images as the model sees them: some of them are chosen afterwards."""
        if not drawn:
            return found
        return replace(found, images=binarize_once(found.images, found.split, seed))

    grey = open_images(options, metadata, "test")
    grey, source = (_limited(part, options) for part in (grey, shown(grey)))
    images = source.images
    prior = metadata.model.prior
    if options.sampler != "prior":
        prior = f"fitted {options.sampler}"
        fit_prior(vae, metadata, options.sampler, options.data_dir, options.seed, options.data)
    given = given_labels_of(vae, source)
    protocol = {
        "model": options.model,
        "data": f"{source.name} (test)",
        "images": len(images),
        "binarize_seed": seed if drawn else None,
        "prior": prior,
        "samples": options.samples,
        "sample_quality": "against the grey images" if drawn and options.quality else None,
        "seed": options.seed,
    }
    sections = [] if metadata.model.condition is None else [_labels(vae, source, options)]
    if options.factors:
        sections.append(_factors(given, source, options.seed))
    if options.probe or options.quality:
        train = _training_images(options, metadata)
        if options.probe:
            some = shown(train).some(MAX_TRAIN, options.seed)
            sections.append(_probe(vae, some, source))
        if options.quality:
            sections.append(_quality(vae, train, grey.images, options))
    scorecard.run(given, metadata, images, protocol, options.json_file, sections, FlagConsole())


def _limited(images: ImageSet, options: EvaluateOptions) -> ImageSet:
    """So many of the images as are asked for.

    Raises:
        ConfigError: there are fewer.
    """
    if options.limit is None:
        return images
    if options.limit > len(images):
        raise ConfigError(
            f"--limit is {options.limit}, but there are {len(images)} images; ask for fewer"
        )
    return images.some(options.limit, options.seed)


def _training_images(options: EvaluateOptions, metadata: ModelMetadata) -> ImageSet:
    """The training images that the test images are held against.

    Raises:
        UsageError: all images are both.
    """
    if division(options, metadata) == "none":
        raise UsageError(
            "--probe and --quality hold test images against training images, and all of these "
            "are both; divide them with --split 0.1 or --split folders"
        )
    return open_images(options, metadata, "train")


def _probe(vae: VAE, train: ImageSet, test: ImageSet) -> Section:
    """How well classifiers tell the labels from the latents."""
    from convvae.evaluation.encode import posterior_means
    from convvae.evaluation.probes import probe
    from convvae.evaluation.scorecard import Section
    from convvae.model.conditions import given_labels_of

    def measure(progress: Callable[[int], None]) -> Probes | Undefined:
        train_mu, _ = posterior_means(given_labels_of(vae, train), train.images)
        progress(len(train))
        test_mu, _ = posterior_means(given_labels_of(vae, test), test.images)
        return probe(train_mu, train.labels, test_mu, test.labels)

    return Section("probes", len(train), measure)


def _labels(vae: VAE, images: ImageSet, options: EvaluateOptions) -> Section:
    """What a conditional model makes of every label."""
    from convvae.evaluation.label_evidence import label_evidence
    from convvae.evaluation.scorecard import Section
    from convvae.model.conditions import label_places

    condition = vae.config.condition
    assert condition is not None
    places, total = label_places(condition, images), len(images) * len(condition.labels)

    def measure(progress: Callable[[int], None]) -> LabelEvidence:
        return label_evidence(
            vae,
            images.images,
            places,
            samples=options.samples,
            seed=options.seed,
            progress=progress,
        )

    return Section("labels", total, measure)


def _factors(vae: VAE, images: ImageSet, seed: int) -> Section:
    """How well the latents stand for the factors of the images."""
    from convvae.evaluation.disentanglement import disentanglement
    from convvae.evaluation.encode import posterior_means
    from convvae.evaluation.scorecard import Section

    if images.factors is None:
        raise UsageError(
            f"--factors needs images whose factors are known, and those of {images.name} are not; "
            "the data set sprites has some"
        )
    factors = images.factors.numpy()

    def measure(progress: Callable[[int], None]) -> Disentanglement:
        codes, _ = posterior_means(vae, images.images)
        names = images.factor_names
        return disentanglement(codes.double().numpy(), factors, names, seed, progress)

    return Section("disentanglement", len(images), measure)


def _quality(vae: VAE, train: ImageSet, real: Tensor, options: EvaluateOptions) -> Section:
    """How near the model's samples are to images; of a binarised set, to their grey values."""
    from convvae.evaluation.sample_quality import feature_space, sample_quality
    from convvae.evaluation.scorecard import Section

    space = feature_space(options.features, vae.config.channels, vae.device)
    some = train.some(options.quality, options.seed)
    others = some.images

    def measure(progress: Callable[[int], None]) -> SampleQuality:
        return sample_quality(
            vae, real, others, space, count=options.quality, seed=options.seed, progress=progress
        )

    return Section("sample_quality", len(real) + len(others) + options.quality, measure)
