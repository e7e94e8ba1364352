"""Sizes: which part of an image is kept, and how large it becomes."""

from __future__ import annotations

from convvae.errors import ImageSizeError

PILLOW_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's picture mode for each number of channels."""


Size = tuple[int, int]
"""Height and width in pixels."""


def inside(old: Size, size: Size) -> Size:
    """The largest size with the aspect of `old` inside `size`, in whole pixels, at least 2x2.

    Raises:
        ImageSizeError: an image so long or so wide would become a line of pixels.
    """
    scale = min(size[0] / old[0], size[1] / old[1])
    height, width = round(old[0] * scale), round(old[1] * scale)
    # Nothing is left to see in a line, and PyTorch 2.13 gets one that is a pixel wide wrong.
    if min(height, width) < 2:
        raise ImageSizeError(
            f"images of {old[0]}x{old[1]} scaled into {size[0]}x{size[1]} would be less than two "
            "pixels high or wide; crop them or choose a larger size"
        )
    return height, width


def centre(old: Size, size: Size) -> tuple[int, int, int, int]:
    """The largest part of `old` that has the aspect of `size`, at the centre.

    Returns:
        Top, left, height and width, in pixels of the old image.
    """
    scale = min(old[0] / size[0], old[1] / size[1])
    height, width = (max(1, min(o, round(s * scale))) for o, s in zip(old, size, strict=True))
    return (old[0] - height) // 2, (old[1] - width) // 2, height, width
