"""The pages' templates: HTML with style and script inside, so that a page is one file."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, StrictUndefined, Template


def template(name: str) -> Template:
    """A page's template; values are escaped, and `read` puts another file of ours in as it is."""
    folder = resources.files("convvae.explorer") / "static"

    def read(file: str) -> str:
        return (folder / file).read_text(encoding="utf-8")

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.globals["read"] = read
    return environment.from_string(read(name))
