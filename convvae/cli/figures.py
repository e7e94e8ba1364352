"""`convvae figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from convvae.cli.common import (
    LookOptions,
    OutputOptions,
    check_outputs,
    load_test_images,
    meant,
    open_model,
)
from convvae.cli.flags import parse
from convvae.config import UserPath
from convvae.files import make_folder


class FiguresOptions(LookOptions, OutputOptions):
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
    from convvae.model.conditions import given_labels_of
    from convvae.model.run_folder import run_of

    chosen = gallery.chosen(options.only)
    written = [options.out / f"{name}.{kind}" for name in chosen for kind in options.formats]
    animated = "interpolations" in chosen
    written += [options.out / name for name in gallery.ANIMATIONS.values() if animated]
    word = meant(options, metadata)
    check_outputs(options, written, "out", model=options.model, data=word)
    data = load_test_images(options, metadata)
    run = run_of(options.model)
    material = gallery.Gallery(
        given_labels_of(vae, data),
        data.images,
        data.labels,
        data.classes,
        rows=run.read_metrics(print) if run else (),
        pair=options.pair,
        seed=options.seed,
    )
    drawn = gallery.pictures(material, chosen)
    make_folder(options.out)  # a place that cannot be written to is said before the work
    for name, picture in drawn:
        if isinstance(picture, str):
            print(f"left out {name}: {picture}")
            continue
        for kind in options.formats:
            path = options.out / f"{name}.{kind}"
            save_figure(path, picture.figure)
            print(f"wrote {path}: {picture.caption}")
    if animated:
        for path in gallery.save_animations(material, options.out):
            print(f"wrote {path}")
