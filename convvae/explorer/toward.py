"""A label to walk toward: the direction of every class, and the controls that choose how far."""

from __future__ import annotations

from typing import Any

import torch
from bokeh.models import Select, Slider
from torch import Tensor

from convvae.explorer.drawing import SKIN
from convvae.explorer.scene import Scene
from convvae.explorer.tiles import rgba
from convvae.explorer.walk import STRIP_POINTS, Tile, Walk

LEAST, MOST = -1.0, 1.5
"""Strengths at the ends of the strip and of the animation."""
FARTHEST = 2.0
"""Largest strength of the slider."""


class Toward:
    """The controls of the direction toward a class.

    Args:
        scene: What the page shows; without directions nothing is ever visible.
    """

    def __init__(self, scene: Scene) -> None:
        look: dict[str, Any] = {"visible": False, "stylesheets": [SKIN]}
        options = [(str(label), f"toward {scene.class_name(label)}") for label in scene.ends]
        self.label = Select(
            name="toward",
            value=options[0][0] if options else "",
            options=options,  # pyright: ignore[reportArgumentType]
            width=147,
            margin=(2, 3, 2, 3),
            **look,
        )
        self.strength = Slider(
            name="strength", title="strength", start=-FARTHEST, end=FARTHEST, step=0.05, value=0,
            format="0.00", width=190, margin=(2, 10, 2, 10), **look,
        )  # fmt: skip

    @property
    def chosen(self) -> int:
        """The class that the controls say."""
        return int(str(self.label.value))

    def show(self, on: bool) -> None:
        """Offer the controls, or not."""
        self.label.visible = self.strength.visible = on


HINT = (
    "Where you stood, moved toward a class: strength 1 is the distance from the mean of all other "
    "images to the mean of its own."
)


def path(walk: Walk, label: int, steps: int) -> Tensor:
    """Places along the direction through where the reader stood, shape [steps, D]."""
    strengths = torch.linspace(LEAST, MOST, steps)
    return walk.base + strengths[:, None] * walk.scene.way(label)


def tiles(walk: Walk, label: int) -> list[Tile]:
    """The pictures along the direction."""
    z = path(walk, label, STRIP_POINTS)
    words = [f"{strength:+.2f}" for strength in torch.linspace(LEAST, MOST, STRIP_POINTS).tolist()]
    pictures = walk.scene.decode(z)
    return [Tile(rgba(x), text, at) for x, text, at in zip(pictures, words, z, strict=True)]
