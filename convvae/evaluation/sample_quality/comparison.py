"""How near a model's samples are to real images, as two sets in a named feature space.

`features` names the spaces, `measures` compares sets of features, and `sample_quality` does both
for a model: its samples against real images, beside other real images against the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from convvae import runtime
from convvae.evaluation.encode import BATCH, decoded_batches, sample_prior
from convvae.evaluation.estimates import Estimate, Undefined
from convvae.evaluation.sample_quality.features import FeatureSpace
from convvae.evaluation.sample_quality.measures import (
    Neighbourhoods,
    frechet_distance,
    kernel_distance,
    neighbourhoods,
)
from convvae.images.sheets import to_uint8
from convvae.model.conditions import with_labels
from convvae.model.vae import VAE


class Comparison(NamedTuple):
    """A set of images against real images, in a feature space."""

    images: int
    """Images of the set."""
    frechet_distance: float | Undefined
    kernel_distance: Estimate | Undefined
    neighbourhoods: Neighbourhoods


class SampleQuality(NamedTuple):
    """A model's samples, and training images in their place, against real images."""

    feature_space: str
    """Its name, with a version."""
    what: str
    """Where its features come from."""
    real_images: int
    samples: Comparison | Undefined
    """Means of p(x|z) at draws of z from the prior."""
    training_images: Comparison
    """What a perfect sampler would come to with as many images."""


def sample_quality(
    vae: VAE,
    real: Tensor,
    train: Tensor,
    space: FeatureSpace,
    *,
    count: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> SampleQuality:
    """Compare a model's samples with real images it has not seen.

    A sample is the mean of p(x|z) at a draw z of the prior, rounded to 8 bits: no noise of the
    likelihood is added. The draws are those of `encode.generate` with the same count and seed.

    Args:
        vae: The model.
        real: Test images, uint8, shape [N, C, H, W].
        train: Training images of the same shape [M, ...], which take the samples' place in turn.
        space: The feature space.
        count: Number of samples.
        seed: Of the draws, and of the kernel distance's blocks.
        progress: Called with the number of images turned into features since the last call.
    """
    real_features, train_features = (
        torch.cat([_advance(progress, space(part)) for part in images.split(BATCH)])
        for images in (real, train)
    )
    drawn = _sample_features(vae, space, count, seed, progress)
    return SampleQuality(
        feature_space=space.name,
        what=space.what,
        real_images=len(real),
        samples=drawn if isinstance(drawn, Undefined) else compare(real_features, drawn, seed=seed),
        training_images=compare(real_features, train_features, seed=seed),
    )


def samples_against(
    vae: VAE, real: Tensor, space: FeatureSpace, *, count: int, seed: int
) -> Comparison | Undefined:
    """Compare a model's samples with real images, without training images in their place.

    Arguments as of `sample_quality`.
    """
    drawn = _sample_features(vae, space, count, seed, lambda _: None)
    if isinstance(drawn, Undefined):
        return drawn
    return compare(torch.cat([space(part) for part in real.split(BATCH)]), drawn, seed=seed)


def _sample_features(
    vae: VAE, space: FeatureSpace, count: int, seed: int, progress: Callable[[int], None]
) -> Tensor | Undefined:
    """Features of a model's samples [N, F]; the samples themselves are not kept."""
    vae = with_labels(vae, count, seed=seed)
    z = sample_prior(vae, count, runtime.generator(seed, "generate"))
    found: list[Tensor] = []
    for mean in decoded_batches(vae, z):
        if not mean.isfinite().all():
            return Undefined("the model's samples are infinite or not a number")
        found.append(_advance(progress, space(to_uint8(mean))))
    return torch.cat(found)


def _advance(progress: Callable[[int], None], features: Tensor) -> Tensor:
    progress(len(features))
    return features


def compare(real: Tensor, others: Tensor, *, seed: int) -> Comparison:
    """Compare the features of images [M, F] with those of real ones [N, F], by every measure."""
    return Comparison(
        images=len(others),
        frechet_distance=frechet_distance(real, others),
        kernel_distance=kernel_distance(real, others, runtime.generator(seed, "kernel distance")),
        neighbourhoods=neighbourhoods(real, others),
    )
