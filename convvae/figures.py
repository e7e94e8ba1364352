"""Pictures: grids of images as arrays, and the curves of a run.

Grids are plain arrays [C, H, W] written by Pillow: the same images give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from convvae.data.pixels import to_uint8, to_unit
from convvae.errors import OutputError
from convvae.files import atomic

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's picture mode for each number of channels."""
GAP = 2
"""Pixels between the cells of a grid."""
PAPER = 64
"""Grey level behind a grid."""


def grid(images: Tensor, rows: int = 8) -> Tensor:
    """Lay images out row by row, `rows` of them high.

    Arguments:
        images: uint8 [N, C, H, W], or float in [0, 1].
        rows: Rows of the grid; the last row may be shorter, missing cells stay empty.

    Returns:
        uint8 [C, height, width], cells `GAP` apart.
    """
    cells = _as_uint8(images)
    count, channels, height, width = cells.shape
    columns = math.ceil(count / min(rows, count))
    rows = math.ceil(count / columns)
    sheet = _paper(channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    for place, cell in enumerate(cells):
        top = GAP + place // columns * (height + GAP)
        left = GAP + place % columns * (width + GAP)
        sheet[:, top : top + height, left : left + width] = cell
    return sheet


def paired_grid(originals: Tensor, reconstructions: Tensor, rows: int = 8) -> Tensor:
    """Each original with its reconstruction at its right, pairs row by row.

    Arguments:
        originals: uint8 or float [N, C, H, W].
        reconstructions: The same shape.
        rows: Rows of the grid.

    Returns:
        uint8 [C, height, width].
    """
    pairs = torch.cat([_as_uint8(originals), _as_uint8(reconstructions)], dim=3)
    return grid(pairs, rows)


def joint_grid(reconstructions: Tensor, samples: Tensor, rows: int = 8) -> Tensor:
    """Reconstructions, a blank row, then samples: `rows` rows each, as the Lux tutorial shows.

    Arguments:
        reconstructions: uint8 or float [N, C, H, W].
        samples: uint8 or float, any number of images of the same shape.
        rows: Rows of each half.

    Returns:
        uint8 [C, height, width].
    """
    upper, lower = grid(reconstructions, rows), grid(samples, rows)
    channels, blank = reconstructions.shape[1:3]
    sheet = _paper(
        channels,
        upper.shape[1] + blank + lower.shape[1],
        max(upper.shape[2], lower.shape[2]),
    )
    sheet[:, : upper.shape[1], : upper.shape[2]] = upper
    sheet[:, -lower.shape[1] :, : lower.shape[2]] = lower
    return sheet


def save_png(path: Path, sheet: Tensor) -> None:
    """Write a picture [C, H, W] of uint8, whole or not at all.

    Raises:
        OutputError: the file cannot be written, or its name says another format.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path} would hold a PNG picture; give it a name that ends in .png")
    pixels = sheet.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    assert image.mode == MODES[sheet.shape[0]]
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")


def loss_curve(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """The loss over training, from the lines of `metrics.jsonl`.

    The thin line is the loss of single batches, the thick ones are the mean of each epoch in
    training mode and the loss of the validation images in evaluation mode: nats per image.
    """
    from matplotlib.figure import Figure

    rows = list(rows)
    logs = [row for row in rows if row["event"] == "log"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    thousands = [row["images"] / 1000 for row in epochs]
    if logs:
        axes.plot(
            [row["images"] / 1000 for row in logs],
            [row["loss"] for row in logs],
            color="#9ecae1",
            linewidth=0.8,
            label="training, single batches",
        )
    axes.plot(
        thousands,
        [row["train_loss"] for row in epochs],
        "o-",
        ms=3,
        color="#0072b2",
        label="training, mean of the epoch",
    )
    axes.plot(
        thousands,
        [row["val_loss"] for row in epochs],
        "s-",
        ms=3,
        color="#d55e00",
        label="validation",
    )
    axes.set_xlabel("images seen, thousands")
    axes.set_ylabel("loss, nats per image")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def worst_figure(
    images: Tensor, reconstructions: Tensor, titles: Sequence[str], heading: str, columns: int = 8
) -> Figure:
    """Images, their reconstructions below them, and below these where they differ.

    The maps show |x - E[x|z]|, the mean over channels, in [0, 1] of black to white, all on one
    scale of brightness (viridis, which reads the same in every kind of colour vision).

    Arguments:
        images: uint8 [N, C, H, W].
        reconstructions: float [N, C, H, W] in [0, 1].
        titles: What stands above each image.
        heading: What stands above all of them.
        columns: Images side by side.
    """
    from matplotlib.figure import Figure

    errors = (to_unit(images) - reconstructions).abs().mean(1).numpy()
    highest = float(errors.max()) or 1.0
    columns = min(columns, len(images))
    bands = math.ceil(len(images) / columns)
    tall = 1.45 * images.shape[2] / images.shape[3]
    size = (max(4.8, 1.45 * columns + 1), (3 * tall + 0.6) * bands + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(heading, fontsize=10)
    axes = figure.subplots(3 * bands, columns, squeeze=False)
    for cell in axes.flat:
        cell.set(xticks=[], yticks=[], frame_on=False)
    drawn = None
    for place, title in enumerate(titles):
        top, column = 3 * (place // columns), place % columns
        for row, picture in enumerate((images[place], to_uint8(reconstructions[place]))):
            axes[top + row, column].imshow(_as_shown(picture), cmap="gray", vmin=0, vmax=255)
        drawn = axes[top + 2, column].imshow(errors[place], cmap="viridis", vmin=0, vmax=highest)
        axes[top, column].set_title(title, fontsize=7)
    for band in range(bands):
        for row, name in enumerate(("image", "reconstruction", "error")):
            axes[3 * band + row, 0].set_ylabel(name, fontsize=8)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, aspect=12 * bands, shrink=0.5)
        bar.set_label("|image - reconstruction|, black to white = 1", fontsize=8)
    return figure


def _as_shown(picture: Tensor) -> NDArray[np.uint8]:
    """uint8 [C, H, W] -> [H, W] or [H, W, 3 or 4] for matplotlib; of 2 channels, the first."""
    channels = len(picture)
    return (picture.permute(1, 2, 0) if channels > 2 else picture[0]).numpy()


def save_figure(path: Path, figure: Figure) -> None:
    """Write a matplotlib figure as PNG, whole or not at all."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def _as_uint8(images: Tensor) -> Tensor:
    return images.cpu() if images.dtype == torch.uint8 else to_uint8(images)


def _paper(channels: int, height: int, width: int) -> Tensor:
    """An empty opaque sheet: channels 2 and 4 end in alpha."""
    sheet = torch.full((channels, height, width), PAPER, dtype=torch.uint8)
    if channels in (2, 4):
        sheet[-1] = 255
    return sheet
