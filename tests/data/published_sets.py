"""Files of published sets as tests make them: contents, and what must be found in them."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from convvae.data import ImageSet, Split

Sets = dict[str, dict[str, bytes]]
SPLITS: tuple[tuple[Split, int], ...] = (("train", 12), ("test", 5))
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def put(folder: Path, files: dict[str, bytes], *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(
            gz(content) if packed else content
        )
    return folder


def values(content: bytes) -> torch.Tensor:
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return torch.tensor(list(content[4 + 4 * dimensions :]), dtype=torch.uint8).reshape(shape)


def assert_is(found: ImageSet, files: dict[str, bytes], prefix: str = "train") -> None:
    assert torch.equal(found.images.squeeze(1), values(files[f"{prefix}-images-idx3-ubyte"]))
    assert found.labels is not None
    assert torch.equal(found.labels, values(files[f"{prefix}-labels-idx1-ubyte"]).long())
    assert found.images.dtype == torch.uint8
    assert found.labels.dtype == torch.int64
