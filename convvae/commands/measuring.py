"""`convvae evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from convvae.commands.common import ModelOptions, fit_prior, open_model
from convvae.config import UserPath
from convvae.flags import parse


class EvaluateOptions(ModelOptions):
    """Measure a model on test images: bounds, their parts and errors, latents, reconstructions."""

    data: Positional[str | None] = None
    """Images: digits, mnist, fashion-mnist or kmnist; else those of the training."""
    data_dir: UserPath | None = None
    """Folder with the data files (else $CONVVAE_DATA, else downloaded)."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate on the first so many images."""
    samples: int = Field(default=0, ge=0, le=1_000_000)
    """Draws K of z an image for the importance-weighted bound; 0 leaves it out."""
    binarize: Literal["auto", "none", "once"] = "auto"
    """Draw black or white pixels by the grey values; auto does what the training did."""
    binarize_seed: int | None = Field(default=None, ge=0)
    """Seed of that draw (else that of the training)."""
    sampler: Literal["prior", "mixture", "flow"] = "prior"
    """Evaluate with the prior, or with a density fitted to the codes of the training images."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws of z, and of the fit."""
    json_file: Annotated[UserPath | None, arg(name="json")] = None
    """Write the numbers to this file as well."""


def evaluate(args: list[str]) -> None:
    """Measure a model on test images: bounds with errors, latents, reconstructions."""
    options = parse(EvaluateOptions, args, "convvae evaluate")
    vae, facts = open_model(options)
    from convvae import data, scorecard
    from convvae.data.pixels import binarize_once

    name = options.data or facts.data
    source = data.load(name, "test", data_dir=options.data_dir, limit=options.limit)
    images = data.fit(source, facts.model.image_size, facts.model.channels)
    seed = facts.binarize_seed if options.binarize_seed is None else options.binarize_seed
    as_trained = options.binarize == "auto" and facts.binarize != "none"
    drawn = as_trained or options.binarize == "once"
    if drawn:
        images = binarize_once(images, "test", seed)
    if options.sampler != "prior":
        fit_prior(vae, facts, options.sampler, options.data_dir, options.seed)
    protocol = {
        "model": options.model,
        "data": f"{name} (test)",
        "images": len(images),
        "binarize_seed": seed if drawn else None,
        "prior": facts.model.prior if options.sampler == "prior" else f"fitted {options.sampler}",
        "samples": options.samples,
        "seed": options.seed,
    }
    scorecard.run(vae, images, protocol, options.json_file)
