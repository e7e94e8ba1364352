"""Pixels in a file, read a batch at a time: what is read takes no memory of the process.

Through a map of the file every page that was ever seen would count as memory of the process, up to
the whole set. Reads share the system's cache of the file, so that several processes of a machine
hold it once, and each reads only what it needs.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Tensor

from convvae.errors import CorruptDataError


class StoredPixels:
    """Images that follow each other in a file.

    Args:
        path: The file: uint8, image after image.
        start: Number of the first image in it.
        images: The same images mapped, uint8 `[N, C, H, W]`.
    """

    def __init__(self, path: Path, start: int, images: Tensor) -> None:
        self.path, self.start, self.images = path, start, images
        self.bytes = math.prod(images.shape[1:])
        # Held open: the cache may be emptied while its images are in use.
        self.handle = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)

    def read(self, rows: Tensor, out: Tensor) -> None:
        """Read some of the images.

        Args:
            rows: Their places, int64 `[n]`.
            out: What they are written to, uint8 `[n, C, H, W]` on the CPU.

        Raises:
            CorruptDataError: the file is not what it was when it was opened.
        """
        slots = out.view(len(rows), -1).numpy()
        for slot, row in zip(slots, rows.tolist(), strict=True):
            place = (self.start + row) * self.bytes
            try:
                done = os.preadv(self.handle, [slot], place)
            except OSError as error:
                raise CorruptDataError(f"cannot read {self.path} ({error.strerror})") from error
            if done < self.bytes:
                raise CorruptDataError(
                    f"{self.path} ends at byte {place + done:,}: it was cut while it was read; "
                    "remove its folder, and it is made anew"
                )


def empty(shape: tuple[int, ...], *, pinned: bool = False) -> Tensor:
    """Room for images on the CPU, uint8; pinned, where a GPU is to copy from it."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
