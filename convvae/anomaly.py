"""How unlike the normal images an image is: four scores, calibrated on held-out normal images.

A calibrated score is a conformal p-value: the share of normal images, the image itself counted
among them, that are at least as abnormal. Of new normal images, no more than a share alpha has
p <= alpha on average, whatever the score and however few images it was calibrated on.

Source: Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random World", chapter 2; for
outliers, Bates et al. 2023, https://arxiv.org/abs/2104.08279
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from convvae.data import Images
from convvae.distances import nearest
from convvae.encodings import Encodings, batches, encode
from convvae.errors import ModelFileError
from convvae.evaluate import importance_bounds
from convvae.model import VAE

NEIGHBOURS = 5
"""The latent distance is that to the normal image of this rank by nearness."""


class Score(NamedTuple):
    """A quantity by which images are ranked."""

    sign: int
    """1 where a large value is abnormal, -1 where a small one is."""
    unit: str
    what: str


SCORES: dict[str, Score] = {
    "bound": Score(-1, "nats", "evidence lower bound of log p(x)"),
    "importance_bound": Score(-1, "nats", "importance-weighted bound of log p(x)"),
    "squared_error": Score(1, "per value", "squared error of the reconstruction"),
    "latent_distance": Score(
        1, "prior deviations", f"distance of the code to the {NEIGHBOURS}th normal one"
    ),
}
"""Name -> quantity; a score is its value times its sign, so that high is abnormal."""


class Measured(NamedTuple):
    """What the scores of N images are made of."""

    encodings: Encodings
    importance_bound: Tensor
    """Nats, shape [N]."""

    def first(self, count: int) -> Measured:
        """Those of the first so many images."""
        encodings = Encodings(*(values[:count] for values in self.encodings))
        return Measured(encodings, self.importance_bound[:count])


def measure(
    vae: VAE,
    source: Images,
    *,
    seed: int,
    samples: int,
    binarize_seed: int | None = None,
    chosen: Tensor | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Pass images through a model, batch by batch.

    Arguments:
        vae: The model.
        source: The images, of any size.
        seed: Of the draws of z.
        samples: Draws K of z an image for the importance-weighted bound.
        binarize_seed: Of the black or white pixels of a model of such images, else None.
        chosen: Which of the images to measure, bool [N]; they are the same as in all.
        progress: Called with the number of images done since the last call.

    Raises:
        ImageSizeError: the images do not fit the model.
        ModelFileError: the model gives a number that is infinite or not one.
    """
    encodings: list[Encodings] = []
    bounds: list[Tensor] = []
    done = 0
    for batch in batches(vae, source, binarize_seed):
        these = slice(done, done + len(batch))
        images = batch if chosen is None else batch[chosen[these]]
        if len(images):
            encodings.append(encode(vae, images, seed=seed))
            bounds.append(importance_bounds(vae, images, samples=samples, seed=seed))
        done = these.stop
        progress(len(batch))
    found = Measured(Encodings.cat(encodings), torch.cat(bounds))
    for name, values in (*found.encodings._asdict().items(), ("importance bound", found[1])):
        if not values.isfinite().all():
            raise ModelFileError(
                f"the {name} of some images of {source.name} is not a finite number: the model's "
                "weights are damaged; train again"
            )
    return found


def scores(measured: Measured, normal: Tensor, member: Tensor) -> dict[str, Tensor]:
    """The scores of N images, high where abnormal, each of shape [N] and float64.

    Arguments:
        measured: Of the images.
        normal: Locations of the posteriors of the normal images, shape [M, D].
        member: Whether an image is itself one of the normal ones, bool [N].

    Returns:
        Name -> score; no `latent_distance` where there are too few normal images for it.
    """
    encodings = measured.encodings
    found = {
        "bound": encodings.bound,
        "importance_bound": measured.importance_bound,
        "squared_error": encodings.squared_error,
    }
    if len(normal) > NEIGHBOURS:
        found["latent_distance"] = latent_distance(encodings.mu, normal, member)
    return {name: SCORES[name].sign * value for name, value in found.items()}


def latent_distance(mu: Tensor, normal: Tensor, member: Tensor) -> Tensor:
    """Euclidean distance of codes to the 5th nearest of the normal images, itself apart.

    Unlike a distance from the prior's centre it sees an image that falls between clusters; a latent
    that is not used hardly counts, since its mean hardly varies.

    Arguments:
        mu: Locations of the posteriors, shape [N, D].
        normal: Those of the normal images, shape [M, D], M > 5.
        member: Whether an image is itself one of the normal ones, bool [N].

    Returns:
        Shape [N], float64.

    Source: Ramaswamy, Rastogi & Shim 2000, https://doi.org/10.1145/342009.335437
    """
    assert len(normal) > NEIGHBOURS
    far = nearest(mu, normal, NEIGHBOURS + 1)
    # A member's nearest is itself.
    return torch.where(member, far[:, NEIGHBOURS], far[:, NEIGHBOURS - 1])


def p_values(score: Tensor, normal: Tensor, member: Tensor) -> Tensor:
    """(1 + number of other normal images that score at least as high) / (1 + number of others).

    Arguments:
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

    Arguments:
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

    Arguments:
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


def judge(
    measured: Measured,
    normal: Measured | Tensor,
    abnormal: Tensor | None,
    rate: float,
    judged: int,
) -> Mapping[str, Judgement]:
    """Score images and calibrate every score.

    Arguments:
        measured: Of N images.
        normal: Of the normal images; or which of the N are normal ones, bool [N].
        abnormal: Which images are known to be abnormal, bool [N].
        rate: Share of normal images that may be flagged.
        judged: How many of the N, from the first, are judged; the others are there as normal ones.

    Returns:
        Name -> judgement of the first `judged` images; a score that is not defined is left out.
    """
    if isinstance(normal, Tensor):
        member, reference = normal, measured.encodings.mu[normal]
        ours = scores(measured, reference, member)
        theirs = {name: score[member] for name, score in ours.items()}
    else:
        member = torch.zeros(len(measured.importance_bound), dtype=torch.bool)
        reference = normal.encodings.mu
        ours = scores(measured, reference, member)
        theirs = scores(normal, reference, torch.ones(len(reference), dtype=torch.bool))
    known = None if abnormal is None else abnormal[:judged]
    return {
        name: Judgement.of(score[:judged], theirs[name], member[:judged], rate, known)
        for name, score in ours.items()
    }
