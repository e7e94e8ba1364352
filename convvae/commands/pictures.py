"""`convvae generate` and `convvae reconstruct`: grids of images as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from tyro.conf import FlagCreatePairsOff

from convvae.commands.common import (
    DataOptions,
    ModelOptions,
    as_trained,
    fit_prior,
    open_images,
    open_model,
)
from convvae.config import UserPath
from convvae.flags import parse


class GenerateOptions(ModelOptions):
    """Write a grid of images decoded from draws of the prior, or of a fitted density."""

    outfile: UserPath = Path("samples.png")
    """PNG file to write."""
    count: int = Field(default=128, ge=1, le=100_000)
    """Number of images."""
    rows: int = Field(default=8, ge=1)
    """Rows of the grid."""
    sampler: Literal["prior", "mixture", "flow"] = "prior"
    """Draw from the prior, or from a density fitted to the codes of the training images."""
    data_dir: UserPath | None = None
    """Folder with the training images' files, for a fitted sampler (else $CONVVAE_DATA)."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws, and of the fit."""


class ReconstructOptions(DataOptions):
    """Write a grid of images, each with its reconstruction at its right."""

    rec_testdata: FlagCreatePairsOff[bool] = False
    """Take test images instead of training images."""
    outdir: UserPath = Path("reconstructions")
    """Folder for reconstructions-train.png or reconstructions-test.png."""
    count: int = Field(default=64, ge=1, le=100_000)
    """Number of images, the first of the set."""
    rows: int = Field(default=8, ge=1)
    """Rows of the grid."""


def reconstruct(args: list[str]) -> None:
    """Write images beside their reconstructions."""
    options = parse(ReconstructOptions, args, "convvae reconstruct")
    vae, facts = open_model(options)
    from convvae import evaluate, sheets

    split = "test" if options.rec_testdata else "train"
    source = open_images(options, facts, split)
    images = as_trained(source.images, facts, split)[: options.count]
    sheet = sheets.paired_grid(images, evaluate.reconstruct(vae, images), options.rows)
    path = options.outdir / f"reconstructions-{split}.png"
    sheets.save_png(path, sheet)
    print(f"wrote {path}: {len(images)} {split} images of {source.name}, each beside its own")


def generate(args: list[str]) -> None:
    """Write a grid of images decoded from draws of the prior."""
    options = parse(GenerateOptions, args, "convvae generate")
    vae, facts = open_model(options)
    from convvae import evaluate, sheets

    if options.sampler != "prior":
        fit_prior(vae, facts, options.sampler, options.data_dir, options.seed)
    images = evaluate.generate(vae, options.count, seed=options.seed)
    sheets.save_png(options.outfile, sheets.grid(images, options.rows))
    source = "" if options.sampler == "prior" else f", drawn from a {options.sampler} of its codes"
    print(f"wrote {options.outfile}: {options.count} samples of {options.model}{source}")
