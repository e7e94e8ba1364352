"""docs/vae.md cannot go stale: its code runs, its links lead somewhere, its commands work."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from convvae.cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "vae.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the tests run outside the repository")


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text()


def test_its_code_runs_and_its_equations_hold(page):
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    assert sum(block.count("assert ") for block in blocks) >= 6
    names = {}
    for block in blocks:
        exec(block, names)


def test_every_function_is_where_the_page_says(page):
    links = re.findall(r"\[`([\w.]+)`\]\((\S+?\.py)\)", page)
    assert len(links) >= 8
    for name, target in links:
        code = (PAGE.parent / target).resolve().read_text()
        owner, _, method = name.rpartition(".")
        assert re.search(rf"^\s*(def|class) {method or name}\b", code, flags=re.MULTILINE), name
        assert not owner or re.search(rf"^class {owner}\b", code, flags=re.MULTILINE), name


def test_every_picture_is_there_and_small_and_made_by_a_command_that_works(
    page, mnist_dir, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_DATA", str(mnist_dir.resolve()))
    targets = re.findall(r"!\[.+?\]\((\S+?\.png)\)", page)
    commands = re.findall(r"`(convvae figures [^`]+)`", page)
    assert len(targets) == len(commands) >= 4
    for target, command in zip(targets, commands, strict=True):
        _, _, model, _, name = shlex.split(command)
        assert target == f"figures/{model}-{name}.png"
        assert (PAGE.parent / target).stat().st_size < 150_000
        assert main([*shlex.split(command)[1:], "--limit", "50"]) == 0
        with Image.open(f"figures/{name}.png") as made, Image.open(PAGE.parent / target) as shown:
            assert made.width / made.height == pytest.approx(shown.width / shown.height, rel=0.06)


def test_it_is_two_screens(page):
    prose = re.sub(r"^```python\n.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    assert len(prose.splitlines()) < 100
