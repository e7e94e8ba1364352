"""One image file -> uint8 `[C, H, W]`, by a policy that is written here.

- The first frame of an animation, the first page of a TIFF.
- EXIF orientation is applied. Colour profiles are not: the numbers in the file are taken as sRGB.
- 16-bit values keep their high byte. 32-bit and floating-point images are refused.
- Palettes become colours; CMYK, YCbCr, LAB and HSV become RGB as Pillow converts them.
- Transparency is laid on white, unless 2 or 4 channels are asked for, which keep it, or an alpha
  that says what is missing.
- Grey is the luma of ITU-R 601 (0.299 R + 0.587 G + 0.114 B); grey made RGB has it three times.
- Resizing is bilinear and antialiased. A JPEG of more than twice the size that is wanted is decoded
  at a half, a quarter or an eighth of its size, never below twice what is wanted.

Nothing here imports torch: the processes that read images start in a fraction of a second.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image

from convvae.errors import ImageSizeError
from convvae.images.geometry import PILLOW_MODES, Size, centre, inside

FILE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset({"png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif"})
"""Names of files that are taken for images; in lower case."""
MAX_FILE_BYTES = 1 << 28
"""Largest image file that is read."""
MAX_PIXELS = 89_478_485
"""Largest image that is decoded: Pillow's own limit, at which it only warns."""

_BAND_PIXELS = 1 << 20
_GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"})
_ALPHA = frozenset({"LA", "La", "RGBA", "RGBa", "PA"})
_SIDEWAYS = 5
"""EXIF orientations from here on swap height and width."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises for files that are not what they say; it does not promise less.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
    *(AttributeError, NotImplementedError, MemoryError, ZeroDivisionError),
)


class UnreadableError(Exception):
    """An image file that cannot be read; the message says why in a few words."""


class OtherShapeError(Exception):
    """An image of another shape than the images before it.

    Attributes:
        shape: Its own channels, height and width.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(shape)
        self.shape = shape


@dataclass(frozen=True)
class Wanted:
    """What an image shall become.

    Attributes:
        size: Height and width; None leaves them as they are.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; None takes 1 of grey images, 3 of others.
        crop: Fill the size and cut off what sticks out, instead of padding with black.
        alpha: Keep an alpha as one channel more, behind 1 or 3: what is not opaque is missing.
    """

    size: Size | None = None
    channels: int | None = None
    crop: bool = False
    alpha: bool = False

    def kept(self, own: int) -> int:
        """Channels of an image, its alpha among them.

        Args:
            own: 1 of a grey image, 3 of others: taken where none are chosen.
        """
        return (own if self.channels is None else self.channels) + self.alpha


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """No warnings of Pillow's inside the block: a damaged file is an error, or good enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(content: bytes, wanted: Wanted) -> np.ndarray:
    """Decode an image file.

    Args:
        content: The file: PNG, JPEG, WebP, BMP, TIFF or GIF, told apart by content.
        wanted: Size and channels.

    Returns:
        uint8 `[C, H, W]`.

    Raises:
        UnreadableError: it is no such file, is damaged, or has more than `MAX_PIXELS`.
    """
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableError(f"a file of {len(content) >> 20} MiB is too large for an image")
    try:
        return _as_array(_opened(content, wanted))
    except Image.UnidentifiedImageError as error:
        raise UnreadableError("not an image of a known format") from error
    except ImageSizeError as error:
        raise UnreadableError(str(error)) from error
    except _DAMAGE as error:
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error


def _opened(content: bytes, wanted: Wanted) -> Image.Image:
    """The image of a file, shaped as is wanted; as it was decoded first it takes no memory then."""
    with Image.open(BytesIO(content), formats=FILE_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableError(
                f"{image.height}x{image.width} pixels could be a decompression bomb"
            )
        shaped = _shaped(image, wanted)
        shaped.load()
        return shaped


def decode_as(content: bytes, wanted: Wanted, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode an image file into the shape that the images before it have.

    A grey image among colour ones becomes RGB.

    Raises:
        UnreadableError: as `decode`.
        OtherShapeError: it has another shape, and `wanted` does not say how to change it.
    """
    return as_shape(decode(content, wanted), shape)


def as_shape(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixels uint8 `[C, H, W]` in a shape that they must have, but that grey may become RGB.

    Raises:
        OtherShapeError: they have another shape.
    """
    if shape[0] - pixels.shape[0] == 2:
        # Grey, and perhaps an alpha behind it.
        pixels = np.concatenate([np.repeat(pixels[:1], 3, 0), pixels[1:]])
    if pixels.shape != shape:
        channels, height, width = pixels.shape
        raise OtherShapeError((channels, height, width))
    return pixels


def from_array(pixels: np.ndarray, wanted: Wanted) -> np.ndarray:
    """An image that is an array already, as `decode` would give it.

    Args:
        pixels: uint8 `[H, W, C]`.
        wanted: Size and channels.

    Returns:
        uint8 `[C, H, W]`.

    Raises:
        UnreadableError: it would become a line of pixels.
    """
    if wanted.alpha and pixels.shape[2] in (1, 3):
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], 2)
    height, width, channels = pixels.shape
    own = replace(wanted, channels=wanted.channels or channels - wanted.alpha)
    if wanted.size in (None, (height, width)) and own.kept(channels) == channels:
        return pixels.transpose(2, 0, 1)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    try:
        return _as_array(_shaped(image, own))
    except ImageSizeError as error:
        raise UnreadableError(str(error)) from error


def _shaped(image: Image.Image, wanted: Wanted) -> Image.Image:
    """The image upright, with the channels and the size that are wanted."""
    turn = _orientation(image)
    size = wanted.size
    if size is not None:
        lying = (size[1], size[0]) if turn >= _SIDEWAYS else size
        _draft(image, lying, wanted.crop)
    if turn in _TURNS:
        image = image.transpose(_TURNS[turn])
    image = _with_channels(image, wanted)
    if size is None or (image.height, image.width) == size:
        return image
    return _crop(image, size) if wanted.crop else _pad(image, size)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 is upright."""
    if "exif" not in image.info and image.format != "TIFF":
        return 1
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in _TURNS else 1


def _draft(image: Image.Image, size: Size, crop: bool) -> None:
    """Have a large JPEG decoded at a fraction of its size, at least twice what is wanted."""
    if image.format != "JPEG":
        return
    scales = (size[0] / image.height, size[1] / image.width)
    scale = 2 * (max(scales) if crop else min(scales))
    if scale < 1:
        image.draft(None, (round(image.width * scale), round(image.height * scale)))


def _with_channels(image: Image.Image, wanted: Wanted) -> Image.Image:
    """Convert to the mode of the channels that are wanted, by the policy above."""
    mode = image.mode
    if mode in ("I", "F"):
        raise UnreadableError("32-bit values have no common scale; convert the image to 8 or 16")
    if mode.startswith("I;16"):
        high = np.asarray(image) >> 8
        image = Image.fromarray(high.astype(np.uint8))
    channels = wanted.kept(1 if mode in _GREY else 3)
    if image.mode == PILLOW_MODES[channels]:
        return image
    if mode in _ALPHA or "transparency" in image.info:
        image = _converted(image, "RGBA" if mode not in _GREY else "LA")
        if channels in (1, 3):
            image = _on_white(image)
    return _converted(image, PILLOW_MODES[channels])


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in a mode; itself, not a copy as of Pillow's, where it has that."""
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """LA as L, RGBA as RGB, laid on white; in bands, as all at once takes four times the image."""
    opaque = image.mode[:-1]
    sheet = Image.new(opaque, image.size, "white")
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        sheet.paste(band.convert(opaque), (0, top), band.getchannel("A"))
    return sheet


def _pad(image: Image.Image, size: Size) -> Image.Image:
    """Scale to fit, centred on black."""
    height, width = inside((image.height, image.width), size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    if (height, width) == size:
        return scaled
    sheet = Image.new(image.mode, (size[1], size[0]))
    sheet.paste(scaled, ((size[1] - width) // 2, (size[0] - height) // 2))
    return sheet


def _crop(image: Image.Image, size: Size) -> Image.Image:
    """Cut to the aspect at the centre, then scale."""
    top, left, height, width = centre((image.height, image.width), size)
    part = image.crop((left, top, left + width, top + height))
    return part.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def _as_array(image: Image.Image) -> np.ndarray:
    """uint8 `[C, H, W]`."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
