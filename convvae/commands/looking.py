"""`convvae figures` and `convvae report`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from convvae.commands.common import LookOptions, load_test_images, open_model
from convvae.config import UserPath
from convvae.errors import OutputError
from convvae.files import make_folder
from convvae.flags import parse


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
    vae, facts = open_model(options)
    from convvae import gallery
    from convvae.checkpoint import run_of
    from convvae.figures import save_figure

    data = load_test_images(options, facts)
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


class ReportOptions(LookOptions):
    """Write one HTML page about a model: what it is, its numbers with units, its figures."""

    limit: int = Field(default=1000, ge=1)
    """Take at most so many test images, drawn by the seed."""
    out: UserPath | None = None
    """HTML file (else report.html in the run folder, or MODEL-report.html)."""


def report(args: list[str]) -> None:
    """Write one HTML page about a model: what it is, its numbers with units, its figures."""
    options = parse(ReportOptions, args, "convvae report")
    vae, facts = open_model(options)
    from convvae import report as page
    from convvae.checkpoint import run_of
    from convvae.gallery import Gallery

    data = load_test_images(options, facts)
    run, name = run_of(options.model), Path(options.model).name
    own = Path(options.model).is_dir()
    default = Path(options.model) / "report.html" if own else Path(f"{name}-report.html")
    path = options.out or default
    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{path} would hold a page; give it a name that ends in .html")
    make_folder(path.parent)  # a place that cannot be written to is said before the work
    gallery = Gallery(
        vae,
        data.images,
        data.labels,
        data.classes,
        rows=run.read_metrics() if run else (),
        walked=page.WALKED,
        seed=options.seed,
    )
    which = f"{len(data):,} test images of {data.name}, drawn by seed {options.seed}"
    page.write(path, page.Subject(name, facts, which, run), gallery)
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB")
