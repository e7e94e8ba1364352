"""The explorer of a conditional model: which label is decoded."""

import torch
from explorer_pages import make_page, make_scene

from convvae.config import Category, Condition, Number
from convvae.evaluation.reconstruction import reconstruct
from convvae.explorer.standalone import write
from convvae.images.sheets import to_uint8

LABELS = Condition(labels=("0", "1", "2", "3"), counts=(1, 1, 1, 1))


def conditional(**words):
    return make_scene(condition=LABELS, **words)


def test_a_place_is_decoded_with_the_label_that_is_chosen():
    scene = conditional()
    z = scene.origin
    assert scene.label == "0"
    other = scene.telling({"label": "2"})
    assert (scene.label, other.label) == ("0", "2")
    assert not torch.equal(scene.decode(z), other.decode(z))
    assert not torch.equal(scene.score(scene.images[0]).z, other.score(scene.images[0]).z)


def test_an_image_of_the_map_is_always_rebuilt_with_its_own_label():
    scene = conditional()
    whole = to_uint8(reconstruct(scene.vae, scene.images))
    for chosen in (scene, scene.telling({"label": "3"})):
        rebuilt = chosen.reconstruct(5).int()
        assert (rebuilt - whole[5].int()).abs().max() <= 1


def test_the_page_follows_the_image_that_is_gone_to_and_the_choice_of_its_reader():
    page = make_page(conditional())
    (select,) = page.controls.told.widgets.values()
    assert [value for value, _ in select.options] == ["0", "1", "2", "3"]
    page.arrive(page.scene.mean[6])
    page.doc.pump()
    assert page.controls.told.widgets["label"].value == "2"
    before = page._tiles[page.pair][0]
    assert before.words == "decoded as 2"
    page.controls.told.widgets["label"].value = "3"
    page.doc.pump()
    after = page._tiles[page.pair][0]
    assert after.words == "decoded as 3"
    assert (after.pixels != before.pixels).any()
    assert torch.equal(page.walk.z, page.scene.mean[6])
    assert page.walk.scene.label == "3"


def test_the_readers_image_is_looked_at_with_the_label_that_is_chosen():
    page = make_page(conditional())
    page._own = page.scene.images[0]
    page._score_own()
    page.doc.pump()
    first = page.walk.own.bound
    page.controls.told.widgets["label"].value = "1"
    page.doc.pump()
    assert page.walk.own.bound != first


def test_a_model_without_labels_offers_none():
    page = make_page(make_scene())
    assert not page.controls.told.widgets
    assert page._tiles[page.pair][0].words == "decoded"


def test_the_page_without_a_server_says_which_label_it_decodes(tmp_path):
    path = tmp_path / "page.html"
    assert write(conditional(), path) == 40
    assert "decoded with the label 0" in path.read_text()


def test_each_column_has_a_control_of_its_own():
    size = Number(name="size", mean=5.0, std=2.0, quantiles=tuple(float(n) for n in range(11)))
    told = Condition(
        columns=(Category(name="hue", labels=("blue", "red")), size),
        combinations=((0,), (1,)),
        counts=(1, 1),
    )
    columns = {"hue": ["blue", "red"] * 20, "size": [str(number / 2) for number in range(40)]}
    page = make_page(make_scene(condition=told, columns=columns))
    hue, number = page.controls.told.widgets.values()
    assert (number.start, number.end) == (0, 10)
    page.arrive(page.scene.mean[7])
    page.doc.pump()
    assert (hue.value, number.value) == ("red", 3.5)
    assert page._tiles[page.pair][0].words == "decoded as hue red, size 3.5"
    before = page._tiles[page.pair][0].pixels
    number.value = 9.0
    page.doc.pump()
    assert page._tiles[page.pair][0].words == "decoded as hue red, size 9"
    assert (page._tiles[page.pair][0].pixels != before).any()
    page.arrive(page.scene.mean[31])
    page.doc.pump()
    assert (number.value, number.end) == (15.5, 15.5), "its range is widened"
