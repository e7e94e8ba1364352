"""`convvae evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from convvae.cli import sharding
from convvae.cli.common import (
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
    from pathlib import Path

    from torch import Tensor

    from convvae.data import ImageSet
    from convvae.evaluation.disentanglement import Disentanglement
    from convvae.evaluation.estimates import Undefined
    from convvae.evaluation.label_evidence import LabelEvidence
    from convvae.evaluation.probes import Probes
    from convvae.evaluation.sample_quality import SampleQuality
    from convvae.evaluation.scorecard import Section
    from convvae.evaluation.shards import Measure, ShardFolder
    from convvae.model.checkpoint import ModelMetadata
    from convvae.model.vae import VAE


class EvaluateOptions(sharding.ShardedOptions):
    """Measure a model on test images: bounds, their parts and errors, latents, reconstructions."""

    limit: int | None = Field(default=None, ge=1)
    """Evaluate on so many of the images, drawn by the seed."""
    samples: int = Field(default=0, ge=0, le=1_000_000)
    """Draws K of z per image for the importance-weighted bound; 0 leaves it out."""
    binarize: Literal["auto", "none", "once"] = "auto"
    """Draw black or white pixels by the grey values; auto does what the training did."""
    binarize_seed: int | None = Field(default=None, ge=0)
    """Seed of that draw (else that of the training)."""
    mask: str | None = None
    """What is missing, left out of the bounds: marked, random:SHARE, box:..., a .png or .npy."""
    sampler: Literal["prior", "mixture", "flow"] = "prior"
    """Evaluate with the prior, or with a density fitted to the codes of the training images."""
    probe: Switch = False
    """Classify the labels from the latents: by a linear probe, and by nearest neighbours."""
    factors: tuple[str, ...] | None = None
    """Score how well single latents stand for factors: these of the set or its table (else all)."""
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
    if options.shards is not None:
        sharding.refuse(options, ("json_file", "probe", "factors", "quality", "sampler"))
        sharding.fill("evaluate", options, EvaluateTask)
        return
    sharding.check_alone(options.device)
    task = EvaluateTask.open(options)
    if options.sampler != "prior":
        vae, metadata = task.vae, task.metadata
        fit_prior(vae, metadata, options.sampler, options.data_dir, options.seed, options.data)
    task.show(task.sections())


@dataclass(frozen=True)
class EvaluateTask:
    """A model, and the images that it is evaluated on."""

    output: ClassVar[str] = "json_file"
    """Option that names what is written."""

    options: EvaluateOptions
    vae: VAE
    metadata: ModelMetadata
    grey: ImageSet
    """The images as they are."""
    source: ImageSet
    """The same as the model sees them."""
    drawn_by: int | None
    """Seed of their black or white pixels."""
    fingerprint: str | None
    """Of all images that there are."""

    @staticmethod
    def written(options: EvaluateOptions) -> list[Path]:
        """The JSON file, if one is named."""
        return [] if options.json_file is None else [options.json_file]

    @classmethod
    def open(cls, options: EvaluateOptions) -> EvaluateTask:
        """Open the model and the images.

        Raises:
            ConvvaeError: they cannot be had, or the output is in the way.
        """
        from convvae.evaluation.masks import masked

        vae, metadata = open_model(options)
        word, written = meant(options, metadata), cls.written(options)
        check_outputs(options, written, "json", model=options.model, data=word)
        seed = metadata.binarize_seed if options.binarize_seed is None else options.binarize_seed
        as_trained = options.binarize == "auto" and metadata.binarize != "none"
        drawn_by = seed if as_trained or options.binarize == "once" else None
        grey = open_images(options, metadata, "test", options.mask)
        grey = masked(grey, options.mask, options.seed)
        if grey.observed is not None and options.quality:
            raise UsageError(
                "--quality compares whole images, and pixels of these are missing; leave it out"
            )
        source, fingerprint = _shown(grey, drawn_by), grey.fingerprint
        if options.limit is not None:
            if options.limit > len(grey):
                raise ConfigError(
                    f"--limit is {options.limit}, but there are {len(grey)} images; ask for fewer"
                )
            grey, source = (part.some(options.limit, options.seed) for part in (grey, source))
        return cls(options, vae, metadata, grey, source, drawn_by, fingerprint)

    @cached_property
    def given(self) -> VAE:
        """The model, told the labels of the images if it was trained with labels."""
        from convvae.model.conditions import given_labels_of

        return given_labels_of(self.vae, self.source)

    @property
    def measures(self) -> Mapping[str, Measure]:
        """How the images are measured in shards."""
        from convvae.evaluation.encode import batch_size
        from convvae.evaluation.evaluate import measure
        from convvae.evaluation.shards import Measure

        options, images = self.options, self.source.images

        def part(start: int, stop: int) -> dict[str, Tensor]:
            some = images[start:stop]
            given = self.given.at(slice(start, stop))
            return measure(given, some, seed=options.seed, samples=options.samples)

        known = {**sharding.of_images(self.source), "fingerprint": self.fingerprint}
        return {"images": Measure(self.source.counts, batch_size(self.vae), part, known)}

    def finish(self, folder: ShardFolder) -> None:
        """Print the numbers, and write them if a file is named, from the shards."""
        self.show(self.sections(), folder.all_numbers("images"))

    def show(
        self, sections: Sequence[Section], measured: Mapping[str, Tensor] | None = None
    ) -> None:
        """Print the numbers, and write them if a file is named.

        Args:
            sections: What is measured beside the bounds.
            measured: The numbers of the images, where they are known.
        """
        from convvae.cli.console import FlagConsole
        from convvae.evaluation import scorecard

        options, fitted = self.options, self.options.sampler != "prior"
        grey = self.drawn_by is not None and options.quality
        protocol = {
            "model": options.model,
            "data": f"{self.source.name} (test)",
            "images": len(self.source),
            "binarize_seed": self.drawn_by,
            "mask": options.mask,
            "prior": f"fitted {options.sampler}" if fitted else self.metadata.model.prior,
            "samples": options.samples,
            "sample_quality": "against the grey images" if grey else None,
            "seed": options.seed,
        }
        images, path = self.source.images, options.json_file
        console = FlagConsole()
        scorecard.run(
            self.given, self.metadata, images, protocol, path, sections, console, measured
        )

    def sections(self) -> list[Section]:
        """What is asked for beside the bounds."""
        from convvae.data import with_factors
        from convvae.evaluation.probes import MAX_TRAIN

        options, found = self.options, list["Section"]()
        condition = self.metadata.model.condition
        if condition is not None and not condition.numbers:
            found += _labels(self.vae, self.source, options)
        if options.factors is not None:
            word = meant(options, self.metadata)
            found.append(
                _factors(self.given, with_factors(word, self.source, options.factors), options.seed)
            )
        if options.probe or options.quality:
            train = _training_images(options, self.metadata)
            if options.probe:
                some = _shown(train, self.drawn_by).some(MAX_TRAIN, options.seed)
                found.append(_probe(self.vae, some, self.source))
            if options.quality:
                found.append(_quality(self.vae, train, self.grey.images, options))
        return found


def _shown(found: ImageSet, drawn_by: int | None) -> ImageSet:
    """The images as the model sees them: some of them are chosen afterwards."""
    from convvae.data.pixels import binarize_once

    if drawn_by is None:
        return found
    return replace(found, images=binarize_once(found.images, found.split, drawn_by))


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


def _labels(vae: VAE, images: ImageSet, options: EvaluateOptions) -> list[Section]:
    """What a conditional model makes of every label; nothing where no image has one."""
    from convvae.evaluation.label_evidence import label_evidence, labelled
    from convvae.evaluation.scorecard import Section

    condition = vae.config.condition
    assert condition is not None
    some = labelled(images) if vae.config.classifier else images
    vae = vae.observing(some.observed)
    total = len(some) * len(condition.combinations)

    def measure(progress: Callable[[int], None]) -> LabelEvidence:
        return label_evidence(
            vae,
            some,
            samples=options.samples,
            seed=options.seed,
            progress=progress,
        )

    return [Section("labels", total, measure)] if len(some) else []


def _factors(vae: VAE, images: ImageSet, seed: int) -> Section:
    """How well the latents stand for the factors of the images."""
    from convvae.evaluation.disentanglement import check_factors, disentanglement
    from convvae.evaluation.encode import posterior_means
    from convvae.evaluation.scorecard import Section

    assert images.factors is not None
    factors = images.factors.numpy()
    check_factors(factors, images.factor_names)  # before the work

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
