"""What `impute`, `denoise` and `edit` share: their images, their array and their picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from convvae.cli.common import ImagesOptions, binarize_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from convvae.data import ImageSet
    from convvae.model.checkpoint import ModelMetadata
    from convvae.model.vae import VAE


def read_images(
    options: ImagesOptions, vae: VAE, metadata: ModelMetadata, mask: str | None = None
) -> ImageSet:
    """The images of a command as the model takes them.

    Args:
        options: Of the command.
        vae: The model.
        metadata: What its file says of it.
        mask: `marked` where pixels that the images mark are missing.

    Raises:
        ConvvaeError: they cannot be read, or do not fit the model.
    """
    import torch

    from convvae.data import ImageSet
    from convvae.evaluation.encode import batches

    source = options.images(metadata, mask)
    if options.limit is not None:
        source = source.first(options.limit)
    found = torch.cat([*batches(vae, source, binarize_seed(metadata))])
    split = "train" if source.split == "train" else "test"
    return ImageSet(found, None, source.name, split, observed=source.observed)


def write(folder: Path, name: str, arrays: Mapping[str, Tensor], figure: Figure) -> None:
    """Write NAME.npz of arrays by name, and NAME.png.

    Raises:
        OutputError: a file cannot be written.
    """
    import numpy as np
    import torch

    from convvae.figures import save_figure
    from convvae.files import write_bytes

    content = io.BytesIO()
    numbers = {name: torch.as_tensor(x).numpy() for name, x in arrays.items()}
    np.savez_compressed(content, allow_pickle=False, **numbers)
    write_bytes(folder / f"{name}.npz", content.getbuffer())
    save_figure(folder / f"{name}.png", figure)


def rows(kinds: Mapping[str, Tensor], shown: int) -> Figure:
    """A named row of each kind of image, the first ones."""
    import torch

    from convvae.figures import pictures

    columns = torch.stack([images[:shown].clamp(0, 1) for images in kinds.values()])
    return pictures.rows(columns, [*kinds])
