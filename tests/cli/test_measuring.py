"""Which images `convvae evaluate` measures."""

import pytest
import torch

from convvae import data
from convvae.cli.main import main
from convvae.data.pixels import binarize_once
from convvae.evaluation import encode, probes, scorecard


@pytest.fixture
def measured(monkeypatch):
    """Every set of images of which `convvae evaluate` measures something, in its order."""
    seen = []
    latents = encode.posterior_means

    def run(vae, metadata, images, protocol, path, sections, console, measured):
        seen.append(images)
        for section in sections:
            section.measure(lambda _: None)

    def encoded(vae, images, *rest, **others):
        seen.append(images)
        return latents(vae, images, *rest, **others)

    monkeypatch.setattr(scorecard, "run", run)
    monkeypatch.setattr(encode, "posterior_means", encoded)
    return seen


def test_an_image_is_the_same_in_black_and_white_with_and_without_a_limit(
    finished_run, measured, monkeypatch
):
    monkeypatch.setattr(probes, "MAX_TRAIN", 30)
    words = ["evaluate", str(finished_run.path), "--binarize", "once", "--binarize-seed", "7"]
    assert main([*words, "--limit", "40", "--probe"]) == 0
    test, train, again = measured
    assert torch.equal(test, again)
    for split, found in (("test", test), ("train", train)):
        grey = data.load("digits", split)
        black = binarize_once(grey.images, split, 7)
        rows = grey.some(len(found), 0)
        places = torch.tensor([int((grey.images == one).flatten(1).all(1).int().argmax())
                               for one in rows.images])  # fmt: skip
        assert torch.equal(found, black[places])
    measured.clear()
    assert main(words) == 0
    assert torch.equal(measured[0], binarize_once(data.load("digits", "test").images, "test", 7))
