"""Room for images that are made from others: in memory, or on disk where they are many."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np
import torch
from torch import Tensor

from convvae.data.published.download import cache_folder
from convvae.data.stored import empty
from convvae.files import make_folder, write_error

MOST_IN_MEMORY = 1 << 30
"""Bytes beyond which images lie in a file."""
_ADVICE = "free some disk, or name a folder on a larger disk with CONVVAE_CACHE"


def room(shape: tuple[int, ...]) -> Tensor:
    """Room for images, to be written to; beyond `MOST_IN_MEMORY`, in a file without a name.

    The file is in the folder of the cache and ends with the tensor, however the process ends.

    Args:
        shape: Theirs, [N, C, H, W].

    Returns:
        uint8 of that shape.

    Raises:
        OutputError: there is no such room on the disk.
    """
    size = math.prod(shape)
    if size <= MOST_IN_MEMORY:
        return empty(shape)
    folder = cache_folder()
    make_folder(folder, _ADVICE)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # Else a disk that fills up later would kill whoever writes to the map.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            view = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise write_error(folder, error, _ADVICE) from error
    return torch.from_numpy(np.frombuffer(view, np.uint8)).view(shape)
