"""`convvae explore`."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from tyro.conf import Positional

from convvae.commands.common import ModelOptions, open_model
from convvae.config import UserPath
from convvae.errors import MissingExtraError, OutputError
from convvae.flags import parse

if TYPE_CHECKING:
    from convvae.explorer import Scene


class ExploreOptions(ModelOptions):
    """Walk through the latent space of a model in the browser, live or in one HTML file."""

    data: Positional[str | None] = None
    """Images of the map: digits, mnist, fashion-mnist or kmnist; else those of the training."""
    data_dir: UserPath | None = None
    """Folder with the data files (else $CONVVAE_DATA, else downloaded)."""
    split: Literal["train", "test"] = "test"
    """Which images of the data set."""
    limit: int = Field(default=10_000, ge=1, le=100_000)
    """Show at most the first so many images."""
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
    scene = _scene(options)
    from convvae.explorer import standalone

    count = standalone.write(scene, options.html)
    print(f"wrote {options.html}: {count:,} of {len(scene.images):,} images on the map")


def _serve(options: ExploreOptions) -> None:
    import webbrowser

    from convvae.explorer import server

    # The port first: encoding takes a while.
    listening = server.listen(options.port)
    scene = _scene(options)

    def ready(address: str) -> None:
        print(f"open {address}\n(this machine only; Ctrl-C ends it)", flush=True)
        if options.browser:
            webbrowser.open(address)

    server.serve(scene, listening, ready)
    print("stopped")


def _scene(options: ExploreOptions) -> Scene:
    """The model and its images, as far as the flags say."""
    vae, facts = open_model(options)
    from convvae import data
    from convvae.data.pixels import binarize_once
    from convvae.explorer import Scene

    name = options.data or facts.data
    source = data.load(name, options.split, data_dir=options.data_dir)
    labels = None if source.labels is None else source.labels[: options.limit]
    source = replace(source, images=source.images[: options.limit], labels=labels)
    images = data.fit(source, facts.model.image_size, facts.model.channels)
    if facts.binarize != "none":
        images = binarize_once(images, options.split, facts.binarize_seed)
    print(f"encoding {len(images):,} {options.split} images of {name} ...", flush=True)
    return Scene(vae, images, labels, f"{options.model} on {name} ({options.split})")
