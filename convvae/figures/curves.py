"""Numbers as curves and bars: the course of a training, and how much each latent says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from torch import Tensor

from convvae.figures.style import INK, TRAINING, VALIDATION, WIDTH, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LABELS = {
    "validation": ("training, mean of the epoch", "validation"),
    "test": ("training, mean of the epoch", "test images"),
    None: (
        "training, mean of the epoch: −log p(x|z) + β KL",
        "test images: −log p(x|z) + β KL",
    ),
}
"""What the means over training images and over others are called, by what the rows say."""
TICKS = 24
"""Bars that are numbered; of more, some."""


@styled
def training_curves(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Loss, log p(x|z) and KL over training, from the lines of `metrics.jsonl`; nats per image.

    The thin line is the loss of single batches; training means are over an epoch in training mode,
    validation is in evaluation mode, on the images that the rows name. Epochs of before they named
    them have -log p(x|z) + beta KL in the place of the loss, and are called so. The frame of the
    loss holds all but the first tenth of the epochs, whose fall would flatten what comes after it.
    """
    rows = list(rows)
    logs = [row for row in rows if row["event"] == "log"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    figure = new_figure(WIDTH, 3.6)
    loss, kl = figure.subplots(1, 2)
    if logs:
        seen, values = [row["images"] for row in logs], [row["loss"] for row in logs]
        loss.plot(
            seen, values, color=INK, alpha=0.35, linewidth=0.7, label="training, single batches"
        )
    for axes, name, title in ((loss, "loss", "Loss"), (kl, "kl", "KL(q(z|x) || p(z))")):
        _epochs(axes, epochs, name)
        axes.set_title(title)
        axes.set_ylabel("nats per image")
        axes.set_xlabel("images seen")
        axes.xaxis.set_major_formatter(_large_number)
        axes.grid(visible=True)
    late = epochs[len(epochs) // 10 :]
    if len(late) > 1:
        after = late[0]["images"]
        values = [row[f"{part}_loss"] for row in late for part in ("train", "val")]
        values += [row["loss"] for row in logs if row["images"] >= after]
        low, high = min(values), max(values)
        loss.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) or None)
    handles, labels = loss.get_legend_handles_labels()
    columns = 3 if sum(map(len, labels)) < 80 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    return figure


def _epochs(axes: Axes, epochs: Sequence[Mapping[str, Any]], name: str) -> None:
    for of, group in groupby(epochs, lambda row: row.get("validated_on")):
        rows = list(group)
        seen = [row["images"] for row in rows]
        training = [row[f"train_{name}"] for row in rows]
        validation = [row[f"val_{name}"] for row in rows]
        own, other = _LABELS[of]
        axes.plot(seen, training, "o-", ms=3, color=TRAINING, label=own)
        axes.plot(seen, validation, "s-", ms=3, color=VALIDATION, label=other)


def _large_number(value: float, _place: int) -> str:
    """60,000 as 60k, 3,000,000 as 3M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


@styled
def information(values: Tensor, order: Tensor, quantity: str, mark: float | None = None) -> Figure:
    """A bar a latent, the largest first.

    Args:
        values: Shape [D].
        order: Latents in the order to show them, int64 [D].
        quantity: What the values are, with their unit.
        mark: Where to draw a line, such as the least value of an active latent.
    """
    count = len(order)
    figure = new_figure(min(WIDTH, 2 + 0.55 * count), 3.2)
    axes = figure.add_subplot()
    axes.bar(
        range(count), values[order].tolist(), width=0.8 if count <= 64 else 1.0, color=TRAINING
    )
    if mark is not None:
        axes.axhline(mark, color=VALIDATION, linewidth=1)
    step = -(-count // TICKS)
    axes.set_xticks(range(0, count, step), [f"{order[i]}" for i in range(0, count, step)])
    axes.set_xlim(-0.6, count - 0.4)
    axes.set_xlabel("latent" + ("" if step == 1 else f"; every {step}th is named"))
    axes.set_ylabel(quantity)
    axes.grid(visible=True, axis="y")
    axes.set_axisbelow(True)
    return figure
