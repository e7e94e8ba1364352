"""Guides to embeddings, anomalies, missing pixels, scikit-learn are true: all in them runs."""

import re
import shlex
from pathlib import Path

import pytest

from convvae.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the tests run outside the repository")

WRITTEN = {
    "embeddings": ["latents.npz", "latents.parquet", "latents.npy", "from-shards.npz"],
    "anomalies": [
        *("odd/worst.png", "odd/scores.csv", "odd/report.json", "other/scores.csv"),
        *("calibrated/scores.csv", "later/heatmaps.npz", "later/heatmaps.png"),
    ],
    "missing": ["completed/imputed.npz", "completed/imputed.png", "cleaned/denoised.png"],
    "scikit-learn": ["digits.safetensors", "samples.png"],
}


SMALL = {
    "train": {"--limit": "128", "--epochs": "1", "--max-filters": "8"},
    "encode": {"--limit": "100"},
    "anomalies": {"--limit": "100", "--samples": "1", "--normal-limit": "120"},
    "evaluate": {"--limit": "30", "--samples": "2"},
    "impute": {"--limit": "3", "--steps": "2", "--completions": "2"},
}


def shortened(line):
    """A command with little to do."""
    words = shlex.split(line)[1:]
    carried = "later" in words  # it reads no normal images
    for flag, value in SMALL.get(words[0], {}).items():
        if carried and flag != "--limit":
            continue
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return words


@pytest.mark.parametrize("name", WRITTEN)
def test_everything_in_a_guide_runs_in_its_order(name, tmp_path, monkeypatch, fewer_digits, capsys):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{name}.md").read_text()
    names = {}
    found = re.findall(r"^```(console|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    for kind, block in found:
        if kind == "python":
            exec(block.replace("epochs=3", "epochs=1"), names)
            continue
        for line in block.splitlines():
            assert main(shortened(line)) == 0, (line, capsys.readouterr().err)
    for file in WRITTEN[name]:
        assert (tmp_path / file).exists(), file
