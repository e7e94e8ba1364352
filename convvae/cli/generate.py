"""`convvae generate`: a grid of samples as a PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from convvae.cli.common import (
    ModelOptions,
    OutputOptions,
    check_outputs,
    fit_prior,
    open_model,
)
from convvae.cli.flags import parse
from convvae.cli.options import Switch
from convvae.config import UserPath
from convvae.errors import OutputError, UsageError
from convvae.files import make_empty_folder


class GenerateOptions(ModelOptions, OutputOptions):
    """Write images decoded from draws of the prior, or of a fitted density."""

    outfile: UserPath | None = None
    """PNG file to write, or with --separate the folder (else samples.png, or samples)."""
    separate: Switch = False
    """Write every image to a file of its own, 0.png and on, in a new folder."""
    label: tuple[str, ...] = ()
    """Label of the images; COLUMN=VALUE of a model told several (else drawn as in training)."""
    count: int = Field(default=128, ge=1, le=100_000)
    """Number of images."""
    rows: int = Field(default=8, ge=1)
    """Rows of the grid."""
    temperature: tuple[float, ...] = (1.0,)
    """Factor on the prior's spread; of a ladder, one or one per resolution, the coarsest first."""
    hold: int = Field(default=0, ge=0)
    """Give all images the same latents in so many groups of a ladder, the first ones."""
    sampler: Literal["prior", "mixture", "flow"] = "prior"
    """Draw from the prior, or from a density fitted to the codes of the training images."""
    data: str | None = None
    """The training images, named again where the model's word for them is not enough."""
    data_dir: UserPath | None = None
    """Folder with the training images' files, for a fitted sampler (else $CONVVAE_DATA)."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws, and of the fit."""


def generate(args: list[str]) -> None:
    """Write images decoded from draws of the prior, as a grid or one by one."""
    options = parse(GenerateOptions, args, "convvae generate")
    vae, metadata = open_model(options)
    from convvae.evaluation import encode, groups
    from convvae.images import sheets
    from convvae.model.conditions import told, with_labels

    path = options.outfile or Path("samples" if options.separate else "samples.png")
    if options.separate:
        if path.suffix.lower() == ".png":
            raise OutputError(
                f"--separate writes many files, and {path} would be one: name a folder"
            )
        if options.overwrite:
            raise UsageError("--overwrite is of one file; --separate takes a new folder")
        make_empty_folder(path)  # a place that cannot be written to is said before the work
    else:
        check_outputs(options, [path], "outfile", model=options.model, data=metadata.data)
    if options.sampler != "prior":
        fit_prior(vae, metadata, options.sampler, options.data_dir, options.seed, options.data)
    known = dict[str, str]()
    if options.label:
        known = told(vae).read(options.label)
        vae = with_labels(vae, options.count, seed=options.seed, known=known)
    if options.temperature == (1.0,) and not options.hold:
        images = encode.generate(vae, options.count, seed=options.seed)
    else:
        if options.sampler != "prior":
            raise UsageError("--temperature and --hold are of the prior; leave out --sampler")
        images = groups.generate_at(
            vae,
            options.count,
            seed=options.seed,
            temperature=options.temperature,
            hold=options.hold,
        )
    if options.separate:
        sheets.save_separately(path, images)
    else:
        sheets.save_png(path, sheets.grid(images, options.rows))
    source = "" if options.sampler == "prior" else f", drawn from a {options.sampler} of its codes"
    label = f" with the label {told(vae).said(known)}" if known else ""
    print(f"wrote {path}: {options.count} samples of {options.model}{label}{source}")
