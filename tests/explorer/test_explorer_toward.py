"""The explorer's slider toward a class."""

import numpy as np
import pytest
import torch
from explorer_pages import make_page, make_scene

from convvae.config import Condition
from convvae.explorer.controls import OWN, TOWARD
from convvae.explorer.tiles import rgba

LABELS = Condition(labels=("0", "1", "2", "3"), counts=(1, 1, 1, 1))


@pytest.fixture
def page():
    page = make_page(make_scene(classes=("cat", "dog", "cow", "hen")))
    page.controls.show_in_strip(TOWARD)
    page.doc.pump()
    return page


def lean(page, label, strength):
    page.controls.toward.label.value = str(label)
    page.controls.toward.strength.value = strength
    page.doc.pump()


def test_only_labelled_images_of_a_model_without_labels_have_the_control(page):
    assert page.controls.tab.labels[-1] == "toward a class"
    assert [words for _, words in page.controls.toward.label.options][1] == "toward dog"
    for scene in (make_scene(labels=False), make_scene(count=1), make_scene(condition=LABELS)):
        other = make_page(scene)
        assert "toward a class" not in other.controls.tab.labels
        assert not other.controls.toward.strength.visible


def test_strength_1_is_the_distance_between_the_means(page):
    scene = page.scene
    page.arrive(scene.mean[3])
    lean(page, 2, 1.0)
    inside = scene.labels == 2
    step = scene.mean[inside].mean(0) - scene.mean[~inside].mean(0)
    assert torch.allclose(page.walk.z, scene.mean[3] + step)
    shown = page._tiles[page.pair][0]
    assert np.array_equal(shown.pixels, rgba(scene.decode(page.walk.z)))
    # Strengths do not add up, and back at 0 the reader stands at the image again.
    lean(page, 2, -0.5)
    assert torch.allclose(page.walk.z, scene.mean[3] - 0.5 * step)
    lean(page, 2, 0.0)
    assert torch.equal(page.walk.z, scene.mean[3])


def test_another_class_starts_from_the_same_place(page):
    page.arrive(page.scene.mean[1])
    lean(page, 0, 0.8)
    page.controls.toward.label.value = "3"
    page.doc.pump()
    assert torch.allclose(page.walk.z, page.scene.mean[1] + 0.8 * page.scene.way(3))


def test_going_elsewhere_sets_the_slider_back(page):
    lean(page, 1, 1.5)
    page.controls.sliders[0].value = 0.3
    page.doc.pump()
    assert page.controls.toward.strength.value == 0
    here = page.walk.z
    lean(page, 1, 0.5)
    assert torch.allclose(page.walk.z, here + 0.5 * page.scene.way(1))


def test_the_strip_leads_through_the_place_that_was_come_to(page):
    page.arrive(page.scene.mean[4])
    lean(page, 3, 2.0)
    tiles = page._tiles[page.strip]
    assert [tile.words for tile in tiles][:5] == ["-1.00", "-0.75", "-0.50", "-0.25", "+0.00"]
    assert torch.allclose(tiles[4].z, page.scene.mean[4])
    assert torch.allclose(tiles[8].z, page.scene.mean[4] + page.scene.way(3))
    assert "strength 1 is the distance" in page.controls.hint.text
    frames = page._path()
    assert torch.allclose(frames[0], tiles[0].z)
    assert torch.allclose(frames[-1], tiles[-1].z)


def test_the_controls_are_those_of_the_tab(page):
    assert page.controls.toward.label.visible
    assert page.controls.buttons["play"].visible
    page.controls.show_in_strip(OWN)
    page.doc.pump()
    assert not page.controls.toward.label.visible
    assert page.controls.invert.visible
