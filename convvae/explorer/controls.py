"""The widgets of the live page: what they are called, and what they say of a walk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, cast, get_args

from bokeh.layouts import column, row
from bokeh.models import Button, Div, RadioButtonGroup, Select, Slider, Toggle

from convvae.evaluation.latents import Projection, Route
from convvae.explorer.drawing import SKIN
from convvae.explorer.levels import Levels
from convvae.explorer.scene import Scene, Score
from convvae.explorer.told import Told
from convvae.explorer.toward import HINT, Toward
from convvae.explorer.walk import Walk

SLIDERS = 8
"""Sliders that are shown at a time."""
GRID_COLUMNS = "repeat(auto-fill, minmax(220px, 1fr))"
"""Of sliders: as many as there is room for."""
LOOK, DECODE = 0, 1
"""What the pointer does on the map."""
WALK, BETWEEN, OWN, GROUPS, TOWARD = 0, 1, 2, 3, 4
"""What the strip shows."""
ADVICE = (
    "Point at a dot: its image and what the model makes of it. Click to go there.",
    "Point anywhere: the picture that the model makes of the place. Click to go there.",
)
"""What the pointer does on the map, in words."""
TABS = ["traverse a latent", "A to B", "your image", "levels", "toward a class"]
"""What the strip shows, in words; levels are of a ladder, classes of labelled images."""
PROJECTIONS: list[tuple[Projection, str]] = [
    ("latents", "two latents"),
    ("pca", "PCA of all"),
    ("tsne", "t-SNE of all"),
    ("umap", "UMAP of all"),
]


class Controls:
    """All widgets of a page.

    Args:
        scene: What the page shows.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.silent = False
        """Whether it is the page that changes a widget now."""
        self._first = 0
        names = [(str(latent), self._named(latent)) for latent in scene.order]
        several = scene.dims > 1
        self.projection = Select(
            name="projection",
            value="latents",
            options=PROJECTIONS if several else PROJECTIONS[:1],  # pyright: ignore[reportArgumentType]
            width=110, margin=(2, 3, 2, 3), stylesheets=[SKIN],
        )  # fmt: skip
        self.horizontal = self._select("horizontal", str(scene.order[0]), names)
        self.vertical = self._select("vertical", str(scene.order[min(1, scene.dims - 1)]), names)
        self.vertical.visible = several
        self.mode = RadioButtonGroup(
            name="mode", labels=["look", "decode"], active=LOOK, margin=0, stylesheets=[SKIN]
        )
        self.sliders = [
            Slider(
                start=-1, end=1, step=0.01, value=0, title="", stylesheets=[SKIN], format="0.00",
                sizing_mode="stretch_width", visible=False, margin=(0, 14, 2, 10),
            )
            for _ in range(min(SLIDERS, scene.dims))
        ]  # fmt: skip
        self.pager = self._words("pager")
        self.message = self._words("message")
        self.hint = self._words("hint")
        self.score = self._words("score")
        self.tab = self._what_strips()
        self.latent = self._select("latent", str(scene.order[0]), names)
        self.route = RadioButtonGroup(
            labels=["straight", "spherical"],
            active=0,
            visible=False,
            margin=(2, 3, 2, 3),
            stylesheets=[SKIN],
        )
        self.invert = Toggle(
            name="invert", label="invert", visible=False, margin=(2, 3, 2, 3), stylesheets=[SKIN]
        )
        self.levels, self.told, self.toward = Levels(scene), Told(scene), Toward(scene)
        self.buttons = {name: self._button(name, label) for name, label in BUTTONS.items()}
        self.show_tab()
        self.say("")

    def _select(self, name: str, value: str, options: list[tuple[str, str]]) -> Select:
        return Select(
            name=name,
            value=value,
            options=options,  # pyright: ignore[reportArgumentType]
            width=147,
            margin=(2, 3, 2, 3),
            stylesheets=[SKIN],
        )

    def _what_strips(self) -> RadioButtonGroup:
        """What the strip may show of this scene."""
        offered = {GROUPS: bool(self._scene.groups), TOWARD: bool(self._scene.ends)}
        self._tabs = [place for place in range(len(TABS)) if offered.get(place, True)]
        return RadioButtonGroup(
            name="tab",
            labels=[TABS[place] for place in self._tabs],
            active=WALK,
            margin=(2, 3, 2, 3),
            stylesheets=[SKIN],
        )

    def _words(self, name: str) -> Div:
        return Div(name=name, text="", stylesheets=[SKIN], margin=(2, 5, 2, 5))

    def _button(self, name: str, label: str) -> Button:
        return Button(name=name, label=label, stylesheets=[SKIN], margin=(2, 3, 2, 3))

    def _named(self, latent: int) -> str:
        kl = self._scene.kl
        return f"latent {latent}" + ("" if kl is None else f" · {float(kl[latent]):.2f} nats")

    def roots(self) -> list[Any]:
        """The layouts that the page's template places, by name."""
        buttons, gap = self.buttons, {"margin": 0, "stylesheets": [SKIN]}
        wraps: dict[str, Any] = {**gap, "styles": {"flex-wrap": "wrap"}}
        turning = row(buttons["previous"], self.pager, buttons["next"], name="turning", **gap)
        turning.visible = self._scene.dims > SLIDERS
        return [
            row(self.projection, self.horizontal, self.vertical, name="axes", **wraps),
            self.mode,
            column(
                *self.sliders, name="sliders", sizing_mode="stretch_width",
                styles={"display": "grid", "grid-template-columns": GRID_COLUMNS}, **gap,
            ),
            turning,
            row(
                *self.told.widgets.values(),
                *[buttons[name] for name in ("random", "reset", "pick A", "pick B")],
                *[buttons[name] for name in ("save picture", "copy")],
                name="actions",
                **wraps,
            ),
            row(
                self.tab, self.latent, self.route, self.invert, self.levels.kind,
                self.levels.held, self.levels.temperature, buttons["draw again"],
                self.toward.label, self.toward.strength, buttons["play"],
                buttons["save strip"], name="tools", **wraps,
            ),
            self.message,
            self.hint,
            self.score,
        ]  # fmt: skip

    @property
    def chosen_projection(self) -> Projection:
        """The method by which the map is laid out."""
        return cast(Projection, self.projection.value)

    @property
    def chosen_axes(self) -> tuple[int, int]:
        """The latents of the map's two axes."""
        return int(str(self.horizontal.value)), int(str(self.vertical.value))

    @property
    def chosen_tab(self) -> int:
        """What the strip shows."""
        return self._tabs[self.tab.active or 0]

    def show_in_strip(self, tab: int) -> None:
        """Have the strip show something else."""
        self.tab.active = self._tabs.index(tab)

    @property
    def chosen_latent(self) -> int:
        """The latent that is traversed."""
        return int(str(self.latent.value))

    @property
    def chosen_route(self) -> Route:
        """The way from A to B."""
        return get_args(Route)[self.route.active or 0]

    def latent_of(self, place: int) -> int | None:
        """The latent of a slider; None for one that is not in use."""
        place += self._first
        return self._scene.order[place] if place < self._scene.dims else None

    def say(self, text: str, *, wrong: bool = False) -> None:
        """A line for the reader; without one, what the pointer does."""
        text = text or ADVICE[self.mode.active or 0]
        self.message.text = f'<span class="{"wrong" if wrong else "note"}">{escape(text)}</span>'

    def show_axes(self, method: Projection) -> None:
        """Offer the choice of two latents where two latents are shown."""
        self.horizontal.visible = method == "latents"
        self.vertical.visible = method == "latents" and self._scene.dims > 1

    def show_tab(self) -> None:
        """Offer what the strip's kind can do."""
        tab = self.chosen_tab
        self.latent.visible = tab == WALK
        self.route.visible = tab == BETWEEN
        self.invert.visible = self.score.visible = tab == OWN
        self.buttons["play"].visible = tab in (WALK, BETWEEN, TOWARD)
        self.levels.show(tab == GROUPS)
        self.toward.show(tab == TOWARD)
        self.buttons["draw again"].visible = self.levels.held.visible

    def playing(self, on: bool) -> None:
        """Whether an animation runs."""
        self.buttons["play"].label = "■ stop" if on else BUTTONS["play"]

    def turn(self, by: int, walk: Walk) -> None:
        """Show the next or the previous sliders."""
        last = (self._scene.dims - 1) // SLIDERS * SLIDERS
        self._first = min(max(self._first + by * SLIDERS, 0), last)
        self.show(walk)

    def show(self, walk: Walk) -> None:
        """Bring every widget to where the walk is."""
        scene = self._scene
        with self._silently():
            for place, slider in enumerate(self.sliders):
                latent = self.latent_of(place)
                if latent is None:
                    slider.visible = False
                    continue
                value = float(walk.z[latent])
                low, high = float(scene.low[latent]), float(scene.high[latent])
                chosen = "▸ " if latent == walk.selected else ""
                slider.update(
                    title=chosen + self._named(latent),
                    # A place outside the usual range widens it.
                    start=min(low, value),
                    end=max(high, value),
                    step=(high - low) / 200,
                    value=value,
                    visible=True,
                )
            self.latent.value = str(walk.selected)
            self.told.show(walk.scene)
            self.toward.strength.value = walk.strength
        last = min(self._first + SLIDERS, scene.dims)
        self.pager.text = f"{self._first + 1} to {last} of {scene.dims}"
        self.hint.text = self._hint(walk)

    def _hint(self, walk: Walk) -> str:
        """What to do next, where the strip is empty."""
        if self.chosen_tab == BETWEEN:
            missing = [name for name, z in walk.ends.items() if z is None]
            if missing:
                return f"Go somewhere (click the map, draw, slide) and press Set {missing[0]}."
        if self.chosen_tab == OWN and walk.own is None:
            return "Drop an image anywhere on this page, or choose one."
        if self.chosen_tab == TOWARD:
            return HINT
        return self.levels.hint() if self.chosen_tab == GROUPS else ""

    def show_score(self, score: Score) -> None:
        """The numbers of the reader's image."""
        self.score.text = (
            f"bound <b>{score.bound:,.1f} nats</b> = log p(x|z) {score.bound + score.kl:,.1f} "
            f"− KL {score.kl:,.1f}; the squared error, {score.squared_error:.4f}, is larger than "
            f"that of <b>{score.rank:.0%}</b> of the map's images"
        )

    @contextmanager
    def _silently(self) -> Iterator[None]:
        self.silent = True
        try:
            yield
        finally:
            self.silent = False


BUTTONS = {
    "random": "random",
    "reset": "reset",
    "pick A": "set A",
    "pick B": "set B",
    "save picture": "save PNG",
    "copy": "copy z",
    "previous": "◂",
    "next": "▸",
    "draw again": "draw again",
    "play": "▶ play",
    "save strip": "save PNG",
}
"""Words on the buttons, by name."""
