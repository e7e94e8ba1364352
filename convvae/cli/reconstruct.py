"""`convvae reconstruct`: images beside their reconstructions as a PNG file."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from convvae.cli.common import (
    DataOptions,
    OutputOptions,
    as_trained,
    check_outputs,
    meant,
    open_images,
    open_model,
)
from convvae.cli.flags import parse
from convvae.cli.options import Switch
from convvae.config import UserPath


class ReconstructOptions(DataOptions, OutputOptions):
    """Write a grid of images, each with its reconstruction at its right."""

    rec_testdata: Switch = False
    """Take test images instead of training images."""
    outdir: UserPath = Path("reconstructions")
    """Folder for reconstructions-train.png or reconstructions-test.png."""
    count: int = Field(default=64, ge=1, le=100_000)
    """Number of images, the first of the set."""
    top: int | None = Field(default=None, ge=1)
    """Decode so many groups of a ladder, the first ones; the others are left to the prior."""
    rows: int = Field(default=8, ge=1)
    """Rows of the grid."""


def reconstruct(args: list[str]) -> None:
    """Write images beside their reconstructions."""
    options = parse(ReconstructOptions, args, "convvae reconstruct")
    vae, metadata = open_model(options)
    from convvae.evaluation import groups, reconstruction
    from convvae.images import sheets
    from convvae.model.conditions import given_labels_of

    split = "test" if options.rec_testdata else "train"
    path = options.outdir / f"reconstructions-{split}.png"
    word = meant(options, metadata)
    check_outputs(options, [path], "outdir", model=options.model, data=word)
    source = open_images(options, metadata, split)
    vae = given_labels_of(vae, source)
    images = as_trained(source.images, metadata, split)[: options.count]
    if options.top is None:
        decoded = reconstruction.reconstruct(vae, images)
    else:
        decoded = groups.reconstruct_from_top(vae, images, options.top)
    sheet = sheets.paired_grid(images, decoded, options.rows)
    sheets.save_png(path, sheet)
    print(f"wrote {path}: {len(images)} {split} images of {source.name}, each beside its own")
