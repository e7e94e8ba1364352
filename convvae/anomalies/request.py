"""What is asked of `convvae anomalies`: which images, held against which, by which score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from convvae.anomalies import choosing
from convvae.anomalies.carried import Carried
from convvae.anomalies.choosing import FEWEST_CHOOSE
from convvae.anomalies.quantities import has_groups
from convvae.anomalies.scores import FEW_NORMAL, NEIGHBOUR_RANK
from convvae.data import Images
from convvae.data.images import class_name
from convvae.errors import UsageError
from convvae.model.vae import VAE

UNCHOSEN = "squared_error"
"""What `auto` is where there are too few normal images to choose by."""


@dataclass(frozen=True)
class AnomalySettings:
    """How images are judged."""

    model: str
    score: str
    """The score that flags and ranks; `auto` until one is chosen."""
    false_alarms: float
    """Share of normal images that may be flagged."""
    abnormal: tuple[str, ...]
    """Labels to be found."""
    samples: int
    """Draws of z for the importance-weighted bound."""
    seed: int
    binarize_seed: int | None


@dataclass(frozen=True)
class Request:
    """Images to judge, and the normal ones that they are held against."""

    source: Images
    """The images that are judged; and after them, if need be, some that only calibrate."""
    judged: int
    """How many of `source`, from the first, are judged."""
    normal: Images | Tensor | Carried
    """The normal images; or which of `source` are normal, bool [N], where they are among them; or
    what the model's file says of them."""
    same_source: bool
    """Whether the normal images are of the source of those that are judged."""
    trained_on: bool
    """Whether the normal images are those that the model learnt from."""


class Chosen(NamedTuple):
    """Some of the images of a source."""

    source: Images
    which: Tensor | None
    """Which of them, bool [N]; None where all."""


@dataclass(frozen=True)
class Measurement:
    """What is to be measured for a request."""

    abnormal: Tensor | None
    """Which of the images are to be found, bool [N]; None without such labels."""
    normal: Tensor
    """Which of the normal images, or of those that are judged, calibrate: bool [M] or [N]."""
    measured: Mapping[str, Chosen]
    """The images to pass through the model: `judged`, and `normal` where those are others."""


def plan(request: Request, settings: AnomalySettings) -> Measurement:
    """What is to be measured.

    Raises:
        UsageError: a label does not exist, no normal image is left, or pixels are missing.
    """
    _check_whole(request)
    source, normal = request.source, request.normal
    abnormal = is_abnormal(source, settings.abnormal) if settings.abnormal else None
    chosen = normal_ones(request, settings.abnormal, abnormal)
    measured = {"judged": Chosen(source, None)}
    if not isinstance(normal, Tensor | Carried):
        measured["normal"] = Chosen(normal, chosen)
    return Measurement(abnormal, chosen, measured)


def _check_whole(request: Request) -> None:
    """Check that no pixel is missing: scores are of whole images.

    Raises:
        UsageError: some are.
    """
    held = [] if isinstance(request.normal, Tensor | Carried) else [request.normal]
    for images in (request.source, *held):
        if images.observed is not None:
            raise UsageError(
                f"pixels of {images.name} are missing, and scores are of whole images; complete "
                "them before (convvae impute)"
            )


def normal_ones(request: Request, labels: tuple[str, ...], abnormal: Tensor | None) -> Tensor:
    """Which of the normal images' source are normal ones, bool.

    Raises:
        UsageError: none is left.
    """
    normal = request.normal
    if isinstance(normal, Carried):
        return torch.ones(normal.terms.images, dtype=torch.bool)
    among = isinstance(normal, Tensor)
    chosen = normal if among else torch.ones(len(normal), dtype=torch.bool)
    if abnormal is not None and request.same_source:
        chosen = chosen & ~(abnormal if among else is_abnormal(normal, labels))
    if not bool(chosen.any()):
        raise UsageError(
            "no normal image is left to calibrate the scores: name others with `normal`"
        )
    return chosen


def settled(vae: VAE, request: Request, settings: AnomalySettings) -> AnomalySettings:
    """The settings, `auto` replaced where there are too few normal images to choose by.

    Raises:
        UsageError: the score is not defined of this model, or of so few normal images; or there are
            none, or a label does not exist.
    """
    count = int(plan(request, settings).normal.sum())
    few = count <= NEIGHBOUR_RANK
    if settings.score == "auto" and isinstance(request.normal, Carried):
        return replace(settings, score=request.normal.terms.score)
    if settings.score == "auto" and count < FEWEST_CHOOSE:
        return replace(settings, score=UNCHOSEN)
    if settings.score in FEW_NORMAL and few:
        raise UsageError(
            f"`score={settings.score!r}` is not defined: it needs more than {NEIGHBOUR_RANK} "
            f"normal images and there are {count}; name more with `normal`"
        )
    if settings.score == "bounds_ratio" and not has_groups(vae):
        raise UsageError(
            "`score='bounds_ratio'` leaves groups of latents to the prior, and this model of "
            f"network {vae.config.network} has {max(1, len(vae.config.plan))}; take another score"
        )
    return settings


def choose(
    vae: VAE, request: Request, settings: AnomalySettings, normal: Tensor
) -> tuple[AnomalySettings, dict[str, float]]:
    """The settings, `auto` replaced by the score that does best on normal images alone.

    Args:
        vae: The model.
        request: The images.
        settings: How they are judged.
        normal: Which of the normal images' source are normal ones, bool.

    Returns:
        The settings, and what each score came to, best first; nothing where none was to be chosen.
    """
    if settings.score != "auto":
        return settings, {}
    assert not isinstance(request.normal, Carried)
    found = choosing.aurocs(
        vae,
        request.source if isinstance(request.normal, Tensor) else request.normal,
        normal,
        seed=settings.seed,
        samples=settings.samples,
        binarize_seed=settings.binarize_seed,
    )
    return replace(settings, score=next(iter(found))), found


def is_abnormal(source: Images, chosen: tuple[str, ...]) -> Tensor:
    """Which images have one of the chosen labels, by the labels' names or numbers: bool [N].

    Raises:
        UsageError: the images have no labels, or none of that name.
    """
    if source.labels is None:
        raise UsageError(f"{source.name} has no labels; leave out `abnormal`")
    numbers = range(len(source.classes)) if source.classes else source.labels.unique().tolist()
    known = {class_name(source.classes, n): n for n in numbers}
    for label in chosen:
        if label not in known:
            raise UsageError(
                f"`abnormal={label!r}` is no label of {source.name}; there are {', '.join(known)}"
            )
    wanted = torch.tensor([known[label] for label in chosen])
    return torch.isin(source.labels, wanted)
