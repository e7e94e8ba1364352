"""`convvae encode` and `convvae anomalies`: numbers of every single image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from tyro.conf import FlagCreatePairsOff

from convvae.commands.common import DataOptions, division, meant, open_model, open_stream
from convvae.config import UserPath
from convvae.errors import ConfigError, UsageError
from convvae.files import check_free
from convvae.flags import parse

if TYPE_CHECKING:
    from convvae import alarms
    from convvae.checkpoint import Facts
    from convvae.data import Stream


class ImagesOptions(DataOptions):
    """Which images, for which model."""

    part: Literal["train", "test", "all"] | None = None
    """Take the training images, those held out, or all (else all; of a published set the test)."""
    limit: int | None = Field(default=None, ge=1)
    """Take the first so many images."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws of z for the bounds."""

    def images(self, facts: Facts) -> Stream:
        """The images that are meant, whatever the limit.

        A source that is not divided is that of the training, and then all are training images, or
        another one, and then none is.

        Raises:
            ConvvaeError: there are none, each reason with its own class.
        """
        from convvae.data import is_published

        word = meant(self, facts)
        part = self.part or ("test" if is_published(word) else "all")
        if part == "all" and division(self, facts) == "none":
            part = "train" if word == facts.data else "test"
        return open_stream(self, facts, part)


class EncodeOptions(ImagesOptions):
    """Write the latents, bound, KL and error of every image to a file."""

    out: UserPath
    """File to write: .npz, .parquet, or .npy of the codes mu alone."""


class AnomaliesOptions(ImagesOptions):
    """Score images by how unlike the normal ones they are, and flag those beyond a threshold."""

    normal: str | None = None
    """Normal images that the model did not train on (else the training set's test images)."""
    normal_part: Literal["train", "test"] = "test"
    """Take the normal images from the training or the test images of that set."""
    normal_limit: int | None = Field(default=None, ge=1)
    """Take the first so many of the normal images (else all; of those that are judged, those)."""
    abnormal: tuple[str, ...] = ()
    """Labels that are abnormal, to measure how well the scores find them."""
    false_alarms: float = Field(default=0.05, gt=0, lt=1)
    """Share of normal images that may be flagged."""
    score: Literal["bound", "importance_bound", "squared_error", "latent_distance"] = (
        "squared_error"
    )
    """Score that flags and ranks; all four are written."""
    samples: int = Field(default=10, ge=1, le=1_000_000)
    """Draws K of z an image for the importance-weighted bound."""
    worst: int = Field(default=16, ge=1, le=200)
    """Images in the picture of the worst."""
    outdir: UserPath = Path("anomalies")
    """Folder for scores.csv, report.json and worst.png."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace those files if they are there."""


def encode(args: list[str]) -> None:
    """Write the latents, bound, KL and error of every image to a file."""
    options = parse(EncodeOptions, args, "convvae encode")
    vae, facts = open_model(options)
    from convvae import embeddings
    from convvae.encodings import encode_all, posterior_means
    from convvae.progress import counting

    embeddings.check(options.out)
    source, drawn_by = options.images(facts), binarize_seed(facts)
    if options.limit is not None:
        source = source.first(options.limit)
    protocol = {
        "model": options.model,
        "data": f"{source.name} ({source.split})",
        "images": len(source),
        "binarize_seed": drawn_by,
        "seed": options.seed,
        "mu": f"{vae.config.location} of q(z|x)",
    }
    dims = vae.config.latent_dims
    with counting("encoding", len(source)) as progress:
        if options.out.suffix == embeddings.MEANS_ALONE:
            means = posterior_means(vae, source, binarize_seed=drawn_by, progress=progress)
            embeddings.write_means(options.out, (len(source), dims), means)
        else:
            parts = encode_all(
                vae, source, seed=options.seed, binarize_seed=drawn_by, progress=progress
            )
            embeddings.write(options.out, source, dims, protocol, parts)
    print(f"wrote {options.out}: {len(source)} images of {protocol['data']}")


def anomalies(args: list[str]) -> None:
    """Score images by how unlike the normal ones they are, and flag the worst."""
    options = parse(AnomaliesOptions, args, "convvae anomalies")
    vae, facts = open_model(options)
    from convvae import alarms

    written = [options.outdir / name for name in alarms.FILES]
    check_free(written, "--outdir", overwrite=options.overwrite)
    request = _request(options, facts)
    protocol = alarms.Protocol(
        model=options.model,
        score=options.score,
        false_alarms=options.false_alarms,
        abnormal=options.abnormal,
        samples=options.samples,
        seed=options.seed,
        binarize_seed=binarize_seed(facts),
    )
    alarms.run(vae, request, protocol, options.outdir, options.worst)


def _request(options: AnomaliesOptions, facts: Facts) -> alarms.Request:
    """The images to judge and the normal ones; where these are among those, each is read once.

    Raises:
        UsageError: no image of the training's source is known to be one that the model has not
            seen.
        ConfigError: there are not as many images as a limit says.
        ConvvaeError: images cannot be read, each reason with its own class.
    """
    import torch

    from convvae.alarms import Request

    as_they_are = {"split": None, "crop": None, "skip_bad": False}
    theirs = options.model_copy(update={"data": options.normal})
    same = meant(theirs, facts) == meant(options, facts)
    # The flags about reading are those of the images to judge.
    theirs = theirs if same else theirs.model_copy(update=as_they_are)
    trained = meant(theirs, facts) == facts.data
    if trained:
        _check_held_out(theirs, facts)
    part, trained_on = options.normal_part, trained and options.normal_part == "train"
    source = options.images(facts)
    judged = len(source) if options.limit is None else options.limit
    if not same or source.split not in (part, "all"):
        normal = open_stream(theirs, facts, part)
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


def _check_held_out(options: AnomaliesOptions, facts: Facts) -> None:
    """Check that test images of the training's source are images that the model has not seen.

    Raises:
        UsageError: they are not.
    """
    if facts.split == "none":
        raise UsageError(
            f"{options.model} was trained on all images of {facts.data} (--split none), and scores "
            "are calibrated on images that it has not seen: name some with --normal, or train with "
            "a share held out, as --split 0.1"
        )
    if options.split not in (None, facts.split):
        raise UsageError(
            f"--split {options.split} is not how {facts.data} was divided in training "
            f"({facts.split}), so that images which {options.model} has seen would calibrate; "
            "leave it out"
        )


def binarize_seed(facts: Facts) -> int | None:
    """Seed of the black or white pixels if the model was trained on such, else None."""
    return None if facts.binarize == "none" else facts.binarize_seed
