"""An image of the user's, from bytes that may hold anything."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from convvae.data import resize
from convvae.errors import CorruptDataError, ImageSizeError

MAX_BYTES = 20 * 2**20
"""Largest file that is looked at."""
MAX_PIXELS = 50_000_000
"""Largest image that is decoded: a camera's photograph, and not a bomb of a few bytes."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Formats that are decoded: those that browsers show."""
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for each number of channels."""


def read_image(content: bytes, size: tuple[int, int], channels: int) -> Tensor:
    """An image file as a model takes it: turned as its EXIF says, in colour or grey, scaled to fit.

    Nothing is written to disk. Transparent pixels become black where the model has no alpha.

    Arguments:
        content: The file.
        size: Height H and width W of the model's images.
        channels: C of the model's images.

    Returns:
        uint8 [C, H, W].

    Raises:
        ImageSizeError: the file or its image is larger than what is decoded, or it is a line.
        CorruptDataError: it is no image, or a damaged one.
    """
    if len(content) > MAX_BYTES:
        raise ImageSizeError(
            f"the file has {len(content) / 2**20:.0f} MiB, and at most {MAX_BYTES >> 20} are "
            "taken; choose a smaller one"
        )
    with warnings.catch_warnings():
        # Pillow warns of large images and odd metadata; the limit above is ours.
        warnings.simplefilter("ignore")
        picture = _decode(content)
    if channels in (1, 3) and picture.has_transparency_data:
        picture = Image.alpha_composite(
            Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture.convert("RGBA")
        )
    pixels = np.array(picture.convert(MODES[channels]))
    image = torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)
    return resize(image[None].contiguous(), size)[0]


def _decode(content: bytes) -> Image.Image:
    """The first frame, upright, 8 bits a value."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ImageSizeError(
                    f"the image has {width}x{height} pixels, and at most {MAX_PIXELS:,} are taken; "
                    "choose a smaller one"
                )
            picture.load()
            if picture.mode.startswith("I;16"):
                # 16-bit grey: Pillow would clip, not scale.
                return Image.fromarray((np.array(picture) >> 8).astype(np.uint8))
            return ImageOps.exif_transpose(picture)
    except Image.UnidentifiedImageError as error:
        raise CorruptDataError(
            "this is no image that can be read; choose a PNG, JPEG, WebP, GIF or BMP file"
        ) from error
    except Image.DecompressionBombError as error:
        # Pillow's own limit, which lies above ours.
        raise ImageSizeError(
            f"the image has far more than the {MAX_PIXELS:,} pixels that are taken; choose a "
            "smaller one"
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise CorruptDataError(f"the image is damaged ({error}); choose another copy") from error
