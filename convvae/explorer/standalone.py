"""The page as one file that needs no server: map, pictures of every point, precomputed manifold."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path

import numpy as np
import torch
from bokeh.embed import components
from bokeh.events import MouseMove, Tap
from bokeh.models import CustomJS
from bokeh.resources import Resources
from PIL import Image
from torch import Tensor

from convvae.evaluation.reconstruction import reconstruct
from convvae.explorer.drawing import Map
from convvae.explorer.planes import Plane
from convvae.explorer.scene import Scene
from convvae.explorer.templates import template
from convvae.explorer.tiles import rgba
from convvae.files import write_text
from convvae.images.sheets import to_uint8

MAX_PAGE_BYTES = 8_000_000
"""Bytes that a page may have."""
TILE_SIDE = 32
"""Largest side of a picture inside the page, in pixels: thousands of them must fit."""
GRID = 21
"""Pictures of the manifold in each direction."""
QUALITY = 60
"""Of WebP."""


def write(scene: Scene, path: Path) -> int:
    """Write the page of a scene to a file; where it would be too large, with fewer images.

    Returns:
        Number of images on the map.

    Raises:
        OutputError: the file cannot be written.
    """
    count = len(scene.images)
    decoded = to_uint8(reconstruct(scene.vae, scene.images))
    text = _page(scene, decoded, count)
    while len(text.encode()) > MAX_PAGE_BYTES and count > 1:
        count = count // 2
        text = _page(scene, decoded, count)
    write_text(path, text)
    return count


def _page(scene: Scene, decoded: Tensor, count: int) -> str:
    """The page of the first images of a scene."""
    plane = scene.informative() if scene.dims <= 2 else scene.projection("pca")
    labels = None if scene.labels is None else scene.labels[:count]
    chart = Map(plane, labels, scene.class_name, count)
    for event in (MouseMove, Tap):
        chart.figure.js_on_event(event, CustomJS(code="still.point(cb_obj.x, cb_obj.y)"))
    script, place = components(chart.figure)
    frame = chart.frame()
    points = plane.points[:count]
    contents = {
        "count": count,
        "points": _packed(points),
        "names": [scene.image_name(place) for place in range(count)],
        "kinds": [scene.kind(place) for place in range(count)],
        "frame": frame,
        "grid": GRID,
        "tile": _tile(scene.images).shape[-2:],
        "images": _sheet(scene.images[:count]),
        "reconstructions": _sheet(decoded[:count]),
        "manifold": _sheet(_manifold(scene, plane, frame)),
    }
    return template("standalone.html").render(
        scene=scene,
        count=count,
        # Inside a script, nothing may look like its end.
        contents=json.dumps(contents).replace("<", "\\u003c"),
        resources=Resources(mode="inline", components=["bokeh"]).render_js(),
        chart=place,
        script=script,
        note=" ".join(filter(None, (plane.note, _told(scene)))),
        axes=plane.axes,
    )


def _told(scene: Scene) -> str:
    """What a reader must know of a conditional model's pictures; nothing of another's."""
    if scene.label is None:
        return ""
    return f"Places between the images are decoded with the label {scene.label}."


def _manifold(scene: Scene, plane: Plane, frame: tuple[float, float, float, float]) -> Tensor:
    """Decoded pictures over the map, the upper row first: uint8 [GRID * GRID, C, H, W]."""
    left, right, bottom, top = frame
    centre = (torch.arange(GRID) + 0.5) / GRID
    z = [
        plane.at(torch.stack([left + (right - left) * u, top - (top - bottom) * v]), scene.origin)
        for v in centre
        for u in centre
    ]
    return scene.decode(torch.stack(z))


def _packed(points: Tensor) -> str:
    """Points [N, 2] as base64 of float32."""
    return base64.b64encode(points.contiguous().numpy().astype("<f4").tobytes()).decode()


def _tile(images: Tensor) -> Tensor:
    """Images no larger than `TILE_SIDE`."""
    height, width = images.shape[-2:]
    scale = min(1.0, TILE_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)


def _sheet(images: Tensor) -> str:
    """All images on one sheet, row by row in a square of them, as a WebP data address."""
    cells = _tile(images)
    columns = math.ceil(math.sqrt(len(cells)))
    height, width = cells.shape[-2:]
    rows = math.ceil(len(cells) / columns)
    sheet = np.zeros((rows * height, columns * width, 4), dtype=np.uint8)
    for place, cell in enumerate(cells):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + height, left : left + width] = rgba(cell)
    out = io.BytesIO()
    picture = Image.fromarray(sheet)
    if images.shape[1] in (1, 3):
        picture = picture.convert("RGB")
    picture.save(out, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
