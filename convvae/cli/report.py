"""`convvae report`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

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
from convvae.errors import OutputError
from convvae.files import make_folder


class ReportOptions(LookOptions, OutputOptions):
    """Write one HTML page about a model: what it is, its numbers with units, its figures."""

    limit: int = Field(default=1000, ge=1)
    """Take at most so many test images, drawn by the seed."""
    out: UserPath | None = None
    """HTML file (else report.html in the run folder, or MODEL-report.html)."""


def report(args: list[str]) -> None:
    """Write one HTML page about a model: what it is, its numbers with units, its figures."""
    options = parse(ReportOptions, args, "convvae report")
    vae, metadata = open_model(options)
    from convvae.figures import report as page
    from convvae.figures.gallery import Gallery
    from convvae.model.conditions import given_labels_of
    from convvae.model.run_folder import run_of

    run, name = run_of(options.model), Path(options.model).name
    own = Path(options.model).is_dir()
    default = Path(options.model) / "report.html" if own else Path(f"{name}-report.html")
    path = options.out or default
    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{path} would hold a page; give it a name that ends in .html")
    drawn_by_run = own and run is not None and run.config.is_file()
    if path != default or not drawn_by_run:  # a run's own page is convvae's to draw again
        word = meant(options, metadata)
        check_outputs(options, [path], "out", model=options.model, data=word)
    data = load_test_images(options, metadata)
    make_folder(path.parent)  # a place that cannot be written to is said before the work
    gallery = Gallery(
        given_labels_of(vae, data),
        data.images,
        data.labels,
        data.classes,
        rows=run.read_metrics(print) if run else (),
        walked=page.WALKED,
        seed=options.seed,
    )
    which = f"{len(data):,} test images of {data.name}, drawn by seed {options.seed}"
    page.write(path, page.Subject(name, metadata, which, run), gallery)
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB")
