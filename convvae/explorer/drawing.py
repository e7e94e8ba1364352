"""What both pages draw with Bokeh: the map, rows of pictures, and their look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, Range1d
from bokeh.plotting import figure
from torch import Tensor

from convvae.explorer.planes import Plane
from convvae.explorer.tiles import packed

COLOURS = (
    *(("#0072b2", "#4ba3e3"), ("#b85c00", "#f0ae2e"), ("#007a5a", "#22c08f")),
    *(("#b0407f", "#e39ac6"), ("#007c92", "#7fd6e8"), ("#cc3311", "#ff8552")),
    *(("#7a6a00", "#d8c93a"), ("#6a6a6a", "#b4b4b4"), ("#8a4a2f", "#d08f6e")),
    ("#6a4fc0", "#a894ff"),
)
"""Of classes, on a light and on a dark ground: the hues of Okabe and Ito (2008) and three more, as
dark or as light as it takes for a single dot to stand out, 3 to 1 (WCAG 2.2, 1.4.11)."""
OPACITY = 0.75
"""Of a dot: where many lie on one another it is darker."""
MANY = 20
"""Classes that still have a colour and a place in the legend; above it one colour for all."""
MARK = "#e6007e"
"""Of the marks on the map."""
INK_GREY = "#808790"
"""Of lines and words until the page says whether it is dark or light."""
LINE = 18
"""Height of a line of words under a picture, in pixels."""
LETTER = 7
"""Width to reckon with for a letter of these words, in pixels."""
LETTERS = 32
"""Letters of such a line, at most: as many as fit where a telephone makes the pictures smaller."""
PICTURE_GAP = 8
"""Between pictures, in pixels."""

SKIN = """
:host { --color: var(--ink); --background-color: var(--card); --border-color: var(--line);
  --hover-color: var(--hover); --surface-background-color: var(--hover);
  --placeholder-color: var(--faint); --icon-color: var(--faint); --base-font: inherit;
  font-size: 13px; color: var(--ink); }
.note { color: var(--faint); }
.wrong { color: var(--wrong); font-weight: 600; }
.bk-btn-default { --default: var(--card); --default-border: var(--line);
  --default-hover: var(--hover); --default-hover-border: var(--line);
  --default-active: var(--accent); --default-active-border: var(--accent); }
.bk-btn { padding: 5px 10px; border-radius: 6px; }
.bk-btn-group { display: flex; flex-wrap: wrap; }
.bk-active.bk-btn-default { color: #fff; box-shadow: none; }
.bk-btn:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.bk-input { background-color: var(--card); color: var(--ink); border-color: var(--line);
  border-radius: 6px; height: 30px; padding: 2px 6px; font-size: 12px; }
.bk-input-group > label, .bk-slider-title { color: var(--ink); font-size: 12px; }
.noUi-target { background: var(--line); border: 0; box-shadow: none; height: 6px; }
.noUi-horizontal .noUi-handle, .noUi-handle { background: var(--accent); border: 0;
  border-radius: 50%; box-shadow: 0 1px 3px #0005; width: 16px; height: 16px; top: -5px;
  right: -8px; cursor: grab; }
.noUi-handle:before, .noUi-handle:after { display: none; }
.noUi-handle:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
.noUi-connect { background: var(--accent); }
"""
"""The page's colours, handed on to Bokeh's widgets."""


class Film:
    """Pictures in a row, words under each, as a canvas that is quick to draw anew.

    Args:
        name: Of the figure.
        slots: Pictures that there is room for.
        box: Largest side of a picture, in pixels of the page.
        shape: Height and width of the images.
        lines: Of words under a picture.
        shrinks: Whether it becomes smaller where it has no room; else its reader scrolls.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        box: int,
        shape: tuple[int, int],
        lines: int = 1,
        *,
        shrinks: bool = False,
    ) -> None:
        scale = box / max(shape)
        # Whole multiples keep pixels square where they are large enough to be seen.
        scale = float(int(scale)) if scale >= 3 else scale
        self.height, self.width = (max(8, round(side * scale)) for side in shape)
        # Words need room even under a narrow picture.
        self.pitch = box + PICTURE_GAP
        self.source = ColumnDataSource(self._columns([], []), name=f"{name} pictures")
        # Letters stay as large as they are where the pictures become smaller.
        words = LINE * lines + (2 * PICTURE_GAP if shrinks else 0)
        across, down = slots * self.pitch - PICTURE_GAP, self.height + words
        self.figure = figure(
            name=name,
            width=across,
            height=down,
            sizing_mode="scale_width" if shrinks else "fixed",
            max_width=across,
            x_range=Range1d(start=0, end=across),
            y_range=Range1d(start=-words, end=self.height),
            min_border=0,
            toolbar_location=None,
            tools="",
            background_fill_color=None,
            border_fill_color=None,
            outline_line_color=None,
            stylesheets=[SKIN],
        )
        self.figure.axis.visible = False
        self.figure.grid.visible = False
        pictures = self.figure.image_rgba("image", "x", "y", "dw", "dh", source=self.source)
        pictures.glyph.update(origin="top_left", anchor="top_left")
        captions = self.figure.text(
            "middle",
            -3,
            "words",
            source=self.source,
            text_align="center",
            text_baseline="top",
            text_font_size="11px",
            text_color=INK_GREY,
        )
        captions.tags = ["faint"]

    def show(self, cells: list[np.ndarray], words: list[str]) -> None:
        """Show pictures uint8 [H, W, 4], and the words under each."""
        self.source.data = self._columns(cells, words)

    def slot(self, x: float) -> int:
        """The picture at a horizontal position of the figure."""
        return int(x // self.pitch)

    def _columns(self, cells: list[np.ndarray], words: list[str]) -> dict[str, Any]:
        left = [
            place * self.pitch + (self.pitch - PICTURE_GAP - self.width) / 2
            for place in range(len(cells))
        ]
        return {
            "image": [packed(cell) for cell in cells],
            "x": left,
            "y": [self.height] * len(cells),
            "dw": [self.width] * len(cells),
            "dh": [self.height] * len(cells),
            "middle": [x + self.width / 2 for x in left],
            "words": [self._fitted(text) for text in words],
        }

    def _fitted(self, text: str) -> str:
        """Words whose lines are no longer than there is room for."""
        letters = min(self.pitch // LETTER, LETTERS)
        return "\n".join(shortened(line, letters) for line in text.split("\n"))


def shortened(text: str, letters: int) -> str:
    """A text of at most so many letters: of a longer one the beginning and more of the end."""
    if len(text) <= letters:
        return text
    end = 2 * (letters - 1) // 3
    return f"{text[: letters - 1 - end]}…{text[-end:]}"


class Map:
    """The images as points of a plane, a colour a class, with marks on top.

    Args:
        plane: Where the points are.
        labels: Classes, int64 [N]; None where there are none.
        name: What a class is called.
        count: Show only the first so many images.
    """

    def __init__(
        self,
        plane: Plane,
        labels: Tensor | None,
        name: Callable[[int], str],
        count: int | None = None,
    ) -> None:
        self._count = count
        self.labels = None if labels is None else labels.numpy()
        classes = [] if self.labels is None else np.unique(self.labels).tolist()
        self.classes: list[int] = classes if len(classes) <= MANY else []
        self._name = name
        self.x, self.y = Range1d(start=0, end=1), Range1d(start=0, end=1)
        self.figure = figure(
            name="map",
            sizing_mode="stretch_both",
            tools="pan,wheel_zoom,box_zoom,reset,save",
            active_drag=None,
            active_scroll="wheel_zoom",
            toolbar_location="above",
            x_range=self.x,
            y_range=self.y,
            background_fill_color=None,
            border_fill_color=None,
            outline_line_color=None,
            min_border=4,
            stylesheets=[SKIN],
        )
        self.figure.toolbar.logo = None
        self.figure.grid.grid_line_alpha = 0.25
        self.sources = [ColumnDataSource({"x": [], "y": []}) for _ in self.classes or [0]]
        self.dots = [
            self._dots(source, place, name(self.classes[place]) if self.classes else None)
            for place, source in enumerate(self.sources)
        ]
        self.names = ColumnDataSource({"x": [], "y": [], "text": []})
        self.marks = ColumnDataSource(
            {"x": [], "y": [], "marker": [], "size": [], "text": []}, name="marks"
        )
        self._words()
        self.put(plane)

    def _dots(self, source: ColumnDataSource, place: int, name: str | None) -> Any:  # noqa: ANN401
        words: dict[str, Any] = {"legend_label": name} if name is not None else {}
        light, dark = COLOURS[place % len(COLOURS)]
        dots = self.figure.scatter(
            "x",
            "y",
            source=source,
            size=5,
            alpha=OPACITY,
            line_color=None,
            fill_color=light,
            **words,
        )
        dots.tags = [light, dark]  # for the page, which knows whether it is dark
        return dots

    def _words(self) -> None:
        """Names of the classes at their middles; marks on a layer that is drawn by itself."""
        if self.classes:
            names = self.figure.text(
                "x",
                "y",
                "text",
                source=self.names,
                text_font_size="17px",
                text_font_style="bold",
                text_align="center",
                text_baseline="middle",
                text_color="#111418",
                text_outline_color="#ffffff",
                level="annotation",
            )
            names.tags = ["ink", "outlined"]
            legend = self.figure.legend[0]
            legend.update(
                click_policy="hide",
                location="top_right",
                orientation="vertical",
                padding=4,
                spacing=0,
                margin=4,
                label_text_font_size="12px",
                label_text_color=INK_GREY,
                glyph_width=14,
                glyph_height=14,
                background_fill_alpha=0.0,
                border_line_color=None,
            )
            self.figure.add_layout(legend, "right")
        self.figure.scatter(
            "x",
            "y",
            marker="marker",
            size="size",
            source=self.marks,
            line_color=MARK,
            line_width=2.5,
            fill_color=MARK,
            fill_alpha=0.15,
            level="overlay",
        )
        words = self.figure.text(
            "x",
            "y",
            "text",
            source=self.marks,
            x_offset=9,
            y_offset=-5,
            text_color=MARK,
            text_font_size="14px",
            text_font_style="bold",
            text_outline_color="#ffffff",
            level="overlay",
        )
        words.tags = ["outlined"]

    def put(self, plane: Plane) -> None:
        """Lay the points out on a plane, and show all of them."""
        points = plane.points[: self._count].numpy().astype(np.float32)
        labels = None if self.labels is None else self.labels[: len(points)]
        for place, source in enumerate(self.sources):
            chosen = (
                points[labels == self.classes[place]]
                if self.classes and labels is not None
                else points
            )
            source.data = {"x": chosen[:, 0], "y": chosen[:, 1]}
        middles = {
            self._name(label): np.median(points[labels == label], axis=0)
            for label in self.classes
            if np.any(labels == label)
        }
        self.names.data = {
            "x": [float(middle[0]) for middle in middles.values()],
            "y": [float(middle[1]) for middle in middles.values()],
            "text": list(middles),
        }
        self._frame(points)
        self.figure.xaxis.axis_label, self.figure.yaxis.axis_label = plane.axes

    def _frame(self, points: np.ndarray) -> None:
        """Show all points, with a margin; of a single one, a unit around it."""
        low, high = points.min(0), points.max(0)
        margin = np.where(high - low > 1e-6, 0.05 * (high - low), 1.0)
        bottom, top = (low - margin).tolist(), (high + margin).tolist()
        for axis, start, end in zip((self.x, self.y), bottom, top, strict=True):
            axis.update(start=start, end=end, reset_start=start, reset_end=end)

    def frame(self) -> tuple[float, float, float, float]:
        """What is seen: left, right, bottom, top."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        return float(left), float(right), float(bottom), float(top)  # pyright: ignore[reportArgumentType]

    def hidden(self) -> list[int]:
        """Classes that the reader has switched off in the legend."""
        return [
            name for name, dots in zip(self.classes, self.dots, strict=False) if not dots.visible
        ]

    def mark(self, marks: list[tuple[Tensor, str, int, str]]) -> None:
        """Marks on the map: point [2], shape, size in pixels, words."""
        self.marks.data = {
            "x": [float(point[0]) for point, *_ in marks],
            "y": [float(point[1]) for point, *_ in marks],
            "marker": [marker for _, marker, _, _ in marks],
            "size": [size for *_, size, _ in marks],
            "text": [text for *_, text in marks],
        }
