"""The benchmark of missing pixels, on the embedded digits and a small model."""

import torch

from benchmarks import imputation
from convvae import data


def test_missing_pixels_are_compared(monkeypatch, finished_run, tmp_path):
    load = data.load
    monkeypatch.setattr(
        data, "load", lambda _, split, limit=None, **__: load("digits", split, limit=limit)
    )
    words = ["--model", str(finished_run.path), "--images", "20", "--limit", "90", "--steps", "4"]
    options = imputation.parse([*words, "--completions", "2", "--threads", "1", "--out", "x.json"])
    result = imputation.measure(options, imputation.report.console())
    assert (result["images"], result["train_images"], result["missing"]) == (20, 90, 0.5)
    assert len(imputation.rows(result)) == 4
    mean = result["errors"]["the mean training image"]
    assert result["errors"]["the nearest training image"] != mean
    images = load("digits", "test", limit=20).images / 255
    train = load("digits", "train", limit=90).images / 255
    missing = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    found = imputation.nearest_image(images, train, missing)
    far = ((images.unsqueeze(1) - train) * ~missing.unsqueeze(1)).square().flatten(2).sum(2)
    best = train[far.argmin(1)]
    torch.testing.assert_close(found, best)
