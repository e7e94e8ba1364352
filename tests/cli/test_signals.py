"""Signals outside training, and consoles that break: exit codes, and nothing half made."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convvae import errors
from convvae.cli import main as cli


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (signal.SIGINT, errors.StoppedError),
        (signal.SIGTERM, errors.TerminatedError),
        (signal.SIGHUP, errors.HangupError),
    ],
)
def test_a_signal_ends_a_command_tidily(kind, error, monkeypatch, capsys, tmp_path):
    def work(_args):
        half = tmp_path / "making-1"
        half.mkdir()
        try:
            os.kill(os.getpid(), kind)
            raise AssertionError("the signal was swallowed")
        finally:
            half.rmdir()

    monkeypatch.setitem(cli.COMMANDS, "models", work)
    before = signal.getsignal(kind)
    assert cli.main(["models"]) == error.exit_code == 128 + kind
    assert signal.getsignal(kind) is before
    assert capsys.readouterr().err == "convvae: interrupted\n"
    assert not list(tmp_path.iterdir())


WHILE_IMPORTING = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "convvae.config":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from convvae.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_while_the_command_line_is_imported_is_one_line():
    words = [sys.executable, "-c", WHILE_IMPORTING, "models"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == errors.StoppedError.exit_code
    assert ended.stderr == "convvae: interrupted\n"
    assert ended.stdout == ""


def test_a_message_cannot_steer_the_terminal(monkeypatch, capsys):
    def work(_args):
        raise errors.ModelFileError("no \x1b[2J\x07 model")

    monkeypatch.setitem(cli.COMMANDS, "models", work)
    cli.main(["models"])
    assert capsys.readouterr().err == "convvae: no \\x1b[2J\\x07 model\n"


TRAIN = ["train", "digits", "--limit", "60", "--epochs", "2", "--batch-size", "30", "--max-filters",
         "4", "--no-preview", "--no-report"]  # fmt: skip


@pytest.mark.parametrize("broken", ["closed pipe", "full disk"])
def test_a_broken_console_ends_no_training(broken, tmp_path):
    code = "import sys; from convvae.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, *TRAIN, "--out", str(tmp_path / "run")]
    if broken == "full disk":
        with Path("/dev/full").open("w") as full:
            found = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    else:
        reader, writer = os.pipe()
        os.close(reader)
        found = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, check=False)
        os.close(writer)
    assert found.returncode == 0, found.stderr
    assert found.stderr.decode().startswith("convvae: cannot show the training any more")
    assert (tmp_path / "run" / "pictures" / "samples.png").exists()
