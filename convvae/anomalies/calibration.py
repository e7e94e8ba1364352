"""Scores calibrated on held-out normal images.

A calibrated score is a conformal p-value: the share of normal images, the image itself counted
among them, that are at least as abnormal. Of new normal images, no more than a share alpha has
p <= alpha on average, whatever the score and however few images it was calibrated on.

Source: Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random World", chapter 2; for
outliers, Bates et al. 2023, https://arxiv.org/abs/2104.08279
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from convvae.anomalies.scores import Measured, Reference, scores
from convvae.data import Images
from convvae.evaluation.encode import batches
from convvae.model.vae import VAE


def p_values(score: Tensor, normal: Tensor, member: Tensor) -> Tensor:
    """(1 + number of other normal images that score at least as high) / (1 + number of others).

    Args:
        score: Of the images, shape [N], high where abnormal.
        normal: Of the normal images, shape [M].
        member: Whether an image is itself one of the normal ones, bool [N].

    Returns:
        Shape [N], float64, in (0, 1].
    """
    ordered = normal.sort().values
    at_least = len(ordered) - torch.searchsorted(ordered, score)
    extra = (~member).double()
    return (at_least + extra) / (len(ordered) + extra)


def threshold(normal: Tensor, rate: float) -> float | None:
    """The score above which a new image has a p-value of at most `rate`.

    Args:
        normal: Scores of the normal images, shape [M].
        rate: Share of normal images that may be flagged.

    Returns:
        None where M is too small for any p-value to be so low: below 1 / rate - 1.
    """
    rank = math.floor(rate * (len(normal) + 1) + 1e-9)
    return float(normal.topk(rank).values[-1]) if rank else None


class Detection(NamedTuple):
    """How well a score finds the abnormal among labelled images."""

    auroc: float
    """Probability that an abnormal image scores higher than a normal one."""
    average_precision: float
    """Mean precision over the abnormal images, from the highest score down."""
    detected: float
    """Share of the abnormal images that is flagged."""
    false_alarms: float
    """Share of the normal images that is flagged."""


def detection(score: Tensor, flagged: Tensor, abnormal: Tensor) -> Detection | None:
    """How well a score tells the abnormal images from the others.

    Args:
        score: Shape [N], high where abnormal.
        flagged: bool [N].
        abnormal: bool [N].

    Returns:
        None where all images are normal or all are abnormal: nothing of it is defined then.
    """
    if bool(abnormal.all()) or not bool(abnormal.any()):
        return None
    return Detection(
        float(roc_auc_score(abnormal, score)),
        float(average_precision_score(abnormal, score)),
        float(flagged[abnormal].double().mean()),
        float(flagged[~abnormal].double().mean()),
    )


class Judgement(NamedTuple):
    """A score of N images, calibrated."""

    score: Tensor
    """High where abnormal, shape [N]."""
    p: Tensor
    """p-values, shape [N]."""
    flagged: Tensor
    """p <= rate, bool [N]."""
    threshold: float | None
    """Of the score, for new images."""
    detection: Detection | None
    """None without labels, or where it is not defined."""

    @classmethod
    def of(
        cls,
        score: Tensor,
        normal: Tensor,
        member: Tensor,
        rate: float,
        abnormal: Tensor | None,
    ) -> Judgement:
        """Calibrate a score by that of the normal images; `abnormal` says which are to be found."""
        p = p_values(score, normal, member)
        flagged = p <= rate
        found = None if abnormal is None else detection(score, flagged, abnormal)
        return cls(score, p, flagged, threshold(normal, rate), found)


class Calibration(NamedTuple):
    """What later images are judged by."""

    reference: Reference
    normal: Mapping[str, Tensor]
    """Scores of the normal images by name, shape [M] each."""

    @classmethod
    def of(cls, normal: Measured) -> Calibration:
        """By M measured normal images, each held against the others."""
        reference = Reference.of(normal.evidence)
        members = torch.ones(len(reference.mu), dtype=torch.bool)
        return cls(reference, scores(normal, reference, members))


def first_normal(
    vae: VAE, normal: Images, chosen: Tensor, wanted: int, binarize_seed: int | None
) -> Iterator[Tensor]:
    """The first of the normal images as the model takes them, uint8 [n, C, H, W], batch by batch.

    Args:
        vae: The model.
        normal: A set.
        chosen: Which of its images are normal ones, bool [N].
        wanted: How many, at most.
        binarize_seed: Of the black or white pixels of a model of such images, else None.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    done = count = 0
    for batch in batches(vae, normal, binarize_seed):
        these = batch[chosen[done : done + len(batch)]][: wanted - count]
        done, count = done + len(batch), count + len(these)
        if len(these):
            yield these
        if count == wanted:
            break


def judge(
    measured: Measured,
    normal: Calibration | Tensor,
    abnormal: Tensor | None,
    rate: float,
    judged: int,
) -> Mapping[str, Judgement]:
    """Score images and calibrate every score.

    Args:
        measured: Of N images.
        normal: What the normal images say; or which of the N are normal ones, bool [N].
        abnormal: Which images are known to be abnormal, bool [N].
        rate: Share of normal images that may be flagged.
        judged: How many of the N, from the first, are judged; the others are there as normal ones.

    Returns:
        Name -> judgement of the first `judged` images; a score that is not defined is left out.
    """
    if isinstance(normal, Tensor):
        member, known_normal = normal, Calibration.of(measured.take(normal))
    else:
        member = torch.zeros(len(measured.importance_bound), dtype=torch.bool)
        known_normal = normal
    ours = scores(measured, known_normal.reference, member)
    for name, score in ours.items():
        # As calibrated, to the last bit: an image is not to outdo itself by rounding.
        score[member] = known_normal.normal[name][: int(member.sum())]
    known = None if abnormal is None else abnormal[:judged]
    return {
        name: Judgement.of(score[:judged], known_normal.normal[name], member[:judged], rate, known)
        for name, score in ours.items()
    }
