"""Planes to lay the latent space out on: from latents to points of a map, and back."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

NEAREST_POINTS = 5
"""Images whose latents are averaged where a map has no inverse."""


class Plane(Protocol):
    """A map of the latent space."""

    points: Tensor
    """Where the images are, shape [N, 2], float32."""
    axes: tuple[str, str]
    """What the horizontal and the vertical axis are."""
    note: str
    """What a reader of the map must know; empty where it is what it seems."""

    def place(self, z: Tensor) -> Tensor:
        """Where latents z [D] are: shape [2]."""
        ...

    def at(self, point: Tensor, z: Tensor) -> Tensor:
        """Latents [D] at a point [2]; what the map does not show stays as in z [D]."""
        ...


class TwoLatents:
    """Two latents as they are.

    Args:
        mean: Latents of the images, shape [N, D].
        horizontal: Latent of the horizontal axis.
        vertical: Latent of the vertical axis.
    """

    note: str = ""

    def __init__(self, mean: Tensor, horizontal: int, vertical: int) -> None:
        self._which = [horizontal, vertical]
        self.points = mean[:, self._which]
        self.axes: tuple[str, str] = (f"latent {horizontal}", f"latent {vertical}")

    def place(self, z: Tensor) -> Tensor:
        """The two latents of z [D]."""
        return z[self._which]

    def at(self, point: Tensor, z: Tensor) -> Tensor:
        """The point's two latents, all others of z [D]."""
        moved = z.clone()
        moved[self._which] = point
        return moved


class OneLatent:
    """A single latent; the images are spread over the height so that they do not hide each other.

    Args:
        mean: Latents of the images, shape [N, 1].
        labels: Classes, int64 [N]; each gets a band of its own.
    """

    note: str = "The height has no meaning: it parts the images."

    def __init__(self, mean: Tensor, labels: Tensor | None) -> None:
        count = len(mean)
        bands = torch.zeros(count) if labels is None else labels.unique(return_inverse=True)[1]
        # Multiples of the golden ratio: spread evenly, and the same at every start.
        spread = torch.arange(count) * 0.618034 % 1
        height = bands + 0.8 * spread
        self.points = torch.stack([mean[:, 0], height - height.mean()], 1)
        self.axes: tuple[str, str] = ("latent 0", "" if labels is None else "a band a class")

    def place(self, z: Tensor) -> Tensor:
        """The latent of z [1], at the middle of the height."""
        return torch.stack([z[0], torch.zeros(())])

    def at(self, point: Tensor, z: Tensor) -> Tensor:
        """The latent at a point: its height says nothing."""
        return point[:1].clone()


class Principal:
    """The two directions in which the latents vary most.

    Args:
        mean: Latents of the images, shape [N, D].
        points: Their principal components, shape [N, 2].
    """

    axes: tuple[str, str] = ("first principal component", "second principal component")
    note: str = ""

    def __init__(self, mean: Tensor, points: Tensor) -> None:
        self.points = points
        self._centre = mean.mean(0)
        # points = (mean - centre) directions, solved for the directions, shape [D, 2].
        self._directions = (torch.linalg.pinv((mean - self._centre).double()) @ points.double()).to(
            torch.float32
        )

    def place(self, z: Tensor) -> Tensor:
        """z [D] projected onto the two directions."""
        return (z - self._centre) @ self._directions

    def at(self, point: Tensor, z: Tensor) -> Tensor:
        """z [D] moved within the plane, what is orthogonal to it kept."""
        return z + self._directions @ (point - self.place(z))


class Embedding:
    """A map that keeps neighbours together and has no inverse: t-SNE or UMAP.

    Args:
        mean: Latents of the images on the map, shape [N, D].
        points: Where they are on it, shape [N, 2].
        name: Of the method.
    """

    def __init__(self, mean: Tensor, points: Tensor, name: str) -> None:
        self.points = points
        self._mean = mean
        self.axes: tuple[str, str] = (f"{name} 1", f"{name} 2")
        self.note: str = (
            f"{name} keeps neighbours together; distances mean nothing. It cannot be inverted: "
            f"decoding takes the mean of the {min(NEAREST_POINTS, len(mean))} nearest images."
        )

    def place(self, z: Tensor) -> Tensor:
        """Among the images that are nearest to z [D] in the latent space."""
        return self._blend(torch.cdist(z[None], self._mean)[0], self.points)

    def at(self, point: Tensor, z: Tensor) -> Tensor:
        """The mean latents of the images nearest to the point, by inverse distance."""
        return self._blend(torch.cdist(point[None], self.points)[0], self._mean)

    def _blend(self, distances: Tensor, values: Tensor) -> Tensor:
        near = distances.topk(min(NEAREST_POINTS, len(distances)), largest=False)
        weights = 1 / (near.values + 1e-6)
        return (weights[:, None] * values[near.indices]).sum(0) / weights.sum()
