"""Pixels that are missing: how they come in."""

import numpy as np
import pytest
import torch
from PIL import Image

from convvae import load_images
from convvae.errors import ConfigError, CorruptDataError, ImageSizeError


@pytest.fixture
def values():
    """Grey images, floats in [0, 1], [N, H, W], and which of their pixels are missing."""
    draws = np.random.default_rng(0)
    images = draws.random((6, 9, 8), np.float32)
    missing = draws.random(images.shape) < 0.3
    return images, missing


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))


def check(found, images, missing):
    there = ~missing
    assert torch.equal(found.observed, torch.from_numpy(there[:, None]))
    expected = np.where(there, np.rint(images * 255), 0).astype(np.uint8)
    assert torch.equal(found.images, torch.from_numpy(expected[:, None]))


def marked(path):
    return load_images(path, split="none", mask="marked")


def test_nan_in_arrays_on_disk_and_in_memory(values, tmp_path):
    images, missing = values
    gone = np.where(missing, np.nan, images)
    np.save(tmp_path / "a.npy", gone)
    check(marked(tmp_path / "a.npy"), images, missing)
    check(load_images(gone, mask="marked"), images, missing)
    assert load_images(images, mask="marked").observed is None


def test_a_mask_beside_the_images(values, tmp_path, capsys):
    images, missing = values
    np.savez(tmp_path / "a.npz", images=images, missing=missing)
    check(marked(tmp_path / "a.npz"), images, missing)
    plain = load_images(tmp_path / "a.npz", split="none")
    assert plain.observed is None
    assert "missing of a.npz left aside: `mask='marked'` takes it" in capsys.readouterr().err
    np.savez(tmp_path / "b.npz", images=images, missing=missing[:, :4])
    with pytest.raises(CorruptDataError, match=r"missing of shape \[6, 4, 8\].*\[6, 9, 8\]"):
        marked(tmp_path / "b.npz")


def test_a_pixel_is_missing_where_one_of_its_channels_is(tmp_path):
    images = np.random.default_rng(1).random((5, 3, 9, 8))
    missing = np.zeros((5, 9, 8), bool)
    missing[2, 4, 5] = True
    images[2, 1, 4, 5] = np.nan
    found = load_images(images, mask="marked")
    assert found.images.shape == (5, 3, 9, 8)
    assert torch.equal(found.observed[:, 0], torch.from_numpy(~missing))
    assert (found.images[2, :, 4, 5] == 0).all()
    np.save(tmp_path / "a.npy", images.transpose(0, 2, 3, 1))
    assert torch.equal(marked(tmp_path / "a.npy").images, found.images)


def test_what_is_not_opaque(values, tmp_path):
    images, missing = values
    grey = np.rint(images * 255).astype(np.uint8)
    alpha = np.where(missing, 254, 255).astype(np.uint8)
    for place, pixels in enumerate(np.stack([grey, alpha], -1)):
        Image.fromarray(pixels).save(tmp_path / f"{place}.png")
    found = marked(tmp_path)
    check(found, images, missing)
    # Beside a colour image without alpha the grey ones become colour.
    Image.fromarray(np.full((9, 8, 3), (1, 2, 3), np.uint8)).save(tmp_path / "9.png")
    colour = marked(tmp_path)
    assert colour.images.shape == (7, 3, 9, 8)
    assert torch.equal(colour.images[:6], found.images.repeat(1, 3, 1, 1))
    assert bool(colour.observed[6].all())
    grey_ones = load_images(tmp_path, split="none", mask="marked", channels=1)
    assert torch.equal(grey_ones.images[:6], found.images)


def test_resized_pixels_are_there_where_all_that_they_are_made_of_is(tmp_path):
    images = np.full((2, 16, 16), 0.5)
    images[0, 4:8, 4:8] = np.nan
    np.save(tmp_path / "a.npy", images)
    found = load_images(tmp_path / "a.npy", split="none", mask="marked", image_size=8)
    assert found.images.shape == (2, 1, 8, 8)
    gone = ~found.observed[0, 0]
    assert gone[2:4, 2:4].all()
    assert not gone[:, 6:].any()
    assert (found.images[0, 0][~gone] == 128).all()
    with pytest.raises(ImageSizeError, match="are not resized"):
        load_images(images, mask="marked", image_size=8)


def test_what_belongs_to_images_goes_with_them(values):
    images, missing = values
    found = load_images(np.where(missing, np.nan, images), mask="marked")
    some = found.take(torch.tensor([4, 1]))
    assert torch.equal(some.observed, found.observed[[4, 1]])
    first = load_images(np.where(missing, np.nan, images), mask="marked", limit=2)
    assert torch.equal(first.observed, found.observed[:2])


def test_masks_by_rule():
    found = load_images("digits", "test", mask="random:0.5", limit=7)
    assert (found.observed.flatten(1).sum(1) == 32).all()
    whole = load_images("digits", "test", limit=7)
    assert torch.equal(found.images, whole.images * found.observed)
    boxed = load_images("digits", "test", mask="box:0,0,8,4", limit=7)
    assert not boxed.observed[:, :, :4].any()
    assert boxed.observed[:, :, 4:].all()


def test_what_cannot_be(values, tmp_path):
    images, missing = values
    np.save(tmp_path / "a.npy", np.where(missing, np.nan, images))
    with pytest.raises(CorruptDataError, match="NaN for a missing pixel with `mask='marked'`"):
        load_images(tmp_path / "a.npy", split="none")
    gone = images.copy()
    gone[3] = np.nan
    np.save(tmp_path / "b.npy", gone)
    with pytest.raises(CorruptDataError, match="image 3 has no pixel that is not missing"):
        marked(tmp_path / "b.npy")
    with pytest.raises(ConfigError, match="`channels=2` keeps an alpha"):
        load_images(tmp_path / "a.npy", split="none", mask="marked", channels=2)
