r"""Directions of attributes: from the codes of images with and without a label to a step in z.

A step of strength s takes a code z to z + s d. Strength 1 is the distance between the two groups:

    means      d = m_1 - m_0, with m_1 and m_0 the mean codes of images with the label and without
    logistic   d = n (n . (m_1 - m_0)), with n the unit normal of the plane by which a logistic
               regression parts them: as far as the means lie apart, across the plane

The code of an image is the location of q(z|x); of a ladder, that of its outline, and the finer
groups follow their priors.

Sources: differences of means, Larsen et al. 2016, https://arxiv.org/abs/1512.09300, and White 2016,
    https://arxiv.org/abs/1609.04468; normals, Shen et al. 2020, https://arxiv.org/abs/1907.10786
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from convvae import runtime
from convvae.config import UNLABELLED
from convvae.data import ImageSet
from convvae.data.images import class_name
from convvae.errors import ConfigError, UsageError, did_you_mean, in_a_line
from convvae.evaluation.encode import decode, posterior_means
from convvae.evaluation.probes import MAX_STEPS
from convvae.model.vae import VAE

Method = Literal["means", "logistic"]
MOST_NAMED = 20
"""Labels that a message names."""


class Direction(NamedTuple):
    """A step in the latent space, from images of one kind to those of another."""

    step: Tensor
    """d, what strength 1 adds to a code, shape [D], float32."""
    parted: float
    """Share of the images that a plane across d, midway between the means, has on their side; each
    kind counts half."""
    inside: int
    """Images with the label."""
    outside: int
    """Images without."""


def check_unconditional(vae: VAE) -> None:
    """Refuse a model that is told labels: its codes need not hold them.

    Raises:
        UsageError: it is one.
    """
    if vae.config.condition is not None:
        raise UsageError(
            "the model was trained with labels, and is told them beside the code: no direction of "
            "the code is needed; use `convvae generate` with `label`, or the choice of the label "
            "in `convvae explore`"
        )


def groups(images: ImageSet, toward: str, away: str | None = None) -> tuple[Tensor, Tensor]:
    """Which images have a label, and which are held against them: bool, shape [N] each.

    Args:
        images: The images.
        toward: The label.
        away: The label of the others; None for all that have another.

    Raises:
        ConfigError: the images have no labels, not these, or no others.
    """
    if images.labels is None:
        raise ConfigError(
            f"the images of {images.name} have no labels to learn a direction from; lay them into "
            "folders named as their labels, list them in a table with a column label, or name "
            "other ones with `labels_from`"
        )
    inside = _of_label(images, images.labels, toward)
    outside = ~inside if away is None else _of_label(images, images.labels, away)
    if away is None and images.classes is not None and UNLABELLED in images.classes:
        outside &= images.labels != images.classes.index(UNLABELLED)
    if toward == away or not outside.any():
        raise ConfigError(
            f"a direction toward {in_a_line(repr(toward))} needs images of another label to come "
            "from"
        )
    return inside, outside


def _of_label(images: ImageSet, labels: Tensor, label: str) -> Tensor:
    """Which images have a label, shape [N]."""
    numbers = labels.unique().tolist()
    names = [class_name(images.classes, number) for number in numbers]
    if label not in names:
        more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
        known = ", ".join(map(in_a_line, names[:MOST_NAMED]))
        raise ConfigError(
            f"none of the images of {images.name} has the label {in_a_line(repr(label))}"
            f"{did_you_mean(label, names)}; they have {known}{more}"
        )
    return labels == numbers[names.index(label)]


def some_of(chosen: Tensor, count: int, seed: int) -> Tensor:
    """Places of at most so many of the images that are chosen, drawn at random.

    Args:
        chosen: Which they are, bool, shape [N].
        count: How many.
        seed: Of the draw.
    """
    places = chosen.nonzero()[:, 0]
    order = torch.randperm(len(places), generator=runtime.generator(seed, "some images"))
    return places[order[:count]]


def direction(to: Tensor, away: Tensor, method: Method = "means") -> Direction:
    """The step from one group of codes to another.

    Args:
        to: Codes of images with the label, shape [N, D].
        away: Codes of images without, shape [M, D].
        method: How it is found; see the module.

    Raises:
        ConfigError: a code is not finite, or the groups lie in one place.

    Examples:
        >>> to, away = torch.tensor([[2.0, 1.0], [4.0, 1.0]]), torch.tensor([[0.0, 1.0]])
        >>> direction(to, away).step
        tensor([3., 0.])
    """
    to, away = to.double(), away.double()
    if not (to.isfinite().all() and away.isfinite().all()):
        raise ConfigError("the codes of the images are infinite or not a number; train the model")
    step = between(to, away)
    if method == "logistic":
        normal = _normal(to, away)
        step = normal * (normal @ step)
    if not step.any():
        raise ConfigError(
            "the codes with the label and those without lie in one place: the model tells nothing "
            "of it; choose another label"
        )
    middle = (to.mean(0) + away.mean(0)) @ step / 2
    shares = (to @ step > middle).double().mean(), (away @ step < middle).double().mean()
    return Direction(step.float(), float(sum(shares) / 2), len(to), len(away))


def _normal(to: Tensor, away: Tensor) -> Tensor:
    """The unit normal of the plane of a logistic regression, toward the first group, shape [D].

    Both groups weigh the same; the penalty is 1/2 |w|^2 at C = 1, on codes that are divided by one
    number, so that their variance is 1 in the mean over the latents: an unused latent stays small
    beside the others, and the plane is the same whatever the scale of all.
    """
    from sklearn.linear_model import LogisticRegression

    codes = torch.cat([to, away])
    scale = (codes - codes.mean(0)).square().mean().sqrt()
    if not scale:
        return torch.zeros_like(codes[0])
    label = torch.tensor([1] * len(to) + [0] * len(away)).numpy()
    model = LogisticRegression(class_weight="balanced", max_iter=MAX_STEPS)
    model.fit((codes / scale).numpy(), label)
    weights = torch.from_numpy(model.coef_[0])
    return weights / weights.norm().clamp_min(torch.finfo(torch.float64).tiny)


def between(to: Tensor, away: Tensor) -> Tensor:
    """From the mean of codes [M, D] to that of others [N, D]: shape [D]."""
    return to.mean(0) - away.mean(0)


class Edited(NamedTuple):
    """Images and what a direction makes of them."""

    z: Tensor
    """Their codes, shape [N, D]."""
    images: Tensor
    """Means of p(x|z + s d) of each strength s, float32 in [0, 1], shape [S, N, C, H, W]."""


def edit(vae: VAE, images: Tensor, step: Tensor, strengths: Sequence[float]) -> Edited:
    """Decode images at places along a direction from their codes.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        step: d of a `Direction`, shape [D].
        strengths: s of each place; 0 is the image's own.
    """
    z, _ = posterior_means(vae, images)
    along = torch.tensor(strengths, dtype=torch.float32)[:, None, None] * step
    return Edited(z, decode(vae, z + along))
