"""`convvae encode` and `convvae anomalies`: numbers of every single image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from convvae.commands.common import DataOptions, meant, open_images, open_model
from convvae.config import UserPath
from convvae.flags import parse

if TYPE_CHECKING:
    from convvae.checkpoint import Facts
    from convvae.data import ImageSet


class ImagesOptions(DataOptions):
    """Which images, for which model."""

    part: Literal["train", "test"] = "test"
    """Take the training or the test images."""
    limit: int | None = Field(default=None, ge=1)
    """Take the first so many images."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws of z for the bounds."""

    def load(self, facts: Facts) -> ImageSet:
        """The images that are meant.

        Raises:
            ConvvaeError: there are none, each reason with its own class.
        """
        return open_images(self, facts, self.part, self.limit)


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
    """Take the first so many of the normal images."""
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


def encode(args: list[str]) -> None:
    """Write the latents, bound, KL and error of every image to a file."""
    options = parse(EncodeOptions, args, "convvae encode")
    vae, facts = open_model(options)
    from convvae import embeddings
    from convvae.encodings import encode_all
    from convvae.progress import counting

    embeddings.writer(options.out)
    source, drawn_by = options.load(facts), binarize_seed(facts)
    protocol = {
        "model": options.model,
        "data": f"{source.name} ({source.split})",
        "images": len(source),
        "binarize_seed": drawn_by,
        "seed": options.seed,
        "mu": f"{vae.config.location} of q(z|x)",
    }
    with counting("encoding", len(source)) as progress:
        parts = encode_all(
            vae, source, seed=options.seed, binarize_seed=drawn_by, progress=progress
        )
        embeddings.write(options.out, source, vae.config.latent_dims, protocol, parts)
    print(f"wrote {options.out}: {len(source)} images of {protocol['data']}")


def anomalies(args: list[str]) -> None:
    """Score images by how unlike the normal ones they are, and flag the worst."""
    options = parse(AnomaliesOptions, args, "convvae anomalies")
    vae, facts = open_model(options)
    from convvae import alarms

    source, part = options.load(facts), options.normal_part
    # The flags about reading are those of the images to judge.
    as_they_are = {"data": options.normal, "split": None, "crop": None, "skip_bad": False}
    theirs = options.model_copy(update=as_they_are)
    same = part == options.part and meant(theirs, facts) == meant(options, facts)
    normal = None if same else open_images(theirs, facts, part, options.normal_limit)
    protocol = alarms.Protocol(
        model=options.model,
        score=options.score,
        false_alarms=options.false_alarms,
        abnormal=options.abnormal,
        samples=options.samples,
        seed=options.seed,
        binarize_seed=binarize_seed(facts),
    )
    alarms.run(vae, source, normal, protocol, options.outdir, options.worst)


def binarize_seed(facts: Facts) -> int | None:
    """Seed of the black or white pixels if the model was trained on such, else None."""
    return None if facts.binarize == "none" else facts.binarize_seed
