"""The latent space: where images are, and what is decoded along its lines and planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from convvae.data.images import class_name
from convvae.figures.style import PALETTE, WIDTH, cell_inches, new_figure, number, styled, tile
from convvae.images.sheets import to_rgba

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MARKERS = "os^DvP*X<>"
"""A shape for every ten classes, which share the ten colours."""
NAMED = 40
"""Classes that are named in a scatter; of more, none is."""
POINTS_AT_ONCE = 32
"""Latents one under another; more stand in a block beside."""


@styled
def scatter(
    points: Tensor,
    labels: Tensor | None,
    classes: Sequence[str] | None,
    axes_names: tuple[str, str],
) -> Figure:
    """Images as points, coloured by their class, whose name stands at its median.

    Args:
        points: Shape [N, 2].
        labels: int64 [N]; without them, all points look alike.
        classes: What label i is called; its number where there are no names.
        axes_names: Of the horizontal and the vertical axis.
    """
    figure = new_figure(WIDTH, 6.4)
    axes = figure.add_subplot()
    size = float(min(40, max(3, 16_000 / len(points))))
    if labels is None:
        axes.scatter(*points.T.numpy(), s=size, alpha=0.5, lw=0, color=PALETTE[0], rasterized=True)
    else:
        present = labels.unique().tolist()
        for place, label in enumerate(present):
            axes.scatter(
                *points[labels == label].T.numpy(),
                s=size,
                alpha=0.55,
                lw=0,
                color=PALETTE[place % len(PALETTE)],
                marker=MARKERS[place // len(PALETTE) % len(MARKERS)],
                rasterized=True,
            )
        if len(present) <= NAMED:
            _name_classes(axes, points, labels, present, classes)
    axes.set_xlabel(axes_names[0])
    axes.set_ylabel(axes_names[1])
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(visible=True)
    return figure


def _name_classes(
    axes: Axes,
    points: Tensor,
    labels: Tensor,
    present: Sequence[int],
    classes: Sequence[str] | None,
) -> None:
    """Write every class at its median, on its colour, so that the ground may be light or dark."""
    names = [class_name(classes, label) for label in present]
    medians = torch.stack([points[labels == label].median(0).values for label in present])
    span = (points.max(0).values - points.min(0).values).max().clamp_min(1e-6)
    places = _apart(medians / span, 0.016 * max(map(len, names)) + 0.02, 0.045) * span
    for rank, (name, place) in enumerate(zip(names, places.tolist(), strict=True)):
        colour = PALETTE[rank % len(PALETTE)]
        axes.annotate(
            name,
            place,
            ha="center",
            va="center",
            weight="bold",
            color="white" if _luminance(colour) < 0.5 else "black",
            bbox={
                "boxstyle": "round,pad=0.2",
                "facecolor": colour,
                "edgecolor": "white",
                "lw": 0.8,
            },
            parse_math=False,
        )


def _apart(places: Tensor, width: float, height: float) -> Tensor:
    """Places [M, 2] moved as little as keeps boxes of that size around them from overlapping."""
    places, box = places.double().clone(), torch.tensor([width, height], dtype=torch.float64)
    for _ in range(100):
        difference = places.unsqueeze(1) - places.unsqueeze(0)
        overlap = (box - difference.abs()).clamp_min(0)
        overlap[range(len(places)), range(len(places))] = 0
        touching = (overlap > 0).all(-1)
        if not touching.any():
            break
        # Upwards or downwards, by half of what is missing; equal heights part by their order.
        side = difference[..., 1].sign()
        ranks = torch.arange(len(places))
        side = torch.where(side == 0, (ranks.unsqueeze(1) - ranks).sign().double(), side)
        places[:, 1] += (side * overlap[..., 1] * touching).sum(1) / 2 + 0
    return places.float()


def _luminance(colour: str) -> float:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


@styled
def manifold(
    images: Tensor, values: Tensor, axes_names: tuple[str, str] | tuple[str], note: str = ""
) -> Figure:
    """Images decoded from a grid of latents, the second latent rising upwards.

    Args:
        images: float in [0, 1], shape [rows, columns, C, H, W], row 0 at the top.
        values: Of the latents along both axes, rising, shape [columns].
        axes_names: Of the horizontal axis, and of the vertical one where there are two latents.
        note: What the axes hold, for the title.
    """
    rows, columns = images.shape[:2]
    size = (images.shape[3], images.shape[4])
    inch = cell_inches(rows, columns, size, (WIDTH, WIDTH - 0.8), largest=0.8)
    figure = new_figure(WIDTH, rows * inch * size[0] / max(size) + 0.9)
    axes = figure.add_subplot()
    tiling = tile(axes, images, gap=(0, 0))
    axes.set_axis_on()
    axes.spines[:].set_visible(False)
    ticks, places = _ticks(values)
    width, height = tiling.size[1], tiling.size[0]
    axes.set_xticks([place * width - 0.5 for place in places], ticks)
    axes.set_xlabel(axes_names[0])
    if len(axes_names) == 2:
        axes.set_yticks([(rows - place) * height - 0.5 for place in places], ticks)
        axes.set_ylabel(axes_names[1])
    else:
        axes.set_yticks([])
    if note:
        axes.set_title(note)
    return figure


def _ticks(values: Tensor) -> tuple[list[str], list[float]]:
    """Round values within those of an axis, and where they are, in cells from its start."""
    step = 1.0 if float(values.max() - values.min()) > 4 else 0.5
    first, last = math.ceil(float(values[0]) / step), math.floor(float(values[-1]) / step)
    ticks = [step * i for i in range(first, last + 1)]
    places = np.interp(ticks, values.numpy(), np.arange(len(values)) + 0.5)
    return [number(tick, "g") for tick in ticks], places.tolist()


@styled
def traversals(
    images: Tensor, latents: Tensor, bounds: Tensor, information: Tensor | None
) -> Figure:
    """What changes along each latent, a row each, in blocks of `POINTS_AT_ONCE` rows.

    Args:
        images: float in [0, 1], shape [L, steps, C, H, W].
        latents: The latent of each row, int64 [L].
        bounds: Its lowest and highest value, shape [2, L].
        information: Its mean KL in nats, shape [L]; None where there is none.
    """
    count, steps = images.shape[:2]
    rows, blocks = min(count, POINTS_AT_ONCE), -(-count // POINTS_AT_ONCE)
    size = (images.shape[3], images.shape[4])
    room = (WIDTH if blocks == 1 else 6.0) - 1.8
    inch = cell_inches(rows, steps, size, (12.0, room), largest=0.65)
    height = 1.06 * inch * size[0] / max(size)
    width = 1.06 * steps * inch * size[1] / max(size) + 1.8
    figure = new_figure(max(WIDTH, blocks * width), max(1.2, rows * height + 0.5))
    points = max(4.0, min(9.0, 62 * height))
    for block, axes in enumerate(figure.subplots(1, blocks, squeeze=False)[0]):
        these = slice(block * POINTS_AT_ONCE, (block + 1) * POINTS_AT_ONCE)
        cells = to_rgba(images[these])
        blank = cells.new_zeros(rows - len(cells), *cells.shape[1:])
        tiling = tile(axes, torch.cat([cells, blank]), gap=(0.05, 0.05))
        if len(cells):
            head = "latent" if information is None else "latent, KL"
            for place, align, name in (
                (tiling.left(-1), "right", head),
                (tiling.right(-1, steps), "left", "walks"),
            ):
                x, y = place[0], tiling.above(0, 0)[1]
                axes.text(x, y, name, ha=align, va="bottom", size=0.8 * points)
        for row in range(len(cells)):
            latent, (low, high) = int(latents[these][row]), bounds[:, these][:, row].tolist()
            kl = "" if information is None else f"  {information[these][row]:.2f}"
            axes.text(*tiling.left(row), f"z{latent}{kl}", ha="right", va="center", size=points)
            ends = f"{number(low, '.1f')} to {number(high, '.1f')}"
            axes.text(*tiling.right(row, steps), ends, va="center", size=points)
    return figure


@styled
def interpolations(paths: Sequence[Tensor], ends: Sequence[Tensor], names: Sequence[str]) -> Figure:
    """Ways from one image to another, a row each, between the two images themselves.

    Args:
        paths: Decoded images of each way, float in [0, 1], shape [steps, C, H, W].
        ends: The two images, uint8 or float, shape [C, H, W].
        names: Of the ways.
    """
    start, end = (to_rgba(image)[None] for image in ends)
    cells = torch.stack([torch.cat([start, to_rgba(path), end]) for path in paths])
    rows, columns = cells.shape[:2]
    size = (cells.shape[3], cells.shape[4])
    inch = cell_inches(rows, columns, size, (6.0, WIDTH - 1.0))
    figure = new_figure(WIDTH, 1.06 * rows * inch * size[0] / max(size) + 0.5)
    axes = figure.add_subplot()
    tiling = tile(axes, cells, gap=(0.06, 0.06))
    for row, name in enumerate(names):
        axes.text(*tiling.left(row), name, ha="right", va="center")
    for column, name in (
        (0, "image A"),
        (1, "A decoded"),
        (columns - 2, "B decoded"),
        (columns - 1, "image B"),
    ):
        axes.text(*tiling.above(0, column), name, ha="center", va="bottom", size=7)
    return figure
