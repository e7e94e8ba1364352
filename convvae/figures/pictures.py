"""Images beside what a model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from convvae.figures.style import WIDTH, Tiling, cell_inches, new_figure, styled, tile
from convvae.images.sheets import to_rgba

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LONGEST = 14
"""Characters of a class's name in a title; longer ones end in an ellipsis."""
LEGIBLE = 8.0
"""Points of the text above an image."""


@styled
def reconstructions(originals: Tensor, copies: Tensor, titles: Sequence[str] = ()) -> Figure:
    """Originals over their reconstructions, in rows of ten, titled.

    Args:
        originals: uint8, or float in [0, 1], shape [N, C, H, W].
        copies: The same shape.
        titles: One for each image, such as its label; or none.
    """
    return _two_rows(originals, copies, titles, ("image", "decoded"))


@styled
def samples(images: Tensor) -> Figure:
    """Images in a square grid.

    Args:
        images: uint8, or float in [0, 1], shape [N, C, H, W].
    """
    columns = max(1, round((len(images) * images.shape[2] / images.shape[3]) ** 0.5))
    rows = -(-len(images) // columns)
    size = (images.shape[2], images.shape[3])
    inch = cell_inches(rows, columns, size, (WIDTH, WIDTH - 0.2), largest=1.5)
    figure = new_figure(WIDTH, 1.05 * rows * inch * size[0] / max(size) + 0.1)
    cells = _filled(to_rgba(images), rows * columns)
    tile(figure.add_subplot(), cells.view(rows, columns, *cells.shape[1:]))
    return figure


@styled
def extremes(
    originals: Tensor,
    copies: Tensor,
    titles: Sequence[str],
    blocks: Sequence[str],
    p: Tensor | None = None,
) -> Figure:
    """Images, their reconstructions, and heat maps of the absolute error, in named blocks.

    The error of a pixel is the mean over the channels of |x - E[x|z]|; one scale for all.

    Args:
        originals: uint8, or float in [0, 1], shape [N, C, H, W]; the same number for each block,
            but the last may have fewer.
        copies: The same shape.
        titles: One for each image.
        blocks: Name of each block.
        p: p-values of the pixels, shape [N, H, W], shown as -log10 p in place of the error.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    left, right = (
        images.float() / (255 if images.dtype == torch.uint8 else 1)
        for images in (originals, copies)
    )
    values = (left - right).abs().mean(1) if p is None else -p.log10()
    scale = Normalize(0, max(float(values.max()), 1e-6))
    heat = torch.from_numpy(colormaps["magma"](scale(values.numpy()), bytes=True)).movedim(-1, 1)
    columns = -(-len(originals) // len(blocks))
    size = (originals.shape[2], originals.shape[3])
    inch = cell_inches(3 * len(blocks), columns, size, (9.0, WIDTH - 1.6))
    height, width = (inch * side / max(size) for side in size)
    figure = new_figure(WIDTH, len(blocks) * (3.2 * height + 0.7) + 0.1)
    grid = figure.subplots(len(blocks), 1, squeeze=False)[:, 0]
    for number, (axes, name) in enumerate(zip(grid, blocks, strict=True)):
        these = slice(number * columns, (number + 1) * columns)
        three = (to_rgba(originals[these]), to_rgba(copies[these]), heat[these])
        cells = torch.stack([_filled(part, columns) for part in three])
        tiling = tile(axes, cells, gap=(0.03, 0.07))
        axes.set_title(name, pad=6 + 10 * (1 + max(title.count("\n") for title in titles)))
        for column, title in enumerate(titles[these]):
            _title(tiling, 0, column, title, width)
        for row, text in enumerate(("image", "decoded", "error" if p is None else "where")):
            axes.text(*tiling.left(row), text, ha="right", va="center", size=LEGIBLE)
    bar = figure.colorbar(ScalarMappable(scale, "magma"), ax=list(grid), shrink=0.6, aspect=30)
    bar.set_label("absolute error of a pixel (0 to 1)" if p is None else "-log10 p of a pixel")
    return figure


@styled
def class_means(means: Tensor, decoded: Tensor, titles: Sequence[str]) -> Figure:
    """The mean image of every class over the image decoded from its mean latent.

    Args:
        means: uint8, or float in [0, 1], shape [M, C, H, W].
        decoded: The same shape.
        titles: Name of each class.
    """
    return _two_rows(means, decoded, titles, ("mean image", "mean latent,\ndecoded"))


@styled
def rows(images: Tensor, names: Sequence[str], titles: Sequence[str] = ()) -> Figure:
    """Rows of images, each with its name at its left.

    Args:
        images: uint8, or float in [0, 1], shape [R, N, C, H, W].
        names: One for each row.
        titles: One for each column, above it; or none.
    """
    count, columns = images.shape[:2]
    size = (images.shape[-2], images.shape[-1])
    inch = cell_inches(count, columns, size, (8.0, WIDTH - 1.2))
    height, width = (inch * side / max(size) for side in size)
    figure = new_figure(WIDTH, count * 1.05 * height + (0.4 if titles else 0.2))
    cells = to_rgba(images.flatten(0, 1)).unflatten(0, (count, columns))
    tiling = tile(figure.add_subplot(), cells, gap=(0.03, 0.05))
    for row, name in enumerate(names):
        tiling.axes.text(*tiling.left(row), name, ha="right", va="center", size=LEGIBLE)
    for column, title in enumerate(titles):
        _title(tiling, 0, column, title, width)
    return figure


def _two_rows(
    upper: Tensor, lower: Tensor, titles: Sequence[str], names: tuple[str, str]
) -> Figure:
    pairs = torch.stack([to_rgba(upper), to_rgba(lower)], 1)
    columns = min(10, len(pairs))
    blocks = -(-len(pairs) // columns)
    size = (upper.shape[2], upper.shape[3])
    inch = cell_inches(2 * blocks, columns, size, (8.0, WIDTH - 1.2))
    height, width = (inch * side / max(size) for side in size)
    figure = new_figure(WIDTH, blocks * (2.1 * height + 0.35) + 0.1)
    for number, axes in enumerate(figure.subplots(blocks, 1, squeeze=False)[:, 0]):
        these = slice(number * columns, (number + 1) * columns)
        tiling = tile(axes, _filled(pairs[these], columns).transpose(0, 1), gap=(0.03, 0.07))
        for column, title in enumerate(titles[these]):
            _title(tiling, 0, column, title, width)
        for row, name in enumerate(names):
            axes.text(*tiling.left(row), name, ha="right", va="center", size=LEGIBLE)
    return figure


def _title(tiling: Tiling, row: int, column: int, title: str, inch: float) -> None:
    """Write above an image, as small as its width asks for."""
    lines = [
        line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in title.split("\n")
    ]
    points = 72 * inch / (0.62 * max(1, *map(len, lines)))
    tiling.axes.text(
        *tiling.above(row, column),
        "\n".join(lines),
        ha="center",
        va="bottom",
        size=max(4.0, min(LEGIBLE, points)),
        parse_math=False,
    )


def _filled(cells: Tensor, count: int) -> Tensor:
    """The images and as many transparent ones as make `count`: uint8 [count, 4, H, W]."""
    return torch.cat([cells, cells.new_zeros(count - len(cells), *cells.shape[1:])])
