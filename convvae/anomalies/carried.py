"""What a model file carries to judge later images by: the calibration, and how it was made."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from convvae.anomalies.calibration import Calibration
from convvae.anomalies.heatmaps import PixelCalibration
from convvae.anomalies.scores import SCORES, Reference
from convvae.config import Frozen
from convvae.errors import ConfigError, ModelFileError, UsageError
from convvae.model.checkpoint import (
    CARRIED,
    find_model,
    load_tensors,
    pretrained_models,
    save_tensors,
)

MOST_CARRIED = 5_000
"""Normal images whose numbers a model file carries, at most: the first of them."""


class CarriedTerms(Frozen):
    """How a calibration was made."""

    data: str
    """The normal images."""
    images: int
    """How many of them."""
    score: str
    """The score that flags."""
    false_alarms: float
    """Share of normal images that may be flagged."""
    samples: int
    """Draws of z for the importance-weighted bound."""
    names: tuple[str, ...]
    """The scores, in the order of the rows of `normal`."""


class Carried:
    """A calibration with its terms, and that of the pixels."""

    def __init__(
        self, terms: CarriedTerms, calibration: Calibration, pixels: PixelCalibration
    ) -> None:
        self.terms, self.calibration, self.pixels = terms, calibration, pixels

    def tensors(self) -> dict[str, Tensor]:
        """What is written, by name."""
        scores = torch.stack([self.calibration.normal[name] for name in self.terms.names])
        parts = {**self.calibration.reference._asdict(), **self.pixels._asdict(), "normal": scores}
        return {f"{CARRIED}.{name}": tensor for name, tensor in parts.items()}


def check_place(model: str | Path, *, overwrite: bool) -> None:
    """Check that a calibration may be written into a model's file, before the work.

    Raises:
        UsageError: the model is shipped with convvae, or has one that is not to be replaced.
        ModelFileError: there is no such model.
    """
    path = find_model(model)
    if path in pretrained_models().values():
        raise UsageError(
            f"the model {str(model)!r} is shipped with convvae and stays as it is; copy {path} and "
            "calibrate the copy"
        )
    if not overwrite and carried(path) is not None:
        raise UsageError(f"{path} carries a calibration; `overwrite` replaces it")


def carry(model: str | Path, found: Carried) -> Path:
    """Write a calibration into a model's file, whole or not at all; the model stays as it is.

    Returns:
        The file.

    Raises:
        ModelFileError: there is no such model, or its file is not whole.
        OutputError: it cannot be written.
    """
    path = find_model(model)
    tensors, header = load_tensors(path)
    own = {name: t for name, t in tensors.items() if not name.startswith(f"{CARRIED}.")}
    header[CARRIED] = found.terms.model_dump(mode="json")
    save_tensors(path, {**own, **found.tensors()}, header)
    return path


def carried(model: str | Path) -> Carried | None:
    """The calibration in a model's file; None where there is none.

    Raises:
        ModelFileError: there is no such model, or its file is not whole.
    """
    path = find_model(model)
    tensors, header = load_tensors(path)
    if CARRIED not in header:
        return None
    try:
        terms = CarriedTerms.checked(header[CARRIED], str(path))
    except ConfigError as error:
        raise ModelFileError(f"{error}; calibrate again") from error
    found = {
        name.removeprefix(f"{CARRIED}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{CARRIED}.")
    }
    wanted = {*Reference._fields, *PixelCalibration._fields, "normal"}
    known = set(terms.names) <= SCORES.keys() and terms.score in terms.names
    if found.keys() != wanted or not known or not _fits(found, terms):
        raise ModelFileError(f"the calibration in {path} is not whole; calibrate again")
    normal = dict(zip(terms.names, found["normal"], strict=True))
    reference = Reference(*(found[name] for name in Reference._fields))
    pixels = PixelCalibration(found["ranks"], found["errors"])
    return Carried(terms, Calibration(reference, normal), pixels)


def _fits(found: dict[str, Tensor], terms: CarriedTerms) -> bool:
    """Whether the shapes are those of one calibration."""
    mu, ranks = found["mu"], found["ranks"]
    sizes = mu.dim() == 2 and ranks.dim() == 1 and found["errors"].dim() == 3 and len(ranks) > 0
    return sizes and (
        len(mu) == terms.images
        and found["normal"].shape == (len(terms.names), terms.images)
        and found["whiten"].shape == (mu.shape[1],) * 2
        and found["line"].shape == (3,)
        and all(found[name].shape == (2,) for name in ("level", "spread"))
        and len(found["errors"]) == len(ranks)
    )
