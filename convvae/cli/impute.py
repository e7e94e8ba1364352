"""`convvae impute`: pixels that are missing, as the model completes them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from convvae.cli.common import (
    ImagesOptions,
    OutputOptions,
    check_outputs,
    meant,
    open_model,
)
from convvae.cli.flags import parse
from convvae.config import UserPath
from convvae.errors import UsageError


class ImputeOptions(ImagesOptions, OutputOptions):
    """Complete images of which pixels are missing: several times, with their mean and spread."""

    mask: str
    """What is missing: marked, box:LEFT,TOP,WIDTH,HEIGHT, random:SHARE, a .png or .npy."""
    completions: int = Field(default=6, ge=1, le=1000)
    """Completions per image, each from a chain of its own."""
    steps: int = Field(default=100, ge=2, le=1_000_000)
    """Steps of every chain; mean and spread are of the later half."""
    shown: int = Field(default=10, ge=1, le=50)
    """Images in the picture, the first ones."""
    outdir: UserPath = Path("imputed")
    """Folder for imputed.npz and imputed.png."""


def impute(args: list[str]) -> None:
    """Complete images of which pixels are missing."""
    options = parse(ImputeOptions, args, "convvae impute")
    vae, metadata = open_model(options)
    import torch

    from convvae.cli.completed import read_images, rows, write
    from convvae.data.progress import counting
    from convvae.evaluation import imputation
    from convvae.evaluation.masks import masked

    paths = [options.outdir / name for name in ("imputed.npz", "imputed.png")]
    check_outputs(options, paths, "outdir", model=options.model, data=meant(options, metadata))
    source = read_images(options, vae, metadata, options.mask)
    images, observed = source.images, masked(source, options.mask, options.seed).observed
    if observed is None:
        raise UsageError(
            f"no pixel of {source.name} is missing; name some with `mask`, such as random:0.5"
        )
    missing = ~observed
    with counting("completing", len(images)) as progress:
        found = imputation.impute(
            vae,
            images,
            observed,
            completions=options.completions,
            steps=options.steps,
            seed=options.seed,
            zeros=metadata.mask is not None,
            progress=progress,
        )
    seen = torch.where(missing, 0.5, images / 255)
    names = [f"completion {place}" for place in range(1, 1 + min(4, options.completions))]
    kinds = {
        "image": images / 255,
        "observed": seen,
        **dict(zip(names, found.completions, strict=False)),
        "mean": found.mean,
        "spread": found.spread,
    }
    arrays = {"missing": missing, **found._asdict()}
    write(options.outdir, "imputed", arrays, rows(kinds, options.shown))
    print(
        f"wrote {paths[0].name} and {paths[1].name} in {options.outdir}: {len(images)} images of "
        f"{source.name} ({source.split}), {missing.float().mean():.0%} missing, "
        f"{found.accepted:.0%} of the proposals taken"
    )
