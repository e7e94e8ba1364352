"""Sizes of images, and black and white pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convvae.data import ImageSet, fit, resize
from convvae.data.pixels import binarize, binarize_once
from convvae.errors import (
    ConfigError,
    ImageSizeError,
)


def noise(*shape: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)


def pillow(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """One `[H, W]` plane, resized by Pillow."""
    scaled = Image.fromarray(image.numpy()).resize(
        (size[1], size[0]), resample=Image.Resampling.BILINEAR
    )
    return torch.tensor(np.array(scaled))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((28, 28), (64, 64)),
        ((28, 28), (8, 8)),
        ((28, 28), (2, 2)),
        ((8, 8), (32, 32)),
        ((60, 40), (30, 20)),
        ((96, 8), (24, 2)),
        ((8, 96), (2, 24)),
        ((2, 1), (80, 40)),
        ((1, 1), (9, 9)),
    ],
)
def test_resize_agrees_with_pillow(old: tuple[int, int], new: tuple[int, int], channels: int):
    images = noise(3, channels, *old)
    scaled = resize(images, new)
    assert scaled.shape == (3, channels, *new)
    assert scaled.dtype == torch.uint8
    for image, result in zip(images.flatten(0, 1), scaled.flatten(0, 1), strict=True):
        expected = pillow(image, new)
        assert (result.int() - expected.int()).abs().max() <= 1


def test_resize_of_the_same_size_is_the_same_tensor():
    images = noise(2, 1, 28, 28)
    assert resize(images, (28, 28)) is images


@pytest.mark.parametrize(
    ("old", "new", "rows", "columns"),
    [
        ((10, 20), (20, 20), (5, 15), (0, 20)),
        ((20, 10), (20, 20), (0, 20), (5, 15)),
        ((20, 10), (8, 8), (0, 8), (2, 6)),
        ((10, 20), (41, 40), (10, 30), (0, 40)),
        ((28, 28), (32, 33), (0, 32), (0, 32)),
        ((100, 15), (10, 10), (0, 10), (4, 6)),
    ],
)
def test_resize_keeps_the_aspect_and_centres_on_black(
    old: tuple[int, int], new: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
):
    scaled = resize(torch.full((2, 3, *old), 255, dtype=torch.uint8), new)
    expected = torch.zeros(2, 3, *new, dtype=torch.uint8)
    expected[:, :, rows[0] : rows[1], columns[0] : columns[1]] = 255
    assert torch.equal(scaled, expected)


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 13])
def test_resize_in_chunks_is_resize_of_each(monkeypatch: pytest.MonkeyPatch, count: int):
    monkeypatch.setattr("convvae.data.images._CHUNK_BYTES", 6 * 2 * 12 * 12 + 1)
    images = noise(count, 2, 9, 7)
    scaled = resize(images, (12, 12))
    assert scaled.shape == (count, 2, 12, 12)
    for index in range(count):
        assert torch.equal(scaled[index], resize(images[index : index + 1], (12, 12))[0])


def test_fit_resizes_and_refuses_other_channels():
    images = ImageSet(noise(2, 3, 8, 8), None, "mine", "train")
    assert torch.equal(fit(images, (16, 16), 3), resize(images.images, (16, 16)))
    with pytest.raises(ImageSizeError, match="mine has 3 channels, but the model takes 1"):
        fit(images, (16, 16), 1)


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (-1, 8)])
def test_resize_to_nothing(size: tuple[int, int]):
    with pytest.raises(ConfigError, match=f"{size[0]}x{size[1]} has a side under 1"):
        resize(noise(1, 1, 8, 8), size)


@pytest.mark.parametrize(
    ("old", "size"), [((100, 1), (10, 10)), ((1, 100), (10, 10)), ((28, 28), (8, 1))]
)
def test_resize_refuses_to_leave_a_line(old: tuple[int, int], size: tuple[int, int]):
    with pytest.raises(ImageSizeError, match=f"images of {old[0]}x{old[1]} scaled into"):
        resize(noise(1, 1, *old), size)


@given(st.tuples(*[st.integers(8, 40)] * 4))
@settings(max_examples=60, deadline=None)
def test_resize_keeps_a_flat_image_flat(sides: tuple[int, int, int, int]):
    height, width, new_height, new_width = sides
    scaled = resize(torch.full((1, 1, height, width), 200, dtype=torch.uint8), sides[2:])
    assert scaled.shape == (1, 1, new_height, new_width)
    assert set(scaled.unique().tolist()) <= {0, 200}
    filled = scaled[0, 0] == 200
    assert filled.any(0).all() or filled.any(1).all()


def test_binarised_pixels_are_white_with_their_grey_values_probability():
    images = torch.tensor([0, 51, 128, 255], dtype=torch.uint8).repeat(5000).view(-1, 1, 2, 2)
    drawn = binarize(images, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0, 255}
    share = (drawn == 255).double().mean(0).flatten()
    assert share[0] == 0
    assert share[3] == 1
    assert share[1].item() == pytest.approx(51 / 255, abs=0.03)
    assert share[2].item() == pytest.approx(128 / 255, abs=0.03)


def test_a_fixed_binarisation_is_a_function_of_split_and_seed():
    images = torch.full((3, 1, 8, 8), 128, dtype=torch.uint8)
    one = binarize_once(images, "test", 1)
    assert torch.equal(one, binarize_once(images, "test", 1))
    for other in (("train", 1), ("test", 2)):
        assert not torch.equal(one, binarize_once(images, *other))
