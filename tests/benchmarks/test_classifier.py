"""The training of the classifier whose features stand for digits."""

import hashlib
import json

import torch

from benchmarks import classifier


def test_a_shift_moves_whole_images_and_black_moves_in():
    x = torch.zeros(50, 1, 5, 6)
    x[:, :, 2, 3] = 1
    moved = classifier.shifted(x, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    assert (moved.sum((1, 2, 3)) == 1).all()
    places = moved.flatten(1).argmax(1)
    rows, columns = places // 6, places % 6
    assert {rows.min().item(), rows.max().item()} == {0, 4}
    assert {columns.min().item(), columns.max().item()} == {1, 5}


def test_it_is_trained_and_written_with_its_digest(mnist_dir, tmp_path):
    words = ["--epochs", "6", "--limit", "800", "--data-dir", str(mnist_dir)]
    weights, out = tmp_path / "features.safetensors", tmp_path / "classifier.json"
    classifier.main([*words, "--weights", str(weights), "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found["test_accuracy"] > 0.5
    assert "--limit 800" in found["command"]
    assert str(mnist_dir) not in out.read_text()
