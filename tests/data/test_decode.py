"""One image file at a time: the policy of `convvae.data.decode`, and what it refuses."""

import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from convvae.data import resize
from convvae.data.decode import UnreadableError, Wanted, decode, decode_as, from_array, quiet_pillow
from convvae.data.images import with_channels

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (12, 20, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def smooth(height, width):
    small = Image.fromarray(RANDOM.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, form="PNG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def hwc(pixels):
    return pixels.transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_every_lossless_format_gives_its_pixels(form, options):
    np.testing.assert_array_equal(hwc(decode(encoded(COLOUR, form, **options), Wanted())), COLOUR)


def test_a_jpeg_is_what_pillow_makes_of_it():
    content = encoded(smooth(20, 30), "JPEG")
    np.testing.assert_array_equal(
        hwc(decode(content, Wanted())), np.asarray(Image.open(BytesIO(content)))
    )


def test_of_an_animation_the_first_frame():
    frames = [Image.new("L", (9, 8), level) for level in (10, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(content, Wanted(channels=1)) == 10).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(COLOUR, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(content))))
    np.testing.assert_array_equal(hwc(decode(content, Wanted())), upright)


def test_a_turned_jpeg_is_not_decoded_below_the_size_that_is_wanted():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(smooth(64, 640), "JPEG", exif=exif)
    found = decode(content, Wanted((320, 32)))
    upright = ImageOps.exif_transpose(Image.open(BytesIO(content)))
    exact = np.asarray(upright.resize((32, 320), Image.Resampling.BILINEAR), int)
    assert np.abs(hwc(found) - exact).max() <= 12


@pytest.mark.parametrize("crop", [False, True])
def test_a_large_jpeg_decoded_at_a_fraction_looks_like_the_whole(crop):
    image = smooth(300, 400)
    content = encoded(image, "JPEG", quality=95)
    exact = decode(encoded(Image.open(BytesIO(content))), Wanted((30, 30), crop=crop))
    found = decode(content, Wanted((30, 30), crop=crop))
    assert found.shape == (3, 30, 30)
    # An edge may fall half a pixel of the smaller image elsewhere: a quarter of one of these.
    assert np.abs(found.astype(int) - exact).mean() < 4


def test_transparency_is_laid_on_white():
    pixels = np.dstack([COLOUR, np.full((12, 20), 64, np.uint8)])
    expected = np.rint(COLOUR * (64 / 255) + 255 * (191 / 255))
    found = hwc(decode(encoded(pixels), Wanted()))
    assert np.abs(found - expected).max() <= 1
    grey = np.dstack([GREY, np.zeros((12, 20), np.uint8)])
    assert (decode(encoded(grey), Wanted()) == 255).all()
    assert decode(encoded(grey), Wanted()).shape == (1, 12, 20)


def test_transparency_is_laid_on_white_in_bands(monkeypatch: pytest.MonkeyPatch):
    drawn = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    content = encoded(Image.fromarray(drawn))
    whole = decode(content, Wanted())
    monkeypatch.setattr("convvae.data.decode._BAND_PIXELS", 10)
    np.testing.assert_array_equal(decode(content, Wanted()), whole)


def test_two_and_four_channels_keep_the_transparency():
    pixels = np.dstack([COLOUR, GREY])
    np.testing.assert_array_equal(hwc(decode(encoded(pixels), Wanted(channels=4))), pixels)
    assert (decode(encoded(COLOUR), Wanted(channels=4))[3] == 255).all()
    pair = np.dstack([GREY, 255 - GREY])
    np.testing.assert_array_equal(hwc(decode(encoded(pair), Wanted(channels=2))), pair)


def test_a_palette_becomes_its_colours_and_its_transparency_white():
    image = Image.fromarray(np.arange(240, dtype=np.uint8).reshape(12, 20) % 3, "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 0, 5, 5, 5])
    found = hwc(decode(encoded(image), Wanted()))
    assert {tuple(p) for p in found.reshape(-1, 3).tolist()} == {
        (10, 20, 30),
        (200, 100, 0),
        (5, 5, 5),
    }
    seen = hwc(decode(encoded(image, transparency=1), Wanted()))
    assert {tuple(p) for p in seen.reshape(-1, 3).tolist()} == {
        (10, 20, 30),
        (255, 255, 255),
        (5, 5, 5),
    }


def test_cmyk_becomes_rgb():
    content = encoded(Image.new("CMYK", (10, 9), (255, 0, 0, 0)), "JPEG", quality=100)
    found = decode(content, Wanted())
    assert found.shape == (3, 9, 10)
    assert np.abs(found[:, 4, 4].astype(int) - [0, 255, 255]).max() < 5


def test_sixteen_bits_keep_their_high_byte():
    values = RANDOM.integers(0, 1 << 16, (8, 9)).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(values, form), Wanted())[0], values >> 8)
    found = decode(encoded(values), Wanted(channels=3))
    assert (found == (values >> 8)).all()
    assert found.shape == (3, 8, 9)


def test_one_bit_becomes_black_and_white():
    found = decode(encoded(Image.fromarray(GREY > 99)), Wanted())
    np.testing.assert_array_equal(found[0], (GREY > 99) * 255)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_of_32_bits_are_refused(mode):
    content = encoded(Image.new(mode, (8, 8)), "TIFF")
    with pytest.raises(UnreadableError, match="32-bit values have no common scale"):
        decode(content, Wanted())


def test_grey_and_colour_in_each_other():
    assert decode(encoded(GREY), Wanted()).shape == (1, 12, 20)
    np.testing.assert_array_equal(
        decode_as(encoded(GREY), Wanted(), (3, 12, 20)), np.stack([GREY] * 3)
    )
    luma = np.asarray(Image.fromarray(COLOUR).convert("L"))
    np.testing.assert_array_equal(decode(encoded(COLOUR), Wanted(channels=1))[0], luma)
    tensor = torch.tensor(COLOUR).permute(2, 0, 1)[None]
    np.testing.assert_array_equal(with_channels(tensor, 1)[0, 0], luma)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("size", [(6, 6), (24, 40), (12, 5), (30, 20), (12, 20)])
def test_a_file_an_array_and_a_tensor_are_resized_alike(size, crop):
    wanted = Wanted(size, crop=crop)
    found = decode(encoded(COLOUR), wanted)
    np.testing.assert_array_equal(found, from_array(COLOUR, wanted))
    tensor = resize(torch.tensor(COLOUR).permute(2, 0, 1)[None], size, crop=crop)[0]
    assert found.shape == tuple(tensor.shape)
    assert np.abs(found.astype(int) - tensor.numpy()).max() <= 1


def test_crop_keeps_the_centre_and_pads_nothing():
    image = np.zeros((10, 30), np.uint8)
    image[:, 10:20] = 200
    assert (from_array(image[..., None], Wanted((10, 10), crop=True)) == 200).all()
    padded = from_array(image[..., None], Wanted((30, 30)))
    assert (padded[0, :10] == 0).all()
    assert (padded[0, 12:18, 12:18] == 200).all()


def bomb(side):
    """A PNG of a few bytes that promises side x side pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(UnreadableError, match="decompression bomb"):
        decode(bomb(side), Wanted((8, 8)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not an image of a known format"),
        (b"some text, not an image\n" * 9, "not an image of a known format"),
        (encoded(COLOUR)[:60], "."),
        (encoded(smooth(64, 64), "JPEG")[:-200], "truncated"),
        (b"%PDF-1.4", "not an image of a known format"),
    ],
)
def test_what_is_no_whole_image(content, says):
    with pytest.raises(UnreadableError, match=says):
        decode(content, Wanted())


def test_a_line_of_pixels_is_refused():
    with pytest.raises(UnreadableError, match="less than two pixels"):
        decode(encoded(np.zeros((2, 400), np.uint8)), Wanted((16, 16)))


def test_a_huge_file_is_refused(monkeypatch):
    monkeypatch.setattr("convvae.data.decode.MAX_FILE_BYTES", 10)
    with pytest.raises(UnreadableError, match="too large for an image"):
        decode(encoded(COLOUR), Wanted())


WHOLE = [encoded(smooth(16, 16), form) for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")]


@given(st.sampled_from(WHOLE), st.integers(0, 10_000), st.binary(min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_read_or_refused_but_nothing_else(content, place, noise):
    place %= len(content)
    damaged = content[:place] + noise + content[place + len(noise) :]
    with quiet_pillow(), suppress(UnreadableError):
        assert decode(damaged, Wanted((8, 8))).shape[1:] == (8, 8)


def test_the_processes_that_decode_do_without_torch():
    code = "import sys, convvae.data.cache.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
