"""The guide to one's own images is true: its commands and its Python run, in their order."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convvae.cli.main import main
from convvae.data import NAMES

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "your-images.md"

pytestmark = pytest.mark.skipif(not GUIDE.exists(), reason="the tests run outside the repository")
SHORT = ["--max-filters", "8", "--batch-size", "16", "--no-preview", "--no-report"]


def blocks(language, guide=GUIDE):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", guide.read_text(), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder with everything that the guide's commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    random = np.random.default_rng(0)
    for number in range(40):
        file = tmp_path / "photos" / ("sea", "sky")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((40, 32)).save(file)
    for name in ("others", "everything", "mixed"):
        shutil.copytree("photos", name)
    Path("mixed/notes.jpg").write_text("no image")
    shutil.make_archive("photos", "zip", "photos")
    images = random.integers(0, 256, (30, 16, 16), dtype=np.uint8)
    np.savez("images.npz", images=images, labels=np.arange(30) % 3)
    with Path("list.csv").open("w", newline="") as file:
        rows = [("path", "label", "split")]
        rows += [
            (path.as_posix(), path.parent.name, "test" if path.stem.startswith("1") else "train")
            for path in sorted(Path("photos").rglob("*.jpg"))
        ]
        csv.writer(file).writerows(rows)
    with Path("factors.csv").open("w", newline="") as file:
        sizes = [(path, path.split("/")[1], int(Path(path).stem) ** 2) for path, *_ in rows[1:]]
        csv.writer(file).writerows([("path", "kind", "size"), *sizes])
    return tmp_path


def test_every_command_and_the_python_run(prepared, capsys):
    lines = "".join(blocks("console")).splitlines()
    commands = [line.split("#")[0].strip() for line in lines if line.startswith("convvae ")]
    assert len(commands) >= 15
    for command in commands:
        words = shlex.split(command)[1:]
        words += SHORT if words[0] == "train" else []
        assert main(words) == 0, (command, capsys.readouterr().err)
    said = capsys.readouterr().err
    assert "1 that cannot be read left out" in said
    assert "as train and test of the source say" in said
    assert "kind (2 categories), size (40 numbers in 10 groups by rank)" in said
    (code,) = blocks("python")
    names = {}
    exec(code, names)
    assert names["test"].images.shape[1:] == (3, 32, 32)
    assert names["test"].classes == ("sea", "sky")


def test_the_shards_of_the_guide_to_several_processes(prepared, capsys):
    (lines,) = blocks("console", GUIDE.with_name("scaling.md"))
    for line in lines.splitlines():
        words = shlex.split(line)[1:]
        words += SHORT if words[0] == "train" else []
        assert main(words) == 0, (line, capsys.readouterr().err)
    assert "36 training images of 40" in capsys.readouterr().err


def test_every_published_name_is_in_the_guide():
    for name in NAMES:
        assert f"`{name}`" in GUIDE.read_text()
