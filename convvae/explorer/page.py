"""The live page: Bokeh's widgets and pictures around a walk, one `Page` a browser tab.

Python decides everything; the browser's own part, `static/live.js`, is what only a browser can do:
keys, files that are dropped, the clipboard, downloads, dark and light.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import torch
from bokeh.document import Document
from bokeh.events import Event, MouseLeave, MouseMove, Pan, PointEvent, Tap
from bokeh.model import Model
from bokeh.models import ColumnDataSource, CustomJS
from torch import Tensor

from convvae.errors import ConvvaeError
from convvae.evaluation.latents import traversal
from convvae.explorer import levels, toward
from convvae.explorer.controls import BETWEEN, DECODE, GROUPS, LOOK, OWN, TOWARD, WALK, Controls
from convvae.explorer.drawing import Film, Map
from convvae.explorer.newest import Newest
from convvae.explorer.scene import Scene, Score
from convvae.explorer.tiles import png, strip
from convvae.explorer.walk import STRIP_POINTS, Tile, Walk

NEAREST = 6
"""Nearest real images that are shown."""
WALK_FRAMES = 25
"""Frames of an animation in one direction."""
FRAME_MS = 80
"""Time between two frames."""
SETTLE_MS = 120
"""Rest after which what is slower than the picture is drawn anew."""
NUDGE = 1 / 30
"""Share of a latent's range that an arrow key moves it."""


class Page:
    """One browser tab's page.

    Args:
        doc: Bokeh's document of the tab.
        scene: What to show; shared by all tabs, never changed.
        quick: A thread for pictures.
        slow: A thread for work of many seconds.
    """

    def __init__(self, doc: Document, scene: Scene, quick: Executor, slow: Executor) -> None:
        self.doc, self.scene, self.walk = doc, scene, Walk(scene)
        self.controls = Controls(scene)
        self.map = Map(self.walk.plane, scene.labels, scene.class_name)
        shape = (scene.images.shape[2], scene.images.shape[3])
        lines = 1 if scene.labels is None and scene.names is None else 2
        self.pair = Film("pair", 2, 256, shape, lines, shrinks=True)
        self.nearest = Film("nearest", NEAREST, 80, shape, lines)
        self.strip = Film("strip", STRIP_POINTS, 100, shape)
        later = doc.add_next_tick_callback
        self._pictures, self._rest = Newest(quick, later), Newest(quick, later)
        self._slow = Newest(slow, later)
        self._tiles: dict[Film, list[Tile]] = {}
        self._pointed: Tensor | None = None
        self._settling: Any = None
        self._playing: Any = None
        self._own: Tensor | None = None
        self._projections = {}
        self.outbox = ColumnDataSource({"kind": [], "text": [], "name": []}, name="outbox")
        self.inbox = ColumnDataSource({"kind": [], "text": [], "number": []}, name="inbox")
        self._connect()
        self._add_roots()
        self.arrive(self.walk.z)

    def _add_roots(self) -> None:
        self.outbox.js_on_change("data", CustomJS(code="explorer.receive(cb_obj.data)"))
        figures = [self.map.figure, self.pair.figure, self.nearest.figure, self.strip.figure]
        # They are no pictures, so no roots; the map carries them into the browser's document.
        self.map.figure.tags = [self.inbox, self.outbox]
        # Bokeh walks through all models at every change of the roots: once is enough.
        with self.doc.models.freeze():
            for root in [*figures, *self.controls.roots()]:
                self.doc.add_root(root)

    def _connect(self) -> None:
        controls, figure = self.controls, self.map.figure
        for event in (MouseMove, Pan):
            _on(figure, event, self._on_pointer)
        _on(figure, MouseLeave, lambda _: self._leave())
        _on(figure, Tap, self._on_tap)
        for film in (self.pair, self.nearest, self.strip):
            _on(film.figure, Tap, self._on_tile(film))
        for place, slider in enumerate(controls.sliders):
            slider.on_change("value", self._on_slider(place))
        for select in (controls.horizontal, controls.vertical, controls.projection):
            _changed(select, "value", self._on_plane)
        _changed(controls.mode, "active", lambda: controls.say(self.walk.plane.note))
        _changed(controls.latent, "value", self._on_latent)
        for widget in controls.told.widgets.values():
            _changed(widget, "value", self._on_told)
        _changed(controls.route, "active", self._settle)
        _changed(controls.tab, "active", self._on_tab)
        _changed(controls.levels.kind, "active", self._on_levels)
        for slider in (controls.levels.held, controls.levels.temperature):
            _changed(slider, "value", self._on_levels)
        for chosen in (controls.toward.label, controls.toward.strength):
            _changed(chosen, "value", self._on_toward)
        _changed(controls.invert, "active", self._score_own)
        for name, action in self._actions().items():
            if name in controls.buttons:
                controls.buttons[name].on_click(action)
        self.inbox.on_change("data", self._on_message)

    def _actions(self) -> dict[str, Callable[[], None]]:
        """What buttons and keys do, by name."""
        return {
            "random": self._random,
            "reset": lambda: self.arrive(self.scene.origin),
            "mode": self._toggle_mode,
            "pick A": lambda: self._pick("A"),
            "pick B": lambda: self._pick("B"),
            "draw again": self._draw_again,
            "play": self._play,
            "save picture": lambda: self._save(self.pair, 1, "picture"),
            "save strip": lambda: self._save(self.strip, STRIP_POINTS, "strip"),
            "copy": self._copy,
            "previous": lambda: self._turn(-1),
            "next": lambda: self._turn(1),
            "more": lambda: self._nudge(NUDGE),
            "less": lambda: self._nudge(-NUDGE),
            "latent above": lambda: self._select(-1),
            "latent below": lambda: self._select(1),
        }

    # Where the reader stands

    def arrive(self, z: Tensor) -> None:
        """Stand at z [D] and show what is there."""
        self.walk.stand(z)
        self._come()

    def _come(self) -> None:
        """Show what is where the reader stands now."""
        self._pointed, z = None, self.walk.z
        self.walk.follow()
        self._show_pair(z)
        self._settle()

    def _show_pair(self, z: Tensor, index: int | None = None) -> None:
        self._pictures.ask(
            lambda: self.walk.pair(z, index), lambda tiles: self._show(self.pair, tiles)
        )

    def _show(self, film: Film, tiles: list[Tile]) -> None:
        self._tiles[film] = tiles
        film.show([tile.pixels for tile in tiles], [tile.words for tile in tiles])

    def _settle(self) -> None:
        """Draw what is slow when nothing has moved for a moment."""
        if self._settling is not None:
            self.doc.remove_timeout_callback(self._settling)
        self._settling = self.doc.add_timeout_callback(self._settled, SETTLE_MS)

    def _settled(self) -> None:
        self._settling = None
        # Marks make Bokeh draw the map anew, 10,000 points and all: not at every step of a slider.
        self._mark()
        self.controls.show(self.walk)
        tab, route, walk = self.controls.chosen_tab, self.controls.chosen_route, self.walk
        choice = self.controls.levels.choice
        label = self.controls.toward.chosen if tab == TOWARD else None

        def work() -> tuple[list[Tile], list[Tile]]:
            if tab == WALK:
                return walk.nearest(NEAREST), walk.traversal()
            if tab == GROUPS:
                return walk.nearest(NEAREST), levels.tiles(walk, choice)
            if label is not None:
                return walk.nearest(NEAREST), toward.tiles(walk, label)
            tiles = walk.between(route) if tab == BETWEEN else walk.own_tiles()
            return walk.nearest(NEAREST), tiles

        def show(both: tuple[list[Tile], list[Tile]]) -> None:
            self._show(self.nearest, both[0])
            self._show(self.strip, both[1])

        self._rest.ask(work, show)

    def _mark(self, ring: Tensor | None = None) -> None:
        """Marks on the map: here, A, B, the reader's image, a ring around what is pointed at."""
        plane, own = self.walk.plane, self.walk.own
        marks = [(plane.place(self.walk.z), "cross", 18, "")]
        marks += [
            (plane.place(z), "diamond", 12, name)
            for name, z in self.walk.ends.items()
            if z is not None
        ]
        marks += [] if own is None else [(plane.place(own.z), "star", 18, "yours")]
        marks += [] if ring is None else [(ring, "circle", 16, "")]
        self.map.mark(marks)

    # The map

    def _on_pointer(self, event: PointEvent) -> None:
        point = torch.tensor([event.x, event.y], dtype=torch.float32)
        if self.controls.mode.active == DECODE:
            self._pointed = self.walk.plane.at(point, self.walk.z)
            self._show_pair(self._pointed)
            return
        index = self._image_at(point)
        if index is not None:
            self._pointed = self.scene.mean[index]
            self._show_pair(self._pointed, index)
            self._mark(self.walk.plane.points[index])

    def _image_at(self, point: Tensor) -> int | None:
        left, right, bottom, top = self.map.frame()
        spread = torch.tensor([right - left, top - bottom])
        return self.walk.pointed(point, spread, self.map.hidden())

    def _leave(self) -> None:
        if self._pointed is not None:
            self._pointed = None
            self._show_pair(self.walk.z)
            self._mark()

    def _on_tap(self, event: PointEvent) -> None:
        self._on_pointer(event)
        if self._pointed is not None:
            self.arrive(self._pointed)

    def _on_plane(self) -> None:
        controls = self.controls
        method = controls.chosen_projection
        controls.show_axes(method)
        if method == "latents":
            self._lay_out(self.scene.two_latents(*controls.chosen_axes))
        elif method in self._projections:
            self._lay_out(self._projections[method])
        else:
            controls.say(f"Placing the images by {controls.projection.value} ...")
            self._slow.ask(lambda: self._project(method), lambda found: self._projected(*found))

    def _project(self, method: Any) -> tuple[Any, Any]:  # noqa: ANN401
        try:
            return method, self.scene.projection(method)
        except ConvvaeError as error:
            return method, error

    def _projected(self, method: str, plane: Any) -> None:  # noqa: ANN401
        if isinstance(plane, ConvvaeError):
            self.controls.say(str(plane), wrong=True)
            return
        self._projections[method] = plane
        if self.controls.chosen_projection == method:
            self._lay_out(plane)

    def _lay_out(self, plane: Any) -> None:  # noqa: ANN401
        self.walk.plane = plane
        self.map.put(plane)
        self.controls.say(plane.note)
        self._mark()

    # Sliders, buttons, keys

    def _on_slider(self, place: int) -> Callable[[str, Any, float], None]:
        def moved(_: str, __: Any, value: float) -> None:  # noqa: ANN401
            latent = self.controls.latent_of(place)
            # The page sets sliders too: what it has set is no wish of the reader's.
            if latent is None or self.controls.silent:
                return
            self.walk.move(latent, value)
            self.arrive(self.walk.z)

        return moved

    def _on_latent(self) -> None:
        if not self.controls.silent:
            self.walk.selected = self.controls.chosen_latent
            self._settle()

    def _on_told(self) -> None:
        if self.controls.silent:
            return
        self.walk.tell(self.controls.told.values)
        self._show_pair(self.walk.z)
        if self.controls.chosen_tab == OWN:
            self._score_own()
        self._settle()

    def _on_tab(self) -> None:
        self._stop()
        self.controls.show_tab()
        self._settle()

    def _on_levels(self) -> None:
        self.controls.show_tab()
        self._settle()

    def _on_toward(self) -> None:
        if not self.controls.silent:
            toward = self.controls.toward
            self.walk.lean(toward.chosen, float(toward.strength.value))
            self._come()

    def _draw_again(self) -> None:
        self.controls.levels.draw_again()
        self._settle()

    def _random(self) -> None:
        self.walk.draw()
        self.arrive(self.walk.z)

    def _toggle_mode(self) -> None:
        self.controls.mode.active = LOOK if self.controls.mode.active == DECODE else DECODE

    def _pick(self, end: str) -> None:
        if self._pointed is not None:
            self.walk.z = self._pointed
        self.walk.pick(end)
        self.controls.show_in_strip(BETWEEN)
        self.arrive(self.walk.z)

    def _turn(self, by: int) -> None:
        self.controls.turn(by, self.walk)

    def _nudge(self, share: float) -> None:
        self.walk.nudge(share)
        self.arrive(self.walk.z)

    def _select(self, by: int) -> None:
        self.walk.select(by)
        self._settle()

    def _on_tile(self, film: Film) -> Callable[[PointEvent], None]:
        def tapped(event: PointEvent) -> None:
            tiles, place = self._tiles.get(film, []), film.slot(event.x or 0.0)
            if 0 <= place < len(tiles):
                self.arrive(tiles[place].z)

        return tapped

    # Animation

    def _play(self) -> None:
        if self._playing is not None:
            self._stop()
            return
        path = self._path()
        if path is None:
            self.controls.say("Pick A and B first: stand somewhere and press Set A, then Set B.")
            return
        frames = torch.cat([path, path.flip(0)])
        self.controls.playing(True)
        place = 0

        def step() -> None:
            nonlocal place
            self._show_pair(frames[place % len(frames)])
            place += 1

        self._playing = self.doc.add_periodic_callback(step, FRAME_MS)

    def _path(self) -> Tensor | None:
        if self.controls.chosen_tab == TOWARD:
            return toward.path(self.walk, self.controls.toward.chosen, WALK_FRAMES)
        if self.controls.chosen_tab == BETWEEN:
            return self.walk.path(WALK_FRAMES, self.controls.chosen_route)
        bounds = torch.stack([self.scene.low, self.scene.high])
        return traversal(self.walk.z, torch.tensor([self.walk.selected]), bounds, WALK_FRAMES)[0]

    def _stop(self) -> None:
        if self._playing is not None:
            self.doc.remove_periodic_callback(self._playing)
            self._playing = None
            self.controls.playing(False)
            self._show_pair(self.walk.z)

    # To and from the browser

    def _send(self, kind: str, text: str, name: str = "") -> None:
        self.outbox.data = {"kind": [kind], "text": [text], "name": [name]}

    def _copy(self) -> None:
        self._send("copy", json.dumps([round(value, 4) for value in self.walk.z.tolist()]))

    def _save(self, film: Film, count: int, name: str) -> None:
        tiles = self._tiles.get(film, [])[:count]
        if not tiles:
            self.controls.say("There is nothing to save yet.")
            return
        gap = max(1, tiles[0].pixels.shape[1] // 16)
        content = png(strip([tile.pixels for tile in tiles], gap))
        self._send("save", base64.b64encode(content).decode(), f"convvae-{name}.png")

    def _on_message(self, _: str, __: Any, data: dict[str, Any]) -> None:  # noqa: ANN401
        for kind, content in zip(data["kind"], data["text"], strict=True):
            if kind == "image":
                self._receive(str(content))
            elif kind == "wrong":
                self.controls.say(str(content), wrong=True)
            elif kind in (actions := self._actions()):
                actions[kind]()

    def _receive(self, content: str) -> None:
        # A file of many megabytes: the picture in the model's size is all that is kept of it.
        self.inbox.data = {"kind": [], "text": [], "number": []}
        try:
            file = base64.b64decode(content, validate=True)
        except ValueError:
            self.controls.say("The image did not arrive whole; drop it again.", wrong=True)
            return
        self._show_own()
        self._slow.ask(lambda: self._read(file), self._has_read)

    def _read(self, file: bytes) -> Any:  # noqa: ANN401
        try:
            return self.scene.read(file)
        except ConvvaeError as error:
            return error

    def _has_read(self, found: Any) -> None:  # noqa: ANN401
        if isinstance(found, ConvvaeError):
            self.controls.say(f"{found}.", wrong=True)
            return
        self._own = found
        self._score_own()

    def _show_own(self) -> None:
        self.controls.show_in_strip(OWN)
        self.controls.say("Looking at your image ...")

    def _score_own(self) -> None:
        own, invert = self._own, bool(self.controls.invert.active)
        if own is None:
            return
        self._show_own()
        score = self.walk.scene.score
        self._slow.ask(lambda: score(self.scene.as_taken(own, invert=invert)), self._scored)

    def _scored(self, found: Score) -> None:
        self.walk.own = found
        self.controls.say("")
        self.controls.show_score(found)
        self.arrive(found.z)


def _on(model: Model, event: type[Event], action: Callable[[Any], None]) -> None:
    """Call an action with every event of a kind, which Bokeh's own types take for any event."""
    model.on_event(event, action)


def _changed(model: Model, name: str, action: Callable[[], None]) -> None:
    """Call an action when a property changes, whatever its value."""
    model.on_change(name, lambda attr, old, new: action())
