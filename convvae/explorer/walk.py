"""Where a reader stands in a scene, and what is to be seen from there; no page yet."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convvae.evaluation.latents import Route, interpolation, traversal
from convvae.explorer.planes import Plane
from convvae.explorer.scene import Scene, Score
from convvae.explorer.tiles import heat, rgba

STRIP_POINTS = 11
"""Pictures of a strip."""


class Tile(NamedTuple):
    """A picture with its words, and the latent that it stands for."""

    pixels: np.ndarray
    """uint8 [H, W, 4]."""
    words: str
    """One line or two."""
    z: Tensor
    """Shape [D]."""


class Walk:
    """A place in the latent space, and the things that were picked on the way.

    Args:
        scene: Where to walk.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.z = scene.origin
        """Where the reader stands, shape [D]."""
        self.base, self.strength = self.z, 0.0
        """Where the reader came to, and how far toward a class from there."""
        self.plane: Plane = scene.informative()
        """The plane of the map."""
        self.selected = scene.order[0]
        """The latent that the keys and the traversal move."""
        self.ends: dict[str, Tensor | None] = {"A": None, "B": None}
        """The ends of an interpolation."""
        self.own: Score | None = None
        """The reader's image."""
        self._draws = 0

    def move(self, latent: int, value: float) -> None:
        """Set one latent; it becomes the selected one."""
        # A new tensor: a thread may still be drawing the old one.
        moved = self.z.clone()
        moved[latent] = value
        self.z, self.selected = moved, latent

    def stand(self, z: Tensor) -> None:
        """Come to a place."""
        self.z = self.base = z
        self.strength = 0.0

    def lean(self, label: int, strength: float) -> None:
        """Go from the place come to toward a class; of strength 0, back to it."""
        self.z, self.strength = self.base + strength * self.scene.way(label), strength

    def nudge(self, share: float) -> None:
        """Move the selected latent by a share of its range, no further than its ends."""
        low, high = self.scene.low[self.selected], self.scene.high[self.selected]
        value = float(self.z[self.selected] + share * (high - low))
        self.move(self.selected, min(max(value, float(low)), float(high)))

    def select(self, by: int) -> None:
        """Select the latent so many places below in the order of information."""
        order = self.scene.order
        self.selected = order[(order.index(self.selected) + by) % len(order)]

    def draw(self) -> None:
        """Go to a draw of the prior, another one every time."""
        self.z = self.scene.draw(self._draws)
        self._draws += 1

    def pick(self, end: str) -> None:
        """Make the place where the reader stands one end of the interpolation."""
        self.ends[end] = self.z

    def image(self) -> Tensor | None:
        """The image where the reader stands, uint8 [C, H, W]: their own, or one of the map's."""
        if self.own is not None and torch.equal(self.z, self.own.z):
            return self.own.image
        index = self.scene.nearest(self.z, 1)[0]
        return self.scene.images[index] if torch.equal(self.z, self.scene.mean[index]) else None

    def pair(self, z: Tensor, index: int | None = None) -> list[Tile]:
        """The decoded picture at z [D] beside the real image: the given one, or the nearest."""
        nearest = index is None
        picture = self.scene.decode(z) if index is None else self.scene.reconstruct(index)
        index = self.scene.nearest(z, 1)[0] if index is None else index
        return [
            Tile(rgba(picture), self._decoded if nearest else "its reconstruction", z),
            self._real(index, "nearest real image" if nearest else "real image"),
        ]

    @property
    def _decoded(self) -> str:
        """What a decoded picture is, in words."""
        return "decoded" if self.scene.label is None else f"decoded as {self.scene.label}"

    def tell(self, values: dict[str, str]) -> None:
        """Tell the model something else from now on."""
        self.scene = self.scene.telling(values)

    def follow(self) -> None:
        """Where the reader stands at an image of the map, decode with its label."""
        if self.scene.label is None:
            return
        index = self.scene.nearest(self.z, 1)[0]
        if torch.equal(self.z, self.scene.mean[index]):
            self.tell(self.scene.own_values(index))

    def pointed(self, point: Tensor, spread: Tensor, hidden: list[int]) -> int | None:
        """The image of the map that is nearest to a point.

        Args:
            point: Shape [2], in the plane.
            spread: Width and height of the map that are seen, shape [2].
            hidden: Classes that are not seen.
        """
        distances = ((self.plane.points - point) / spread).norm(dim=1)
        if hidden and self.scene.labels is not None:
            gone = torch.isin(self.scene.labels[: len(distances)], torch.tensor(hidden))
            distances = distances.masked_fill(gone, torch.inf)
        nearest = int(distances.argmin())
        return nearest if torch.isfinite(distances[nearest]) else None

    def nearest(self, count: int) -> list[Tile]:
        """The real images nearest to where the reader stands."""
        return [self._real(index) for index in self.scene.nearest(self.z, count)]

    def traversal(self) -> list[Tile]:
        """The selected latent from its lowest to its highest value, all others as they are."""
        bounds = torch.stack([self.scene.low, self.scene.high])
        z = traversal(self.z, torch.tensor([self.selected]), bounds, STRIP_POINTS)[0]
        return self._tiles(z, [f"{float(point[self.selected]):+.2f}" for point in z])

    def between(self, route: Route) -> list[Tile]:
        """From A to B; nothing before both are picked."""
        z = self.path(STRIP_POINTS, route)
        if z is None:
            return []
        words = [f"{place / (STRIP_POINTS - 1):.0%}" for place in range(STRIP_POINTS)]
        return self._tiles(z, ["A", *words[1:-1], "B"])

    def path(self, steps: int, route: Route) -> Tensor | None:
        """Latents from A to B, shape [steps, D]; None before both are picked."""
        a, b = self.ends["A"], self.ends["B"]
        return None if a is None or b is None else interpolation(a, b, steps, route)

    def own_tiles(self) -> list[Tile]:
        """The reader's image, its reconstruction, and where they differ."""
        if self.own is None:
            return []
        top = float(self.own.error.max())
        return [
            Tile(rgba(self.own.image), "your image", self.own.z),
            Tile(rgba(self.own.reconstruction), "reconstruction", self.own.z),
            Tile(heat(self.own.error, top), f"error ≤ {top:.2f}", self.own.z),
        ]

    def _tiles(self, z: Tensor, words: list[str]) -> list[Tile]:
        images = self.scene.decode(z)
        return [Tile(rgba(x), text, at) for x, text, at in zip(images, words, z, strict=True)]

    def _real(self, index: int, what: str = "") -> Tile:
        """An image of the map with its name and class; and what it is, where that is not plain."""
        scene, name, kind = self.scene, self.scene.image_name(index), self.scene.kind(index)
        if scene.names is None:
            lines = [f"{what} {name}".strip(), kind]
        elif what:
            lines = [", ".join(filter(None, (what, kind))), name]
        else:
            lines = [name.rpartition("/")[2], kind]
        return Tile(rgba(scene.images[index]), "\n".join(filter(None, lines)), scene.mean[index])
