"""Pictures of abnormal images: the worst beside their reconstructions, and where they are so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convvae.anomalies.calibration import Judgement
from convvae.anomalies.scores import SCORES
from convvae.data import Images
from convvae.data.images import class_name
from convvae.evaluation.encode import batches
from convvae.evaluation.reconstruction import reconstruct
from convvae.figures import extremes, save_figure
from convvae.files import write_bytes
from convvae.model.vae import VAE

PICTURE_COLUMNS = 8
"""Images side by side in the picture of the worst."""
NAME_LENGTH = 11
"""Characters of a line above a picture."""


class Shown(NamedTuple):
    """Images that are ranked, of which the first are shown."""

    source: Images
    judgement: Judgement
    score: str
    """By which they are ranked."""
    most: int
    """How many are shown, at most."""

    @property
    def places(self) -> Tensor:
        """Which images are shown, the most abnormal first."""
        return self.judgement.score.argsort(descending=True, stable=True)[: self.most]


def draw_worst(
    vae: VAE, shown: Shown, binarize_seed: int | None, path: Path, p: Tensor | None = None
) -> None:
    """Draw images beside their reconstructions and errors, or p-values p [N, H, W] of the pixels.

    Raises:
        OutputError: the file cannot be written.
    """
    places, unit = shown.places, SCORES[shown.score].unit
    images = _pick(batches(vae, shown.source, binarize_seed), places)
    sign = SCORES[shown.score].sign
    titles = [
        f"{_caption(shown.source, i)}\n{sign * shown.judgement.score[i]:.4g}\n"
        f"p {shown.judgement.p[i]:.2g}"
        for i in places.tolist()
    ]
    heading = f"{title(shown.source)[-60:]}\nmost abnormal by {shown.score}, {unit}"
    blocks = [heading, *[""] * (-(-len(images) // PICTURE_COLUMNS) - 1)]
    chosen = None if p is None else p[places]
    save_figure(path, extremes(images, reconstruct(vae, images), titles, blocks, chosen))


def write_heatmaps(
    vae: VAE, shown: Shown, p: Tensor, binarize_seed: int | None, array: Path, picture: Path
) -> None:
    """Write p-values of the pixels of all images as an array, and those of the shown as a picture.

    The array file has `p`, float32 [N, H, W], and `order`, the images from the most abnormal on.

    Raises:
        OutputError: a file cannot be written.
    """
    order = shown._replace(most=len(p)).places
    content = io.BytesIO()
    np.savez_compressed(content, p=p.numpy(), order=order.numpy())
    write_bytes(array, content.getbuffer())
    draw_worst(vae, shown, binarize_seed, picture, p)


def title(source: Images, chosen: Tensor | None = None) -> str:
    """A source and its part; of some of its images, the part in which they are."""
    if chosen is None:
        return f"{source.name} ({source.split})"
    parts = {split for split, one in zip(source.splits, chosen.tolist(), strict=True) if one}
    return f"{source.name} ({parts.pop() if len(parts) == 1 else source.split})"


def picture_name(source: Images, place: int) -> str:
    """What an image is called: its name, or its number and its label."""
    if source.names is not None:
        return source.names[place]
    label = _label(source, place)
    return f"#{place}" if label is None else f"#{place} ({label})"


def _caption(source: Images, place: int) -> str:
    """What it is called in the picture, and its label: the end of a file's name tells it apart."""
    label = _label(source, place)
    if source.names is None:
        name = picture_name(source, place)
        return name if label is None or len(name) <= NAME_LENGTH else f"#{place}\n{label}"
    name = Path(source.names[place]).name
    short = name if len(name) <= NAME_LENGTH else f"…{name[1 - NAME_LENGTH :]}"
    return short if label is None else f"{short}\n{label}"


def _label(source: Images, place: int) -> str | None:
    """What the label of an image is called; None where there are no labels."""
    if source.labels is None:
        return None
    return class_name(source.classes, int(source.labels[place]))


def _pick(parts: Iterator[Tensor], chosen: Tensor) -> Tensor:
    """The chosen images of a set that comes in parts."""
    found: dict[int, Tensor] = {}
    start, wanted = 0, set(chosen.tolist())
    for part in parts:
        for place in range(start, start + len(part)):
            if place in wanted:
                found[place] = part[place - start].clone()
        start += len(part)
        if len(found) == len(wanted):
            break
    return torch.stack([found[place] for place in chosen.tolist()])
