"""Training runs side by side: a panel for each number, a row for each recipe."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from convvae.evaluation.runs import in_a_cell
from convvae.figures.style import TRAINING, VALIDATION, WIDTH, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from convvae.evaluation.runs import Comparison, Quantity, Recipe


DRAWN = ("bound", "squared error", "SSIM", "Frechet", "parameters", "time", "speed")
"""Beginnings of the names of the numbers that have a panel."""
ACROSS = 3
"""Panels beside each other."""
MOST_SHOWN = 28
"""Characters of the name of a run; longer ones begin with an ellipsis."""


@styled
def compared(found: Comparison) -> Figure:
    """The numbers of runs, each in a panel of its own, with what does not compare below them.

    A dot is a run; of several runs of one recipe there is a mark at their mean as well. Lines reach
    to the standard error over images of one run, and to the standard deviation over several.

    Args:
        found: The runs.
    """
    shown = [
        quantity
        for quantity in found.quantities
        if quantity.name.startswith(DRAWN)
        and any(one.cells[quantity.name] for one in found.recipes)
    ]
    rows = -(-len(shown) // ACROSS)
    said = [f"{one.letter}: {_what(found, one)}" for one in found.recipes if found.settings]
    said += [found.meaning, *found.notes]
    words = [line for text in said for line in textwrap.wrap(text, 110, subsequent_indent="    ")]
    figure = new_figure(WIDTH, rows * (0.9 + 0.26 * len(found.recipes)) + 0.17 * len(words) + 0.2)
    panels = figure.subplots(rows, ACROSS, squeeze=False, sharey=True).flatten()
    for axes, quantity in zip(panels, shown, strict=False):
        _panel(axes, quantity, found.recipes)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(found.recipes)), [_name(one) for one in found.recipes])
    panels[0].set_ylim(len(found.recipes) - 0.5, -0.5)
    figure.supxlabel("\n".join(words), x=0.01, ha="left", size=8)
    return figure


def _panel(axes: Axes, quantity: Quantity, recipes: list[Recipe]) -> None:
    for row, recipe in enumerate(recipes):
        cell = recipe.cells[quantity.name]
        if cell is None:
            continue
        single = len(recipe.runs) == 1
        values = [one.mean for one in recipe.each[quantity.name] if one is not None]
        axes.plot(values, [row] * len(values), "o", ms=4 if single else 3, color=TRAINING)
        mark, colour = ("none", TRAINING) if single else ("|", VALIDATION)
        axes.errorbar(
            cell.mean, row, xerr=cell.error, fmt=mark, color=colour, ms=11, capsize=3, zorder=0
        )
    axes.set_title(quantity.name)
    axes.set_xlabel(quantity.unit, size=8)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, axis="x")
    axes.set_axisbelow(True)


def _name(recipe: Recipe) -> str:
    """What a row is called: its letter, and its run or how many there are."""
    runs = recipe.runs
    name = runs[0].run.name if len(runs) == 1 else f"{len(runs)} runs"
    # Of a long path the end says more.
    return f"{recipe.letter}  {name if len(name) <= MOST_SHOWN else f'…{name[1 - MOST_SHOWN :]}'}"


def _what(found: Comparison, recipe: Recipe) -> str:
    """The settings of a recipe that differ from those of others."""
    place = found.recipes.index(recipe)
    return ", ".join(
        f"{name} {in_a_cell(values[place])}" for name, values in found.settings.items()
    )
