"""`convvae anomalies`: the images that are unlike the normal ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from convvae.cli import sharding
from convvae.cli.common import (
    ImagesOptions,
    binarize_seed,
    check_outputs,
    meant,
    open_model,
    open_stream,
)
from convvae.cli.flags import parse
from convvae.cli.options import Switch
from convvae.config import UserPath
from convvae.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from convvae.anomalies import report
    from convvae.anomalies.carried import Carried
    from convvae.anomalies.request import AnomalySettings, Chosen, Request
    from convvae.evaluation.shards import Measure, ShardFolder
    from convvae.model.checkpoint import ModelMetadata
    from convvae.model.vae import VAE


ScoreName = Literal[
    "auto",
    "bound",
    "importance_bound",
    "squared_error",
    "latent_distance",
    "corrected_error",
    "dissimilarity",
    "neighbours",
    "bounds_ratio",
    "combination",
]
"""Scores, and `auto`, which chooses one by normal images alone."""


class AnomaliesOptions(ImagesOptions, sharding.ShardedOptions):
    """Score images by how unlike the normal ones they are, and flag those beyond a threshold."""

    normal: str | None = None
    """Normal images that the model did not train on (else the training set's test images)."""
    normal_part: Literal["train", "test"] = "test"
    """Take the normal images from the training or the test images of that set."""
    normal_limit: int | None = Field(default=None, ge=1)
    """Take the first so many of the normal images (else all; of those that are judged, those)."""
    abnormal: tuple[str, ...] = ()
    """Labels that are abnormal, to measure how well the scores find them."""
    false_alarms: float | None = Field(default=None, gt=0, lt=1)
    """Share of normal images that may be flagged (else as carried by the model, or 0.05)."""
    score: ScoreName | None = None
    """Score that flags and ranks; auto chooses one (else as carried, or squared_error)."""
    samples: int | None = Field(default=None, ge=1, le=1_000_000)
    """Draws K of z per image for the importance-weighted bound (else as carried, or 10)."""
    calibrate: Switch = False
    """Write what the normal images say into the model's file, for later calls."""
    heatmaps: Switch = False
    """Write heatmaps.npz, a p-value of every pixel, and heatmaps.png of the worst images."""
    worst: int = Field(default=16, ge=1, le=200)
    """Images in the picture of the worst."""
    outdir: UserPath = Path("anomalies")
    """Folder for scores.csv, report.json and worst.png."""


def anomalies(args: list[str]) -> None:
    """Score images by how unlike the normal ones they are, and flag the worst."""
    options = parse(AnomaliesOptions, args, "convvae anomalies")
    if options.shards is not None:
        sharding.refuse(options, ("outdir",))
        sharding.fill("anomalies", options, AnomaliesTask)
        return
    sharding.check_alone(options.device)
    task = AnomaliesTask.open(options)
    from convvae.anomalies import report

    report.run(task.vae, task.request, task.settings, task.outputs)


@dataclass(frozen=True)
class AnomaliesTask:
    """A model, and the images that it judges."""

    output: ClassVar[str] = "outdir"
    """Option that names what is written."""

    options: AnomaliesOptions
    vae: VAE
    request: Request
    settings: AnomalySettings

    @staticmethod
    def written(options: AnomaliesOptions) -> list[Path]:
        """The files in the folder that is named."""
        from convvae.anomalies import report

        names = (*report.FILES, *(report.HEATMAP_FILES if options.heatmaps else ()))
        return [options.outdir / name for name in names]

    @classmethod
    def open(cls, options: AnomaliesOptions) -> AnomaliesTask:
        """Open the model and the images.

        Raises:
            ConvvaeError: they cannot be had, or the output is in the way.
        """
        vae, metadata = open_model(options)
        from convvae.anomalies.carried import carried, check_place
        from convvae.anomalies.request import AnomalySettings, settled

        if options.shards is None or "outdir" in options.model_fields_set:
            word, written = meant(options, metadata), cls.written(options)
            check_outputs(options, written, "outdir", model=options.model, data=word)
        if options.calibrate:
            check_place(options.model, overwrite=options.overwrite)
        known = None if options.calibrate or options.normal else carried(options.model)
        terms = known.terms if known else None
        if terms and options.samples not in (None, terms.samples):
            raise UsageError(
                f"--samples {options.samples}: {options.model} carries a calibration by "
                f"{terms.samples}; leave it out, or calibrate again"
            )
        settings = AnomalySettings(
            model=options.model,
            score=options.score or (terms.score if terms else "squared_error"),
            false_alarms=options.false_alarms or (terms.false_alarms if terms else 0.05),
            abnormal=options.abnormal,
            samples=options.samples or (terms.samples if terms else 10),
            seed=options.seed,
            binarize_seed=binarize_seed(metadata),
        )
        request = _judged(options, metadata, known) if known else _request(options, metadata)
        return cls(options, vae, request, settled(vae, request, settings))

    @property
    def outputs(self) -> report.Output:
        """What is written, and where."""
        from convvae.anomalies.report import Output

        options = self.options
        carry_in = options.model if options.calibrate else None
        return Output(options.outdir, options.worst, options.heatmaps, carry_in)

    @property
    def measures(self) -> Mapping[str, Measure]:
        """How the images are measured in shards."""
        from convvae.anomalies import report
        from convvae.anomalies.request import plan
        from convvae.evaluation.encode import batch_size
        from convvae.evaluation.shards import Measure

        def part(some: Chosen, start: int, stop: int) -> dict[str, Tensor]:
            return report.measured_part(self.vae, some, self.settings, start, stop)

        return {
            name: Measure(
                some.source.counts,
                batch_size(self.vae),
                partial(part, some),
                sharding.of_images(some.source),
            )
            for name, some in plan(self.request, self.settings).measured.items()
        }

    def finish(self, folder: ShardFolder) -> None:
        """Write the scores, the report and the picture from the shards."""
        from convvae.anomalies import report
        from convvae.anomalies.scores import Measured

        known = {name: Measured.of(folder.all_numbers(name)) for name in self.measures}
        report.run(self.vae, self.request, self.settings, self.outputs, known)


def _judged(options: AnomaliesOptions, metadata: ModelMetadata, known: Carried) -> Request:
    """The images to judge by what the model's file says of normal ones.

    Raises:
        UsageError: the calibration cannot do what is asked for.
        ConvvaeError: images cannot be read, each reason with its own class.
    """
    from convvae.anomalies.request import Request

    if options.normal_limit is not None or options.normal_part != "test":
        raise UsageError(
            f"{options.model} carries its calibration, so that no normal images are read; name "
            "others with --normal, or leave --normal-limit and --normal-part out"
        )
    source = options.images(metadata)
    judged = len(source) if options.limit is None else options.limit
    return Request(source.first(judged), judged, known, same_source=False, trained_on=False)


def _request(options: AnomaliesOptions, metadata: ModelMetadata) -> Request:
    """The images to judge and the normal ones; where these are among those, each is read once.

    Raises:
        UsageError: no image of the training's source is known to be one that the model has not
            seen.
        ConfigError: there are not as many images as a limit says.
        ConvvaeError: images cannot be read, each reason with its own class.
    """
    import torch

    from convvae.anomalies.request import Request

    as_they_are = {"split": None, "crop": None, "skip_bad": False}
    theirs = options.model_copy(update={"data": options.normal})
    same = meant(theirs, metadata) == meant(options, metadata)
    # The flags about reading are those of the images to judge.
    theirs = theirs if same else theirs.model_copy(update=as_they_are)
    trained = meant(theirs, metadata) == metadata.data
    if trained:
        _check_held_out(theirs, metadata)
    part, trained_on = options.normal_part, trained and options.normal_part == "train"
    source = options.images(metadata)
    judged = len(source) if options.limit is None else options.limit
    if not same or source.split not in (part, "all"):
        normal = open_stream(theirs, metadata, part)
        if options.normal_limit is not None:
            normal = normal.first(options.normal_limit)
        return Request(source.first(judged), judged, normal, same, trained_on)
    places = torch.tensor([split == part for split in source.splits]).nonzero()[:, 0]
    count = judged
    if options.normal_limit is None:
        places = places[places < judged]
    elif options.normal_limit > len(places):
        raise ConfigError(
            f"--normal-limit is {options.normal_limit}, but {source.name} ({part}) has "
            f"{len(places)} images; ask for fewer"
        )
    else:
        places = places[: options.normal_limit]
        count = max(judged, int(places[-1]) + 1)
    member = torch.zeros(count, dtype=torch.bool)
    member[places] = True
    return Request(source.first(count), judged, member, same, trained_on)


def _check_held_out(options: AnomaliesOptions, metadata: ModelMetadata) -> None:
    """Check that test images of the training's source are images that the model has not seen.

    Raises:
        UsageError: they are not.
    """
    if metadata.split == "none":
        raise UsageError(
            f"{options.model} was trained on all images of {metadata.data} (--split none), and "
            "scores are calibrated on images that it has not seen: name some with --normal, or "
            "train with a share held out, as --split 0.1"
        )
    if options.split not in (None, metadata.split):
        raise UsageError(
            f"--split {options.split} is not how {metadata.data} was divided in training "
            f"({metadata.split}), so that images which {options.model} has seen would calibrate; "
            "leave it out"
        )
