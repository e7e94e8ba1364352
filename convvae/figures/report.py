"""One HTML page about a model: what it is, what it is worth, what it has learnt.

The page is one file that loads nothing: figures stand in it as SVG, in the page's own colour of
text, so that it reads well by day, by night and on paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from convvae import figures
from convvae.config import TrainConfig
from convvae.errors import ConfigError
from convvae.evaluation import doctor, scorecard
from convvae.evaluation.evaluate import evaluate
from convvae.figures.gallery import Gallery, Picture, pictures
from convvae.files import write_text
from convvae.model.checkpoint import ModelMetadata
from convvae.model.run_folder import RunFolder

REPORT_IMAGES = 1000
"""Test images of the report that ends a training: enough for two digits of every number."""
WALKED = 64
"""Latents whose traversals a report shows, which is to stay below 5 MB."""
REPORT_FIGURES = (
    "curves", "reconstructions", "samples", "scatter", "manifold", "traversals", "interpolations",
    "information", "extremes", "class-means",
)  # fmt: skip
REPORT_DPI = 100
"""Of the images inside the figures: a page of colour images stays below 5 MB."""


_VALIDATED_ON = {
    "validation": "training images held out for validation",
    "test": "the test images",
}


class Subject(NamedTuple):
    """Whom a report is about."""

    name: str
    """The model, as its user calls it."""
    metadata: ModelMetadata
    data: str
    """The images that it is looked at with, in words."""
    run: RunFolder | None
    """Its run folder, where it has one."""


def write(path: Path, subject: Subject, gallery: Gallery) -> None:
    """Evaluate a model, draw it, and write the page, whole or not at all.

    Args:
        path: The HTML file.
        subject: The model.
        gallery: The model with the images to look at it with.

    Raises:
        OutputError: the file cannot be written.
    """
    found = evaluate(gallery.vae, gallery.images, seed=gallery.seed)
    remarks = scorecard.remarks(gallery.vae, subject.metadata, gallery.images)
    settings = _config(subject).get("settings")
    if settings is not None:
        try:
            config = TrainConfig.checked(settings, "config.json")
        except ConfigError as error:
            # An older run may have what is refused today: its page says so, and is made.
            remarks.append(f"such a run is not started any more: {error}")
        else:
            remarks += [str(remark) for remark in doctor.of_run(config, gallery.rows)]
    write_text(path, page(subject, gallery, scorecard.rows(found), remarks))


def _with_code(text: str) -> str:
    """A text of the library as HTML: the settings that it names between backticks are code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def page(
    subject: Subject,
    gallery: Gallery,
    numbers: Iterable[tuple[str, str, str]],
    remarks: Iterable[str],
) -> str:
    """The page as text.

    Args:
        subject: The model.
        gallery: What the figures are made of.
        numbers: Name, value and unit of every number.
        remarks: What a reader must know, a line each.
    """
    more = () if gallery.vae.config.condition is None else ("labels",)
    drawn = dict(pictures(gallery, (*REPORT_FIGURES, *more)))
    shown = {name: one for name, one in drawn.items() if isinstance(one, Picture)}
    left_out = {name: one for name, one in drawn.items() if isinstance(one, str)}
    size = f"{gallery.vae.num_parameters():,}"
    parts = [
        f"<h1>{escape(subject.name)}</h1>",
        f"<p class=lead>{escape(in_a_sentence(subject.metadata))} {size} parameters.</p>",
        _links(shown),
        "<h2 id=numbers>Numbers</h2>",
        f"<p>On {escape(subject.data)}, in evaluation mode, seed {gallery.seed}.</p>",
        _table(numbers, ("quantity", "value", "unit")),
        *(f"<p class=remark>{_with_code(remark)}</p>" for remark in remarks),
        *(_figure(name, picture) for name, picture in shown.items()),
        *(f"<p>No picture of {escape(name)}: {escape(why)}.</p>" for name, why in left_out.items()),
        _settings(subject),
    ]
    style = (resources.files("convvae.figures") / "report.css").read_text(encoding="utf-8")
    return _frame(subject.name, style, "\n".join(parts))


def in_a_sentence(metadata: ModelMetadata) -> str:
    """What the model is and what it was trained on."""
    model = metadata.model
    height, width = model.image_size
    kind = {1: "grey", 2: "grey and alpha", 3: "colour", 4: "colour and alpha"}[model.channels]
    latents = "1 latent" if model.latent_dims == 1 else f"{model.latent_dims} latents"
    epochs = "1 epoch" if metadata.epochs == 1 else f"{metadata.epochs} epochs"
    recipe = f", recipe {metadata.recipe}" if metadata.recipe else ""
    drawn = {"none": "", "dynamic": " binarised anew every epoch", "static": " binarised once"}
    best = ""
    if metadata.kept == "best":
        best = (
            f", the best of {metadata.run_epochs}" if metadata.run_epochs else ", the best so far"
        )
    course = (
        f" for {epochs}{best} ({metadata.images:,} images seen{recipe})" if metadata.epochs else ""
    )
    bound = ""
    if metadata.bound is not None:
        bound = (
            f", which left it a bound of {metadata.bound:.2f} nats per image on "
            f"{_VALIDATED_ON[metadata.validated_on]}"
        )
    told = ""
    if model.condition is not None:
        told = f", told {model.condition.in_words} of each image"
    return (
        f"A convolutional variational autoencoder with {latents}, network {model.network}, "
        f"likelihood {model.likelihood}{told}, for {kind} images of {height}x{width} pixels; "
        f"trained on {metadata.data}{drawn[metadata.binarize]}{course}{bound}."
    )


def _links(shown: Mapping[str, Picture]) -> str:
    places = [("numbers", "Numbers"), *((name, one.title) for name, one in shown.items())]
    places.append(("settings", "Settings"))
    links = " ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in places)
    return f"<nav>{links}</nav>"


def _figure(name: str, picture: Picture) -> str:
    drawing = in_page(figures.svg(picture.figure, REPORT_DPI), picture.title)
    return (
        f'<section><h2 id="{name}">{escape(picture.title)}</h2><figure>{drawing}'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure></section>"
    )


def in_page(svg: str, title: str) -> str:
    """An SVG element made to stand in a page: its text's colour, no names but those it refers to.

    Args:
        svg: The element, as `figures.svg` makes it.
        title: What it shows, for those who cannot see it.
    """
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    width = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
    assert width is not None
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[\d.]+pt"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[\d.]+pt"', r"\1", svg)
    wide = f'style="max-width: {float(width[1]) * 4 / 3:.0f}px"'
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}" {wide}', 1).replace(
        figures.INK, "currentColor"
    )


def _config(subject: Subject) -> dict[str, Any]:
    """The content of the run's `config.json`; nothing where there is none."""
    run = subject.run
    return run.read_config() if run is not None and run.config.exists() else {}


def _settings(subject: Subject) -> str:
    parts = ["<section><h2 id=settings>Settings and versions</h2>"]
    config = _config(subject)
    model = subject.metadata.model.model_dump(mode="json")
    settings = {**model, **config.get("settings", {})}
    settings["image_size"] = model["image_size"]
    parts.append(_table([(name, _plain(value)) for name, value in sorted(settings.items())]))
    starts = config.get("ran_on", [{"versions": subject.metadata.versions}])
    for start in starts:
        versions = start.get("versions", {})
        what = {
            "started at image": f"{start.get('from_image', 0):,}",
            "device": start.get("device", "not recorded"),
            **versions,
        }
        parts.append(_table([(name, _plain(value)) for name, value in what.items()]))
    return "\n".join([*parts, "</section>"])


def _plain(value: Any) -> str:  # noqa: ANN401
    """A setting in words: sizes as 64x64, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return "x".join(str(item) for item in value)
    return str(value)


def _table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    """A table of text; the second column is set in figures of one width."""
    lines = ["<table>"]
    if head:
        lines.append("<tr>" + "".join(f"<th scope=col>{escape(name)}</th>" for name in head))
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f"<tr><th scope=row>{escape(first.strip())}</th>{cells}")
    return "\n".join([*lines, "</table>"])


def _frame(title: str, style: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · convvae</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
