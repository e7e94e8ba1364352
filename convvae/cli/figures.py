"""`convvae figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from convvae.cli.common import LookOptions, load_test_images, open_model
from convvae.cli.flags import parse
from convvae.config import UserPath
from convvae.files import make_folder


class FiguresOptions(LookOptions):
    """Draw what a model has learnt: curves, reconstructions, samples, the latent space."""

    only: tuple[str, ...] = ()
    """Figures to draw (else all but umap)."""
    out: UserPath = Path("figures")
    """Folder for the files."""
    formats: tuple[Literal["png", "svg", "pdf"], ...] = ("png",)
    """Kinds of files."""
    pair: tuple[int, int] | None = None
    """Two images, numbered from 0, to interpolate between (else the first of two classes)."""


def figures(args: list[str]) -> None:
    """Draw what a model has learnt: curves, reconstructions, samples, the latent space."""
    options = parse(FiguresOptions, args, "convvae figures")
    vae, metadata = open_model(options)
    from convvae.figures import gallery, save_figure
    from convvae.model.run_folder import run_of

    data = load_test_images(options, metadata)
    run = run_of(options.model)
    material = gallery.Gallery(
        vae,
        data.images,
        data.labels,
        data.classes,
        rows=run.read_metrics() if run else (),
        pair=options.pair,
        seed=options.seed,
    )
    drawn = gallery.pictures(material, options.only)
    make_folder(options.out)  # a place that cannot be written to is said before the work
    for name, picture in drawn:
        if isinstance(picture, str):
            print(f"left out {name}: {picture}")
            continue
        for kind in options.formats:
            path = options.out / f"{name}.{kind}"
            save_figure(path, picture.figure)
            print(f"wrote {path}: {picture.caption}")
    if not options.only or "interpolations" in options.only:
        for path in gallery.save_animations(material, options.out):
            print(f"wrote {path}")
