"""What a conditional model is told of the places that are decoded: a control for each column."""

from __future__ import annotations

from bokeh.models import Select, Slider

from convvae.config import Category, Number
from convvae.explorer.drawing import SKIN
from convvae.explorer.scene import Scene

STEPS = 100
"""Steps of a slider between the lowest and the highest number of the training."""


class Told:
    """The controls of the columns of a conditional model: a list of labels, or a slider.

    Args:
        scene: What the page shows; of an unconditional model there are none.
    """

    def __init__(self, scene: Scene) -> None:
        condition = scene.vae.config.condition
        columns = () if condition is None else condition.columns
        self.widgets: dict[str, Select | Slider] = {
            column.name: _slider(column) if isinstance(column, Number) else _select(column)
            for column in columns
        }
        """By the name of the column."""
        self.show(scene)

    @property
    def values(self) -> dict[str, str]:
        """What the controls say, by column."""
        return {
            name: f"{widget.value:.5g}" if isinstance(widget, Slider) else str(widget.value)
            for name, widget in self.widgets.items()
        }

    def show(self, scene: Scene) -> None:
        """Bring every control to what is told."""
        for name, value in scene.values.items():
            widget = self.widgets[name]
            if isinstance(widget, Slider):
                number = float(value)
                # An image of the map may have a number outside the training's: it widens the range.
                widget.update(
                    start=min(widget.start, number), end=max(widget.end, number), value=number
                )
            else:
                widget.value = value


def _select(column: Category) -> Select:
    return Select(
        name=column.name,
        options=[(label, f"{column.name} {label}") for label in column.labels],
        value=column.labels[0],
        width=147,
        margin=(2, 3, 2, 3),
        stylesheets=[SKIN],
    )


def _slider(column: Number) -> Slider:
    low, high = column.quantiles[0], column.quantiles[-1]
    return Slider(
        name=column.name,
        title=column.name,
        start=low,
        end=high,
        step=(high - low) / STEPS,
        value=low,
        format="0[.]000",
        width=147,
        margin=(2, 10, 2, 10),
        stylesheets=[SKIN],
    )
