"""The explorer in a real browser: what a person does on the page, done by Playwright."""

import io
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from convvae.cli.main import main
from convvae.config import ModelConfig
from convvae.explorer.drawing import COLOURS
from convvae.figures import report
from convvae.figures.gallery import Gallery
from convvae.model.checkpoint import ModelMetadata
from convvae.model.vae import VAE

PATIENCE = 60_000
"""Milliseconds to wait for a page on a busy machine."""

PICTURE = """
name => {
  const find = root => {
    for (const element of root.querySelectorAll('*')) {
      if (element.shadowRoot) {
        const found = element.tagName === 'CANVAS' ? element : find(element.shadowRoot);
        if (found) return found;
      } else if (element.tagName === 'CANVAS') return element;
    }
  };
  const id = Bokeh.documents[0].get_model_by_name(name).id;
  return find(document.querySelector(`[data-root-id="${id}"]`)).toDataURL();
}
"""
"""The content of a figure's first canvas, by the figure's name."""


@contextmanager
def served(*words):
    """The process of the explorer and its address; it is killed at the end."""
    script = Path(sys.executable).with_name("convvae")
    with subprocess.Popen(
        [script, "explore", *words, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = iter(process.stdout.readline, "")
        yield process, next(line.split()[1] for line in lines if line.startswith("open "))
        process.kill()


@pytest.fixture(scope="module")
def address(finished_run):
    with served(finished_run.path, "digits", "--limit", "60") as (_, found):
        yield found


@pytest.fixture(scope="module")
def address_of_a_ladder():
    with served("photos", "digits", "--limit", "12") as (_, found):
        yield found


class Visit:
    """A page that was opened; remembers what went wrong in it and what it asked the network for."""

    def __init__(self, chromium, address, **settings):
        settings.setdefault("viewport", {"width": 1280, "height": 720})
        self.context = chromium.new_context(**settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.wrong, self.asked = [], []
        self.page.on("console", lambda line: line.type == "error" and self.wrong.append(line.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("body.ready", state="attached")

    def picture(self, name="pair"):
        return self.page.evaluate(PICTURE, name)

    def until_it_changes(self, name, before):
        self.page.wait_for_function(
            f"([name, before]) => ({PICTURE})(name) !== before", arg=[name, before]
        )
        return self.picture(name)

    def map_box(self):
        return self.page.locator("#map .chart").bounding_box()


@pytest.fixture
def visit(chromium, address):
    visit = Visit(chromium, address)
    visit.page.wait_for_function(
        "Bokeh.documents[0].get_model_by_name('strip pictures').data.x.length > 0"
    )
    yield visit
    assert visit.wrong == []
    assert all(url.startswith((address, "data:", "blob:")) for url in visit.asked)
    visit.context.close()


def test_a_walk_through_the_page(visit, tmp_path):
    page = visit.page
    before = visit.picture()
    slider = page.locator(".noUi-handle").first
    slider.focus()
    for _ in range(60):
        slider.press("ArrowRight")
    moved = visit.until_it_changes("pair", before)

    box = visit.map_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hovered = visit.until_it_changes("pair", moved)
    words = "Bokeh.documents[0].get_model_by_name('pair pictures').data.words"
    page.wait_for_function(f"{words}[0] === 'its reconstruction'")

    page.get_by_role("button", name="decode").click()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3)
    page.wait_for_function(f"{words}[0] === 'decoded'")
    decoded = visit.until_it_changes("pair", hovered)

    page.get_by_role("button", name="random").click()
    drawn = visit.until_it_changes("pair", decoded)
    page.get_by_role("button", name="set A").click()
    page.get_by_role("button", name="random").click()
    visit.until_it_changes("pair", drawn)
    strip = visit.picture("strip")
    page.get_by_role("button", name="set B").click()
    visit.until_it_changes("strip", strip)
    page.get_by_role("button", name="play").click()
    visit.until_it_changes("pair", visit.picture())
    page.get_by_role("button", name="stop").click()

    shot = np.asarray(Image.open(io.BytesIO(page.screenshot(path=tmp_path / "page.png"))))
    assert shot.shape[:2] == (720, 1280)
    assert len(np.unique(shot.reshape(-1, shot.shape[2]), axis=0)) > 100
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_slider_leads_toward_a_class(visit):
    page, place = visit.page, "Bokeh.documents[0].get_model_by_name('marks').data.x[0]"
    page.get_by_role("button", name="toward a class").click()
    page.get_by_text("strength 1 is the distance").wait_for()
    start = page.evaluate(place)
    handle = page.locator("#strip .noUi-handle:visible").first
    handle.focus()
    for _ in range(20):
        handle.press("ArrowRight")
    page.wait_for_function(f"start => {place} !== start", arg=start)
    assert page.evaluate("Bokeh.documents[0].get_model_by_name('strength').value") > 0
    # Elsewhere, it begins anew.
    page.keyboard.press("0")
    page.wait_for_function("Bokeh.documents[0].get_model_by_name('strength').value === 0")


def own_image(name, size=(40, 30)):
    out = io.BytesIO()
    Image.fromarray(np.uint8(load_digits().images[9] * 15)).resize(size).save(out, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": out.getvalue()}


def test_an_image_of_the_readers_is_scored(visit):
    strip = visit.picture("strip")
    visit.page.set_input_files("#chooser", own_image("nine.png"))
    visit.page.get_by_text("bound").wait_for()
    visit.until_it_changes("strip", strip)
    tap = "Bokeh.documents[0].get_model_by_name('marks').data.text.includes('yours')"
    assert visit.page.evaluate(tap)


def test_an_image_can_be_dropped_on_the_page(visit):
    content = own_image("nine.png")["buffer"].hex()
    visit.page.evaluate(
        """hex => {
          const bytes = Uint8Array.from(hex.match(/../g), pair => parseInt(pair, 16));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], 'nine.png', {type: 'image/png'}));
          for (const kind of ['dragover', 'drop']) document.body.dispatchEvent(
            new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        content,
    )
    visit.page.get_by_text("bound").wait_for()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"plain words", "no image that can be read"),
        (own_image("")["buffer"][:90], "is damaged"),
        (bytes(21 * 2**20), "21 MiB"),
    ],
    ids=["words", "truncated", "huge"],
)
def test_what_is_no_usable_image_is_said_on_the_page(visit, content, words, tmp_path):
    (tmp_path / "x.png").write_bytes(content)
    visit.page.set_input_files("#chooser", tmp_path / "x.png")
    visit.page.get_by_text(re.compile(words)).wait_for()
    before = visit.picture()
    visit.page.keyboard.press("r")
    visit.until_it_changes("pair", before)


def test_the_keys_work_and_the_picture_can_be_saved_and_copied(visit):
    page = visit.page
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    before = visit.picture()
    page.keyboard.press("r")
    after = visit.until_it_changes("pair", before)
    page.keyboard.press("r")  # the same key again
    after = visit.until_it_changes("pair", after)
    page.keyboard.press("ArrowDown")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    visit.until_it_changes("pair", after)
    page.keyboard.press("c")
    page.get_by_text("Copied the latent vector").wait_for()
    assert page.evaluate("navigator.clipboard.readText().then(JSON.parse)")[0] is not None
    with page.expect_download() as download:
        page.keyboard.press("s")
    with Image.open(download.value.path()) as saved:
        assert saved.size == (8, 8)
    page.keyboard.press("d")
    page.get_by_text("Point anywhere").wait_for()
    page.keyboard.press("?")
    page.get_by_text("A walk through the latent space").wait_for()


def test_dark_and_light(visit):
    page = visit.page
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.keyboard.press("t")
    assert page.evaluate(colour) != before
    page.wait_for_function(
        """Bokeh.documents[0].get_model_by_name('map').center.concat(
             Bokeh.documents[0].get_model_by_name('map').below)
           .some(model => model.major_label_text_color?.trim?.() === '#9aa4af')"""
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_telephone_has_everything_within_its_width(theme, chromium, address):
    visit = Visit(
        chromium, address, viewport={"width": 390, "height": 844}, color_scheme=theme
    )  # fmt: skip
    page = visit.page
    page.set_input_files("#chooser", own_image("nine.png"))
    page.get_by_text("bound").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for name in ("axes", "pair", "actions", "sliders", "tools"):
        right = """name => document.querySelector(`[data-root-id="${
            Bokeh.documents[0].get_model_by_name(name).id}"] > *`).getBoundingClientRect().right"""
        assert page.evaluate(right, name) <= 390, name
    assert visit.wrong == []
    visit.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_dots_have_the_colours_of_their_ground(theme, chromium, address):
    visit = Visit(chromium, address, color_scheme=theme)
    drawn = visit.page.evaluate(
        """() => Bokeh.documents[0].get_model_by_name('map').renderers
             .filter(({glyph, tags}) => glyph.type === 'Scatter' && tags.length)
             .map(model => model.glyph.fill_color.value)"""
    )
    assert drawn == [pair[theme == "dark"] for pair in COLOURS]
    visit.context.close()


def test_a_tablet_has_everything_within_its_width(chromium, address):
    visit = Visit(
        chromium,
        address,
        viewport={"width": 1024, "height": 768},
        has_touch=True,
        color_scheme="dark",
    )
    box = visit.map_box()
    before = visit.picture()
    visit.page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    visit.until_it_changes("pair", before)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 1024
    assert visit.wrong == []
    visit.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_levels_of_a_ladder_can_be_looked_at(width, chromium, address_of_a_ladder):
    visit = Visit(chromium, address_of_a_ladder, viewport={"width": width, "height": 844})
    shown = "Bokeh.documents[0].get_model_by_name('strip pictures').data.words"
    visit.page.get_by_role("button", name="levels").click()
    visit.page.wait_for_function(f"{shown}.includes('2 · 4x4') && {shown}.includes('12 · 16x16')")
    visit.page.get_by_role("button", name="samples").click()
    visit.page.wait_for_function(f"{shown}.includes('sample')")
    strip = visit.picture("strip")
    visit.page.get_by_role("button", name="draw again").click()
    visit.until_it_changes("strip", strip)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.wrong == []
    visit.context.close()


def test_a_page_whose_server_has_ended_says_so(chromium, finished_run):
    with served(finished_run.path, "digits", "--limit", "10") as (process, address):
        visit = Visit(chromium, address)
        process.kill()
        visit.page.get_by_text("The server has ended").wait_for()
        visit.context.close()


def test_the_standalone_page_works_from_disk_without_a_network(chromium, finished_run, tmp_path):
    path = tmp_path / "page.html"
    words = ["explore", str(finished_run.path), "digits", "--limit", "50", "--html", str(path)]
    assert main(words) == 0
    visit = Visit(chromium, path.as_uri(), offline=True)
    page = visit.page
    page.wait_for_function("Bokeh.documents.length > 0")
    box = page.locator(".chart").bounding_box()
    words = page.locator("#left-words")
    before = words.text_content()
    for share in (0.3, 0.5, 0.6):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * share)
    page.wait_for_function(
        "before => document.getElementById('left-words').textContent !== before", arg=before
    )
    assert page.locator("#right-words").text_content() == "its reconstruction"
    page.locator("#manifold").hover()
    assert "decoded at" in page.locator("#right-words").text_content()
    for name, least in (("left", 5), ("right", 2)):
        pixels = f"document.getElementById('{name}').getContext('2d').getImageData(0, 0, 8, 8)"
        assert len(set(page.evaluate(f"Array.from({pixels}.data)"))) >= least
    page.locator("#manifold").press("ArrowLeft")
    assert visit.wrong == []
    assert {url.split(":")[0] for url in visit.asked} <= {"file", "data", "blob"}
    visit.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_that_are_files_have_everything_within_the_width(
    width, chromium, finished_run, tmp_path
):
    run = str(finished_run.path)
    assert main(["explore", run, "--limit", "20", "--html", str(tmp_path / "map.html")]) == 0
    config = ModelConfig(image_size=(8, 8), channels=1, latent_dims=64, max_filters=8)
    metadata = ModelMetadata(
        model=config, data="/a/long/path" * 9, epochs=1, images=9, bound=-1, versions={}
    )
    images = torch.randint(256, (9, 1, 8, 8), dtype=torch.uint8)
    gallery = Gallery(VAE(config).eval(), images, None, walked=4)
    report.write(tmp_path / "report.html", report.Subject("a", metadata, "noise", None), gallery)
    context = chromium.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    for path in (tmp_path / "map.html", tmp_path / "report.html"):
        page.goto(path.as_uri())
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Nothing is squeezed to a sliver, and no word is broken.
        narrow = """() => [...document.querySelectorAll('section, td:nth-child(3)')]
          .filter(it => it.getBoundingClientRect().width < 90).map(it => it.textContent)"""
        assert page.evaluate(narrow) == []
    context.close()


def test_the_browser_cannot_open_the_page_under_another_name(chromium, address):
    port = address.split(":")[2].split("/")[0]
    with socket.create_connection(("127.0.0.1", int(port))):
        pass  # the server is there
    context = chromium.new_context()
    answer = context.request.get(address, headers={"Host": f"evil.example:{port}"})
    assert answer.status == 403
    context.close()
