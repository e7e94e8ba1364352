"""What a conditional model makes of every label: log p(x) by their sum, and which one it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from convvae.evaluation.bounds import image_terms, importance_bounds
from convvae.evaluation.estimates import Estimate
from convvae.model.conditions import given_labels, log_prior
from convvae.model.vae import VAE


class LabelEvidence(NamedTuple):
    """Bounds of log p(x|y) for every label y, and what follows from them."""

    without_label: Estimate
    """log sum_y exp(bound of log p(x|y)) p(y) <= log p(x), nats per image."""
    gain: Estimate
    """Bound of log p(x|y) for the image's own y, less that of log p(x); nats per image."""
    accuracy: Estimate
    """Share of the images whose own label has the largest p(x|y) p(y), by the bounds."""
    samples: int
    """Draws K of the importance-weighted bounds; 0 for the evidence lower bound of one draw."""
    labels: int
    """Number of labels C."""


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
        vae: A conditional model.
        images: uint8, shape [N, C, H, W].
        samples: Draws K of z per image and label; 0 for the evidence lower bound of one draw.
        seed: Of the draws.
        progress: Called with the number of images and labels done since the last call.

    Returns:
        Nats, shape [N, labels], float64, on the CPU.
    """
    assert vae.config.condition is not None
    found: list[Tensor] = []
    for label in vae.config.condition.labels:
        model = given_labels(vae, [label])
        if samples:
            bound = importance_bounds(model, images, samples=samples, seed=seed)
        else:
            bound = image_terms(model, images, seed=seed).bound
        found.append(bound)
        progress(len(images))
    return torch.stack(found, 1)


def label_evidence(
    vae: VAE,
    images: Tensor,
    places: Tensor,
    *,
    samples: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> LabelEvidence:
    r"""log p(x) = log sum_y p(x|y) p(y), and the classifier argmax_y p(x|y) p(y), by bounds.

    p(y) is the share of a label among the training images.

    Args:
        vae: A conditional model.
        images: uint8, shape [N, C, H, W].
        places: Where the label of each image is in y, int64 [N].
        samples: As in `label_bounds`.
        seed: Of the draws.
        progress: As in `label_bounds`.
    """
    assert vae.config.condition is not None
    given = label_bounds(vae, images, samples=samples, seed=seed, progress=progress)
    joint = given + log_prior(vae.config.condition)
    marginal = joint.logsumexp(1)
    own = given.gather(1, places[:, None])[:, 0]
    return LabelEvidence(
        without_label=Estimate.of(marginal),
        gain=Estimate.of(own - marginal),
        accuracy=Estimate.of((joint.argmax(1) == places).double()),
        samples=samples,
        labels=given.shape[1],
    )
