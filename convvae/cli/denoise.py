"""`convvae denoise`: images without the noise that is known to be on them."""

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


class DenoiseOptions(ImagesOptions, OutputOptions):
    """Write images without Gaussian noise of a known deviation, as the model explains them."""

    noise: float = Field(gt=0, le=10)
    """Standard deviation of the noise of a value, where black is 0 and white is 1."""
    samples: int = Field(default=100, ge=1, le=1_000_000)
    """Draws of z per image."""
    shown: int = Field(default=10, ge=1, le=50)
    """Images in the picture, the first ones."""
    outdir: UserPath = Path("denoised")
    """Folder for denoised.npz and denoised.png."""


def denoise(args: list[str]) -> None:
    """Write images without noise, as the model explains them."""
    options = parse(DenoiseOptions, args, "convvae denoise")
    vae, metadata = open_model(options)
    from convvae.cli.completed import read_images, rows, write
    from convvae.data.progress import counting
    from convvae.evaluation import imputation

    paths = [options.outdir / name for name in ("denoised.npz", "denoised.png")]
    check_outputs(options, paths, "outdir", model=options.model, data=meant(options, metadata))
    source = read_images(options, vae, metadata)
    if source.observed is not None:
        raise UsageError(
            f"pixels of {source.name} are missing, and noise is taken from whole images; complete "
            "them before (convvae impute)"
        )
    images = source.images
    with counting("denoising", len(images)) as progress:
        found = imputation.denoise(
            vae,
            images,
            noise=options.noise,
            samples=options.samples,
            seed=options.seed,
            progress=progress,
        )
    kinds = {"image": images / 255, "denoised": found.mean, "spread": found.spread}
    write(options.outdir, "denoised", found._asdict(), rows(kinds, options.shown))
    carry = f"{found.effective.median():.1f} of {options.samples} draws"
    print(
        f"wrote {paths[0].name} and {paths[1].name} in {options.outdir}: {len(images)} images of "
        f"{source.name} ({source.split}); {carry} carry the weight (median)"
    )
