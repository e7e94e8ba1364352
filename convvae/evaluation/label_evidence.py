"""What a conditional model makes of every label: log p(x) by their sum, and which one it takes.

Of a model that is told several columns, a label is here a combination of theirs that training
images have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from convvae.config import UNLABELLED
from convvae.data import ImageSet
from convvae.data.images import class_name
from convvae.evaluation.bounds import image_terms, importance_bounds
from convvae.evaluation.encode import batch_size, evaluating
from convvae.evaluation.estimates import Estimate
from convvae.model.conditions import (
    combination_places,
    combination_rows,
    given_labels_of,
    log_prior,
    predicted,
)
from convvae.model.vae import VAE


class LabelEvidence(NamedTuple):
    """Bounds of log p(x|y) for every label y, and what follows from them."""

    without_label: Estimate
    """log sum_y exp(bound of log p(x|y)) p(y) <= log p(x), nats per image."""
    gain: Estimate
    """Bound of log p(x|y) for the image's own y, less that of log p(x); nats per image."""
    accuracy: Estimate
    """Share of the images whose own label has the largest p(x|y) p(y), by the bounds."""
    classifier: Estimate | None
    """Share of the images whose own label has the largest q(y|x); None without a classifier."""
    samples: int
    """Draws K of the importance-weighted bounds; 0 for the evidence lower bound of one draw."""
    labels: int
    """Number of labels, or of combinations of labels."""


def label_bounds(
    vae: VAE,
    images: Tensor,
    *,
    samples: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Bounds of log p(x|y) of every image and every label, the noise of all labels the same.

    Args:
        vae: A model that is told labels and no numbers.
        images: uint8, shape [N, C, H, W].
        samples: Draws K of z per image and label; 0 for the evidence lower bound of one draw.
        seed: Of the draws.
        progress: Called with the number of images and labels done since the last call.

    Returns:
        Nats, shape [N, labels], float64, on the CPU.
    """
    assert vae.config.condition is not None
    found: list[Tensor] = []
    for y in combination_rows(vae.config.condition):
        found.append(_bounds(vae.given(y[None]), images, samples=samples, seed=seed))
        progress(len(images))
    return torch.stack(found, 1)


def _bounds(vae: VAE, images: Tensor, *, samples: int, seed: int) -> Tensor:
    """Bounds of log p(x|y) of images whose y is given, nats, shape [N]."""
    if samples:
        return importance_bounds(vae, images, samples=samples, seed=seed)
    return image_terms(vae, images, seed=seed).bound


def classified(vae: VAE, images: Tensor) -> Tensor:
    """The label of the largest q(y|x) of images uint8 [N, C, H, W], by its place, int64 [N]."""
    with evaluating(vae):
        return torch.cat([predicted(vae, part) for part in images.split(batch_size(vae))])


def labelled(images: ImageSet) -> ImageSet:
    """Those of images that have a label, where that of some is `UNLABELLED`."""
    assert images.labels is not None
    names = [class_name(images.classes, number) for number in images.labels.tolist()]
    rows = [place for place, name in enumerate(names) if name != UNLABELLED]
    return images if len(rows) == len(images) else images.take(torch.tensor(rows))


def label_evidence(
    vae: VAE,
    images: ImageSet,
    *,
    samples: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> LabelEvidence:
    r"""log p(x) = log sum_y p(x|y) p(y), and the classifier argmax_y p(x|y) p(y), by bounds.

    p(y) is the share of a label among the training images.

    Args:
        vae: As in `label_bounds`.
        images: With what is known of them: all have a label, see `labelled`.
        samples: As in `label_bounds`.
        seed: Of the draws.
        progress: As in `label_bounds`.
    """
    condition, pixels = vae.config.condition, images.images
    assert condition is not None
    places = combination_places(condition, images)
    given = label_bounds(vae, pixels, samples=samples, seed=seed, progress=progress)
    joint = given + log_prior(condition)
    marginal = joint.logsumexp(1)
    own = given.gather(1, places.clamp_min(0)[:, None])[:, 0]
    if bool((strange := places < 0).any()):  # images whose labels no training image has together
        some = images.take(strange.nonzero()[:, 0])
        model = given_labels_of(vae, some)
        own[strange] = _bounds(model, some.images, samples=samples, seed=seed)
    return LabelEvidence(
        without_label=Estimate.of(marginal),
        gain=Estimate.of(own - marginal),
        accuracy=Estimate.of((joint.argmax(1) == places).double()),
        classifier=None
        if vae.classifier is None
        else Estimate.of((classified(vae, pixels) == places).double()),
        samples=samples,
        labels=given.shape[1],
    )
