"""`convvae edit`: images moved toward a label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from convvae.cli.common import (
    DataOptions,
    ImagesOptions,
    OutputOptions,
    as_trained,
    check_outputs,
    meant,
    open_images,
    open_model,
)
from convvae.cli.flags import parse
from convvae.config import UserPath
from convvae.errors import printable

if TYPE_CHECKING:
    from convvae.evaluation.directions import Direction
    from convvae.model.checkpoint import ModelMetadata
    from convvae.model.vae import VAE


class EditOptions(ImagesOptions, OutputOptions):
    """Move images toward a label, by a direction between groups of labelled images."""

    toward: str
    """Label that the images are moved toward."""
    away: str | None = None
    """Label of the images that the direction leads away from (else all that have another)."""
    labels_from: str | None = None
    """Images with labels that the direction is learnt from (else the training images)."""
    method: Literal["means", "logistic"] = "means"
    """From mean to mean, or across the plane of a logistic regression."""
    strength: tuple[float, ...] = Field(default=(-1.0, -0.5, 0.0, 0.5, 1.0, 1.5), min_length=1)
    """How far: 1 is the distance between the means of the two groups, 0 the image's own place."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draw of the images that the direction is learnt from."""
    shown: int = Field(default=10, ge=1, le=50)
    """Images in the picture, the first ones."""
    outdir: UserPath = Path("edited")
    """Folder for edited.npz and edited.png."""


def edit(args: list[str]) -> None:
    """Move images toward a label, by a direction in the latent space."""
    options = parse(EditOptions, args, "convvae edit")
    vae, metadata = open_model(options)
    import torch

    from convvae.cli.completed import read_images, write
    from convvae.evaluation import directions
    from convvae.figures import number, pictures

    directions.check_unconditional(vae)
    paths = [options.outdir / name for name in ("edited.npz", "edited.png")]
    check_outputs(options, paths, "outdir", model=options.model, data=meant(options, metadata))
    found = _direction(options, vae, metadata)
    source = read_images(options, vae, metadata)
    edited = directions.edit(vae, source.images, found.step, options.strength)
    shown = slice(0, options.shown)
    cells = torch.cat([source.images[None, shown] / 255, edited.images[:, shown]])
    titles = [
        "image",
        *(number(strength, "+g" if strength else "g") for strength in options.strength),
    ]
    arrays = {"images": source.images, "z": edited.z, "edited": edited.images}
    arrays |= {"strength": torch.tensor(options.strength), "direction": found.step}
    figure = pictures.rows(cells.transpose(0, 1), [], titles)
    write(options.outdir, "edited", arrays, figure)
    start = "all others" if options.away is None else options.away
    print(
        printable(
            f"direction from {start} ({found.outside:,} images) toward {options.toward} "
            f"({found.inside:,}): midway between the means it parts {found.parted:.0%} of them, "
            "each kind counting half"
        )
    )
    print(
        f"wrote {paths[0].name} and {paths[1].name} in {options.outdir}: {len(source)} images of "
        f"{source.name} at {len(options.strength)} strengths"
    )


def _direction(options: EditOptions, vae: VAE, metadata: ModelMetadata) -> Direction:
    """The direction toward the label, of at most `MAX_TRAIN` labelled images drawn by the seed.

    Raises:
        ConvvaeError: there are no such images, each reason with its own class.
    """
    from convvae.evaluation.directions import direction, groups, some_of
    from convvae.evaluation.encode import posterior_means
    from convvae.evaluation.probes import MAX_TRAIN

    labelled = DataOptions(
        model=options.model,
        data=options.labels_from,
        data_dir=options.data_dir,
        skip_bad=options.skip_bad,
    )
    source = open_images(labelled, metadata, "train")
    inside, outside = groups(source, options.toward, options.away)
    images = as_trained(source.images, metadata, "train")
    to, away = (
        posterior_means(vae, images[some_of(kind, MAX_TRAIN // 2, options.seed)])[0]
        for kind in (inside, outside)
    )
    return direction(to, away, options.method)
