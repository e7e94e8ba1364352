"""`convvae explore`."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from convvae.cli.common import (
    DataOptions,
    OutputOptions,
    as_trained,
    binarize_seed,
    check_outputs,
    open_images,
    open_model,
)
from convvae.cli.flags import parse
from convvae.config import UserPath
from convvae.errors import MissingExtraError, OutputError

if TYPE_CHECKING:
    from convvae.explorer import Scene


class ExploreOptions(DataOptions, OutputOptions):
    """Walk through the latent space of a model in the browser, live or in one HTML file."""

    part: Literal["train", "test"] = "test"
    """Show the training or the test images."""
    limit: int = Field(default=10_000, ge=1, le=100_000)
    """Show at most so many images, drawn by the seed."""
    seed: int = Field(default=0, ge=0)
    """Seed of that draw."""
    port: int = Field(default=0, ge=0, le=65_535)
    """Port of this machine to serve on; 0 takes any that is free."""
    browser: bool = True
    """Open the page in the browser."""
    html: UserPath | None = None
    """Write a page that needs no server to this file, and serve nothing."""


def explore(args: list[str]) -> None:
    """Walk through the latent space in the browser."""
    options = parse(ExploreOptions, args, "convvae explore")
    if importlib.util.find_spec("bokeh") is None:
        raise MissingExtraError('the explorer needs Bokeh: pip install "convvae[explorer]"')
    if options.html is None:
        _serve(options)
        return
    if options.html.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{options.html} would hold a page; give it a name that ends in .html")
    check_outputs(options, [options.html], "html", model=options.model, data=options.data)
    scene = _scene(options)
    from convvae.explorer import standalone

    count = standalone.write(scene, options.html)
    print(f"wrote {options.html}: {count:,} of {len(scene.images):,} images on the map")


def _serve(options: ExploreOptions) -> None:
    from convvae.explorer import server
    from convvae.explorer.handover import Handover

    # The port first: encoding takes a while.
    with server.listen(options.port) as listening, Handover() as handover:
        scene = _scene(options)

        def ready(address: str) -> None:
            print(f"open {address}\n(this machine only; Ctrl-C ends it)", flush=True)
            if options.browser:
                handover.open(address)

        server.serve(scene, listening, ready, handover.withdraw)
    print("stopped")


def _scene(options: ExploreOptions) -> Scene:
    """The model and its images, as far as the flags say."""
    vae, metadata = open_model(options)
    from convvae.explorer import Scene
    from convvae.model.conditions import given_labels_of

    found = open_images(options, metadata, options.part)
    shown = replace(found, images=as_trained(found.images, metadata, options.part))
    source = shown.some(options.limit, options.seed)
    print(f"encoding {len(source):,} {options.part} images of {source.name} ...", flush=True)
    title = f"{options.model} on {source.name} ({options.part})"
    crop = metadata.crop if options.crop is None else options.crop
    return Scene(
        given_labels_of(vae, source),
        source,
        title,
        crop=crop,
        binarize_seed=binarize_seed(metadata),
    )
