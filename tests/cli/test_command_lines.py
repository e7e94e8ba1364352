"""No command line, however wrong, ends in a traceback or changes what its user made.

CONVVAE_COMMAND_LINES says how many lines are tried of each command; 80 of each are a thousand.
"""

import os
import re
import shutil
import socket
import zipfile

import command_lines
import numpy as np
import pytest
from PIL import Image

from convvae import errors
from convvae.cli.main import COMMANDS, main
from convvae.interop.weights import export_npz
from convvae.model.checkpoint import load_model

LINES = int(os.environ.get("CONVVAE_COMMAND_LINES", "8"))
CODES = {0, *(kind.exit_code for kind in errors.kinds())}
WRITES_INTO_A_RUN = {"train": ("run",), "report": ("run",)}
"""Commands that are meant to add to a run folder: --resume, and the page of a run."""


@pytest.fixture(scope="module")
def home(tmp_path_factory, finished_run):
    """What a user's folder may hold, good and broken."""
    home = tmp_path_factory.mktemp("home") / "user"
    random = np.random.default_rng(0)
    for name in ("sea/0.png", "sea/1.png", "sky/0.png", "sky/1.png", "sky/2.png"):
        path = home / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(path)
    shutil.copytree(home / "photos", home / "mixed")
    (home / "mixed" / "sea" / "bad.png").write_bytes(b"no image")
    (home / "one").mkdir()
    shutil.copy(home / "photos/sea/0.png", home / "one")
    (home / "empty").mkdir()
    (home / "read-only").mkdir(mode=0o500)
    (home / "notes.txt").write_text("mine")
    (home / "list.csv").write_text("path,label\nphotos/sea/0.png,a\nnowhere.png,b\n")
    np.save(home / "pixels.npy", random.integers(0, 255, (6, 8, 8), dtype=np.uint8))
    np.savez(home / "whole.npz", images=random.integers(0, 255, (6, 8, 8), dtype=np.uint8))
    (home / "cut.npz").write_bytes((home / "whole.npz").read_bytes()[:200])
    with zipfile.ZipFile(home / "whole.zip", "w") as archive:
        archive.write(home / "photos/sea/0.png", "0.png")
    (home / "cut.zip").write_bytes((home / "whole.zip").read_bytes()[:100])
    shutil.copytree(finished_run.path, home / "run")
    model_and_images = [str(finished_run.path), "digits", "--limit", "6"]
    assert main(["encode", *model_and_images, "--shards", str(home / "shards")]) == 0
    shutil.copytree(finished_run.path, home / "broken-run")
    (home / "broken-run" / "config.json").write_text("{")
    model = finished_run.model.read_bytes()
    (home / "model.safetensors").write_bytes(model)
    export_npz(load_model(finished_run.path)[0], home / "weights.npz")
    (home / "cut.safetensors").write_bytes(model[: len(model) // 2])
    (home / "other.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return home


@pytest.fixture
def alone(home, tmp_path, monkeypatch):
    """The user's folder as the working folder, without a network, a server or a browser."""

    def refused(*_):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr("convvae.explorer.server.serve", lambda *_: None)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv("CONVVAE_DATA", raising=False)
    user = tmp_path / "user"
    shutil.copytree(home, user)
    monkeypatch.chdir(user)
    return user


@pytest.mark.parametrize("number", range(LINES))
@pytest.mark.parametrize("command", COMMANDS)
def test_a_line_does_what_it_says_or_says_what_is_wrong(command, number, alone, capsys):
    words = command_lines.line(command, number)
    before = command_lines.snapshot(alone)
    try:
        code = main(words)
    except SystemExit as stopped:
        assert "--help" in words or "-h" in words, words
        code = stopped.code
    printed = capsys.readouterr()
    said = [text for text in printed.err.splitlines() if text.startswith("convvae: ")]
    assert code in CODES, (words, printed.err)
    assert len(said) == (code != 0), (words, printed.err)
    assert "Traceback" not in printed.out + printed.err, words
    # One line each, of what was read and what was wrong: nothing of a library's own.
    assert all(re.match(r"\S+: |downloading ", text) for text in printed.err.splitlines()), (
        words,
        printed.err,
    )
    after = command_lines.snapshot(alone)
    changed = [path for path, content in before.items() if after.get(path, "gone") != content]
    meant = WRITES_INTO_A_RUN.get(command, ())
    assert [path for path in changed if path.parts[0] not in meant] == [], words
    if code == errors.UsageError.exit_code:
        assert set(after) == set(before), (words, printed.err)


def test_every_field_of_every_command_is_drawn():
    for command in COMMANDS:
        drawn = " ".join(word for n in range(300) for word in command_lines.line(command, n))
        drawn = drawn.replace("_", "-")
        for name, field in command_lines.option_class(command).model_fields.items():
            flag = command_lines.flag_of(name, field)
            assert flag is None or flag in drawn, (command, name)
