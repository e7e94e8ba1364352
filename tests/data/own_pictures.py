"""Pictures and files of one's own, as tests make them."""

import io

import numpy as np
import torch
from PIL import Image

from convvae.data import Preparation

WHOLE = Preparation(split="none")


def picture(seed, size=(8, 10), mode="RGB"):
    shape = (*size, 3) if mode == "RGB" else size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else png(content))
    return path


def pixels(path):
    return torch.tensor(np.asarray(Image.open(path))).permute(2, 0, 1)
