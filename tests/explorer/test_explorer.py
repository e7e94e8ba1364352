"""The explorer without a browser: planes, scenes, walks, callbacks, the file."""

import base64
import io
import json
import re
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from explorer_pages import make_page, make_scene, png
from PIL import Image

from convvae.explorer import planes, standalone, tiles
from convvae.explorer.controls import BETWEEN, DECODE, OWN, SLIDERS
from convvae.explorer.drawing import Map
from convvae.explorer.newest import Newest
from convvae.explorer.walk import Walk


@pytest.fixture(scope="module")
def scene():
    torch.manual_seed(0)
    return make_scene()


def said(page):
    return re.sub("<.*?>", "", page.controls.message.text)


def shown(page):
    """The decoded picture on the page."""
    return page.pair.source.data["image"][0]


def as_shown(scene, z):
    return tiles.packed(tiles.rgba(scene.decode(z)))


# Planes


def test_a_point_of_two_latents_or_of_the_principal_plane_leads_back_to_itself(scene):
    z = torch.randn(3)
    for plane in (scene.two_latents(2, 0), scene.projection("pca")):
        point = torch.tensor([0.7, -1.1])
        there = plane.at(point, z)
        assert torch.allclose(plane.place(there), point, atol=1e-4)
        assert torch.allclose(plane.at(plane.place(z), z), z, atol=1e-4)
        assert torch.allclose(plane.place(scene.mean[5]), plane.points[5], atol=1e-4)


def test_two_latents_leave_the_others_as_they_are(scene):
    z = torch.tensor([1.0, 2.0, 3.0])
    moved = scene.two_latents(2, 0).at(torch.tensor([9.0, 8.0]), z)
    assert moved.tolist() == [8, 2, 9]
    assert z.tolist() == [1, 2, 3]


def test_an_embedding_decodes_between_the_images_that_are_near():
    mean = torch.tensor([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0]])
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [900.0, 900.0]])
    plane = planes.Embedding(mean, points, "t-SNE")
    assert torch.allclose(plane.at(torch.tensor([0.0, 0.0]), mean[2]), mean[0], atol=1e-3)
    assert torch.allclose(plane.place(torch.tensor([1.0, 0.0])), points[1], atol=1e-2)
    assert "inverted" in plane.note


def test_one_latent_has_a_band_for_each_class():
    scene = make_scene(dims=1)
    plane = scene.two_latents(0, 0)
    for label in range(4):
        heights = plane.points[scene.labels == label, 1]
        others = plane.points[scene.labels != label, 1]
        assert not ((others > heights.min()) & (others < heights.max())).any()
    assert plane.at(torch.tensor([0.3, 5.0]), torch.zeros(1)).tolist() == pytest.approx([0.3])


# Scene and walk


def test_classes_go_by_their_names_on_the_map_and_beside_the_pictures():
    scene = make_scene(classes=("ant", "<b>bee</b>", "cat", "dog"))
    assert "7\ndog" in Walk(scene).pair(scene.mean[7])[1].words
    drawn = Map(scene.informative(), scene.labels, scene.class_name)
    assert drawn.names.data["text"] == ["ant", "<b>bee</b>", "cat", "dog"]


def test_the_walk_shows_what_the_model_decodes_and_the_nearest_image(scene):
    walk = Walk(scene)
    z = scene.mean[7]
    decoded, real = walk.pair(z)
    assert np.array_equal(decoded.pixels, tiles.rgba(scene.decode(z)))
    assert np.array_equal(real.pixels, tiles.rgba(scene.images[7]))
    assert "7\nclass 3" in real.words


def test_the_pointer_finds_the_nearest_dot_that_is_not_hidden(scene):
    walk = Walk(scene)
    point, spread = walk.plane.points[9], torch.tensor([2.0, 3.0])
    assert walk.pointed(point, spread, []) == 9
    found = walk.pointed(point, spread, [1])
    assert scene.labels[found] != 1
    assert walk.pointed(point, spread, [0, 1, 2, 3]) is None


def test_keys_move_the_selected_latent_within_its_range(scene):
    walk = Walk(scene)
    walk.select(1)
    assert walk.selected == scene.order[1]
    for _ in range(50):
        walk.nudge(0.1)
    assert walk.z[walk.selected] == scene.high[walk.selected]
    walk.select(-2)
    assert walk.selected == scene.order[-1]


def test_every_random_draw_is_another_one_and_the_same_at_every_start(scene):
    first, again = Walk(scene), Walk(scene)
    first.draw()
    again.draw()
    one = first.z
    assert torch.equal(one, again.z)
    first.draw()
    assert not torch.equal(one, first.z)


def test_the_interpolation_begins_at_a_and_ends_at_b(scene):
    walk = Walk(scene)
    assert walk.between("straight") == []
    walk.z = scene.mean[0]
    walk.pick("A")
    walk.z = scene.mean[1]
    walk.pick("B")
    strip = walk.between("spherical")
    assert torch.allclose(strip[0].z, scene.mean[0], atol=1e-5)
    assert torch.allclose(strip[-1].z, scene.mean[1], atol=1e-5)
    assert [strip[0].words, strip[-1].words] == ["A", "B"]


def test_the_score_of_an_image_of_the_map_is_that_of_its_evaluation(scene):
    from convvae.evaluation.bounds import image_terms

    score = scene.score(scene.images[3])
    terms = image_terms(scene.vae, scene.images[3:4], seed=0)
    assert score.bound == pytest.approx(float(terms.bound))
    assert score.kl == pytest.approx(float(terms.kl))
    assert torch.allclose(score.z, scene.mean[3], atol=1e-5)
    expected = (scene.images[3].float() - scene.decode(score.z).float()).abs().mean(0) / 255
    assert torch.allclose(score.error, expected, atol=3e-3)


# Tiles


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_every_number_of_channels_become_rgba(channels):
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    pixels = tiles.rgba(image)
    assert pixels.shape == (5, 7, 4)
    back = np.array(Image.open(io.BytesIO(tiles.png(pixels))).convert("RGBA"))
    assert np.array_equal(back, pixels)
    grey = image[0].numpy()
    assert np.array_equal(pixels[..., 0], grey)
    assert np.array_equal(pixels[..., 2], image[2].numpy() if channels > 2 else grey)
    alpha = image[-1].numpy() if channels in (2, 4) else np.full((5, 7), 255)
    assert np.array_equal(pixels[..., 3], alpha)


def test_the_heat_map_grows_lighter_with_the_error():
    colours = tiles.heat(torch.linspace(0, 1, 50)[None], 1.0)[0, :, :3].astype(float)
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()


# Only the newest


def test_requests_that_were_overtaken_are_never_done():
    done, shown, later, running = [], [], [], []

    class Slow(Executor):
        def submit(self, work, /):
            future = Future()
            running.append((future, work))
            return future

    newest = Newest(Slow(), later.append)

    def finish():
        future, work = running.pop(0)
        future.set_result(work())
        later.pop(0)()

    for number in range(5):
        newest.ask(lambda number=number: done.append(number) or number, shown.append)
    finish()
    finish()
    assert (done, shown, running) == ([0, 4], [0, 4], [])
    newest.ask(lambda: done.append(9) or 9, shown.append)
    finish()
    assert shown == [0, 4, 9]


# The page


def test_a_slider_changes_the_picture(scene):
    page = make_page(scene)
    page.controls.sliders[1].value = float(scene.high[scene.order[1]])
    page.doc.pump()
    z = scene.origin.clone()
    z[scene.order[1]] = scene.high[scene.order[1]]
    assert torch.allclose(page.walk.z, z)
    assert np.array_equal(shown(page), as_shown(scene, z))
    assert page.controls.latent.value == str(scene.order[1])
    assert page.controls.sliders[1].title.startswith("▸")


def test_the_pointer_looks_decodes_and_goes_back(scene):
    page = make_page(scene)
    plane = page.walk.plane
    x, y = plane.points[4].tolist()
    event = SimpleNamespace(x=x, y=y)
    page._on_pointer(event)
    page.doc.pump()
    assert np.array_equal(shown(page), as_shown(scene, scene.mean[4]))
    assert page.pair.source.data["words"][1] == "real image 4\nclass 0"
    page.controls.mode.active = DECODE
    page._on_pointer(event)
    page.doc.pump()
    there = plane.at(torch.tensor([x, y]), scene.origin)
    assert np.array_equal(shown(page), as_shown(scene, there))
    page._leave()
    page.doc.pump()
    assert np.array_equal(shown(page), as_shown(scene, scene.origin))
    page._on_tap(event)
    page.doc.pump()
    assert torch.allclose(page.walk.z, there)


def test_a_b_and_the_animation(scene):
    page = make_page(scene)
    press = page._actions()
    press["pick A"]()
    assert page.controls.tab.active == BETWEEN
    page.doc.pump()
    assert "press Set B" in page.controls.hint.text
    press["play"]()
    assert "Pick A and B first" in said(page)
    press["random"]()
    press["pick B"]()
    page.doc.pump()
    assert len(page.strip.source.data["image"]) == 11
    press["play"]()
    before = shown(page)
    for _ in range(8):
        page.doc.repeated[0]()
    page.doc.pump()
    assert not np.array_equal(before, shown(page))
    press["play"]()
    page.doc.pump()
    assert page.doc.repeated == []
    assert np.array_equal(shown(page), as_shown(scene, page.walk.z))


def test_an_own_image_is_scored_placed_and_can_be_inverted(scene):
    page = make_page(scene)
    page.inbox.data = {"kind": ["image"], "text": [base64.b64encode(png()).decode()]}
    page.doc.pump()
    assert page.controls.tab.active == OWN
    assert "nats" in page.controls.score.text
    assert "yours" in page.map.marks.data["text"]
    assert len(page.strip.source.data["image"]) == 3
    before = page.walk.own.image
    page.controls.invert.active = True
    page.doc.pump()
    inside = before > 0
    assert torch.equal(page.walk.own.image[inside], 255 - before[inside])


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not an image", "no image that can be read"), (png()[:50], "damaged")],
)
def test_a_bad_upload_is_said_and_changes_nothing(scene, content, words):
    page = make_page(scene)
    page.inbox.data = {"kind": ["image"], "text": [base64.b64encode(content).decode()]}
    page.doc.pump()
    assert words in said(page)
    assert page.walk.own is None
    page.inbox.data = {"kind": ["random"], "text": [""]}
    page.doc.pump()
    assert not torch.equal(page.walk.z, scene.origin)


def test_a_message_that_no_page_of_ours_sends_is_ignored(scene):
    page = make_page(scene)
    before = page.walk.z
    for data in (
        {"kind": ["image"], "text": ["%%% no base64"]},
        {"kind": ["image"], "text": [3]},
        {"kind": ["format the disk"], "text": [""]},
        {"kind": [], "text": []},
    ):
        page.inbox.data = data
        page.doc.pump()
    assert torch.equal(page.walk.z, before)


def test_the_latent_vector_and_the_picture_go_to_the_browser(scene):
    page = make_page(scene)
    press = page._actions()
    press["copy"]()
    assert json.loads(page.outbox.data["text"][0]) == pytest.approx(page.walk.z.tolist(), abs=1e-4)
    press["save picture"]()
    saved = np.array(Image.open(io.BytesIO(base64.b64decode(page.outbox.data["text"][0]))))
    assert np.array_equal(tiles.packed(saved), shown(page))


def test_projections_are_chosen_and_what_cannot_be_said(scene):
    page = make_page(scene)
    page.controls.projection.value = "pca"
    page.doc.pump()
    assert page.map.figure.xaxis.axis_label == "first principal component"
    assert not page.controls.horizontal.visible
    page.controls.projection.value = "tsne"
    page.doc.pump()
    assert "cannot be inverted" in said(page)
    page.controls.projection.value = "latents"
    page.controls.vertical.value = str(scene.order[2])
    page.doc.pump()
    assert page.map.figure.yaxis.axis_label == f"latent {scene.order[2]}"
    few = make_page(make_scene(count=3))
    few.controls.projection.value = "tsne"
    few.doc.pump()
    assert "at least 5 images" in said(few)


def test_a_walk_beyond_a_sliders_range_widens_it(scene):
    page = make_page(scene)
    page.arrive(scene.high + 5)
    page.doc.pump()
    assert page.controls.sliders[0].value == pytest.approx(float(scene.high[scene.order[0]] + 5))


@pytest.mark.parametrize(
    "kind",
    [
        {"labels": False},
        {"dims": 1},
        {"dims": 2, "channels": 3, "size": (8, 24)},
        {"dims": 80, "channels": 3},
        {"count": 1},
        {"count": 2, "dims": 1, "labels": False},
        {"channels": 4, "size": (24, 9)},
    ],
    ids=str,
)
def test_every_kind_of_model_and_data_has_a_page_and_a_file(kind, tmp_path):
    scene = make_scene(**kind)
    page = make_page(scene)
    press = page._actions()
    for action in ("random", "next", "more", "pick A", "random", "pick B", "save strip"):
        press[action]()
        page.doc.pump()
    page._on_tap(SimpleNamespace(x=0.1, y=0.2))
    page.controls.mode.active = DECODE
    page._on_pointer(SimpleNamespace(x=0.1, y=0.2))
    page.doc.pump()
    assert np.isfinite(page.map.figure.x_range.start)
    height, width = scene.images.shape[2:]
    assert page.pair.width / page.pair.height == pytest.approx(width / height, rel=0.1)
    page.doc.validate()
    path = tmp_path / "page.html"
    assert standalone.write(scene, path) == len(scene.images)
    text = path.read_text()
    assert "<b>title" not in text
    assert "default-src 'none'" in text


def test_256_latents_have_a_few_sliders_at_a_time():
    scene = make_scene(dims=96, channels=3)
    page = make_page(scene)
    assert len(page.controls.sliders) == SLIDERS
    press = page._actions()
    press["next"]()
    page.doc.pump()
    assert page.controls.pager.text == "9 to 16 of 96"
    page.controls.sliders[0].value = 0.125
    page.doc.pump()
    assert page.walk.z[scene.order[SLIDERS]] == 0.125
    for _ in range(20):
        press["next"]()
    assert page.controls.pager.text == "89 to 96 of 96"


# The file


def test_a_page_that_would_be_too_large_has_fewer_images(scene, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    standalone.write(scene, path)
    monkeypatch.setattr(standalone, "MAX_PAGE_BYTES", path.stat().st_size - 3_000)
    count = standalone.write(scene, path)
    assert count < len(scene.images)
    assert path.stat().st_size <= standalone.MAX_PAGE_BYTES
    assert f"{count} images, the first of 40" in path.read_text()
