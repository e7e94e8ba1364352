"""Bits per dimension that lossless codecs need for a set of images, a file for each.

    python -m benchmarks.codecs photos32.tar --split folders

prints one JSON object. It is the yardstick of a likelihood model on the same decoded pixels.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from PIL import Image

from benchmarks.machine import facts
from convvae import data

CODECS: dict[str, dict[str, object]] = {
    "png": {"format": "PNG", "optimize": True},
    "webp": {"format": "WEBP", "lossless": True, "quality": 100, "method": 6},
}


def bits_per_dim(images: data.ImageSet, codec: dict[str, object]) -> float:
    """Mean size of a file, in bits per value of the image.

    Args:
        images: uint8, shape [N, C, H, W] with C of 1 or 3.
        codec: What Pillow is told.
    """
    total = 0
    for image in images.images:
        pixels = image.permute(1, 2, 0).squeeze(-1).contiguous().numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, **codec)  # pyright: ignore[reportArgumentType]
        total += file.tell()
    return 8 * total / images.images.numel()


def main() -> None:
    """Measure the codecs on the test images of a source."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", help="what `convvae train` takes")
    parser.add_argument("--split", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare = data.Preparation(split=options.split)
    images = data.load(options.source, "test", prepare=prepare)
    found = {
        "source": images.name,
        "images": len(images),
        "bits_per_dim": {
            name: round(bits_per_dim(images, codec), 3) for name, codec in CODECS.items()
        },
        "machine": facts(),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
