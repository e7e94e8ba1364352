"""What the explorer draws: captions that fit, dots that stand out."""

import re
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
from explorer_pages import make_page, make_scene

from convvae.explorer import standalone
from convvae.explorer.drawing import COLOURS, LETTER, OPACITY, shortened
from convvae.explorer.walk import Walk


def test_files_go_by_their_names_and_captions_fit_under_their_pictures(tmp_path):
    names = [f"photographs of 2026/animals/{number:03}.png" for number in range(40)]
    scene = make_scene(names=names, classes=("ant", "a very long-eared owl", "cat", "dog"))
    words = f"nearest real image, a very long-eared owl\n{names[5]}"
    assert Walk(scene).pair(scene.mean[5])[1].words == words
    page = make_page(scene)
    page._on_tap(SimpleNamespace(x=float(scene.mean[5, scene.order[0]]), y=0.0))
    page.doc.pump()
    for film in (page.pair, page.nearest, page.strip):
        lines = [line for text in film.source.data["words"] for line in text.split("\n")]
        assert lines
        assert all(len(line) * LETTER <= film.pitch for line in lines)
    files = [text.partition("\n")[0] for text in page.nearest.source.data["words"]]
    assert {file[-7:] for file in files} <= {name[-7:] for name in names}
    standalone.write(scene, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert names[7] in text
    assert "a very long-eared owl" in text


def test_a_shortened_text_keeps_its_end():
    assert shortened("cat/12.png", 10) == "cat/12.png"
    assert shortened("animals/cat/12.png", 10) == "ani…12.png"


def channels(code):
    """Of #rrggbb, in [0, 1]."""
    return np.array([int(code[place : place + 2], 16) for place in (1, 3, 5)]) / 255


def luminance(colour):
    """Relative luminance of sRGB, WCAG 2.2."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_dot_stands_out_from_its_ground(theme):
    css = (resources.files("convvae.explorer") / "static" / "page.css").read_text()
    ground = channels(re.findall("--card: (#[0-9a-f]{6})", css)[theme])
    for pair in COLOURS:
        dot = OPACITY * channels(pair[theme]) + (1 - OPACITY) * ground
        dark, light = sorted([luminance(dot), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) >= 3, pair[theme]
