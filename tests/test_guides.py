"""The guides are true: their commands and their Python run, in the order in which they stand."""

import re
import shlex
from pathlib import Path

import pytest
from short_commands import shortened

from convvae.cli.main import main

ROOT = Path(__file__).parents[1]
ELSEWHERE = ("tensorboard --logdir runs",)
"""Commands of other programs, which the guides name and these tests do not start."""


def steps(guide):
    """The blocks of a guide that a reader runs: commands and Python, in their order."""
    text = (ROOT / "docs" / guide).read_text()
    return re.findall(r"^```(console|python)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the tests run outside the repository")
@pytest.mark.parametrize(
    "guide", ["editing.md", "interchange.md", "labels.md", "ladder.md", "tracking.md"]
)
def test_every_step_of_a_guide_runs(guide, tmp_path, monkeypatch, capsys, hub):
    monkeypatch.chdir(tmp_path)
    names, found = {}, steps(guide)
    assert found
    for kind, block in found:
        if kind == "python":
            exec(block, names)
            continue
        for line in filter(None, block.splitlines()):
            words = shlex.split(line, comments=True)
            if line not in ELSEWHERE:
                assert words[0] == "convvae", line
                assert main(shortened(words[1:])) == 0, (line, capsys.readouterr().err)
    assert not [path for path in Path().rglob("*") if path.name.endswith(".tmp")]
