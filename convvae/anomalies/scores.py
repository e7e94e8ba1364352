"""How unlike the normal images an image is: four scores.

`calibration` makes p-values of them, `report` writes them down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from convvae.data import Images
from convvae.errors import ModelFileError
from convvae.evaluation.bounds import importance_bounds
from convvae.evaluation.distances import nearest
from convvae.evaluation.encode import Encodings, batches, encode
from convvae.model.vae import VAE

NEIGHBOUR_RANK = 5
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
        1, "prior deviations", f"distance of the code to the {NEIGHBOUR_RANK}th normal one"
    ),
}
"""Name -> quantity; a score is its value times its sign, so that high is abnormal."""


class Measured(NamedTuple):
    """What the scores of N images are made of."""

    encodings: Encodings
    importance_bound: Tensor
    """Nats, shape [N]."""

    @classmethod
    def of(cls, numbers: Mapping[str, Tensor]) -> Measured:
        """What `numbers` gave."""
        encodings = Encodings(*(numbers[name] for name in Encodings._fields))
        return cls(encodings, numbers["importance_bound"])

    def numbers(self) -> dict[str, Tensor]:
        """All of it by name, to be stored."""
        return {**self.encodings._asdict(), "importance_bound": self.importance_bound}

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
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Pass images through a model, batch by batch.

    Args:
        vae: The model.
        source: The images, of any size.
        seed: Of the draws of z.
        samples: Draws K of z per image for the importance-weighted bound.
        binarize_seed: Of the black or white pixels of a model of such images, else None.
        chosen: Which of the images to measure, bool [N]; they are the same as in all.
        start: The place of the first image.
        stop: The place behind the last; absent, they go on to the end.
        progress: Called with the number of images done since the last call.

    Raises:
        ImageSizeError: the images do not fit the model.
        ModelFileError: the model gives a number that is infinite or not one.
    """
    encodings: list[Encodings] = []
    bounds: list[Tensor] = []
    done = start
    for batch in batches(vae, source, binarize_seed, start, stop):
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

    Args:
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
    if len(normal) > NEIGHBOUR_RANK:
        found["latent_distance"] = latent_distance(encodings.mu, normal, member)
    return {name: SCORES[name].sign * value for name, value in found.items()}


def latent_distance(mu: Tensor, normal: Tensor, member: Tensor) -> Tensor:
    """Euclidean distance of codes to the 5th nearest of the normal images, itself apart.

    Unlike a distance from the prior's centre it sees an image that falls between clusters; a latent
    that is not used hardly counts, since its mean hardly varies.

    Args:
        mu: Locations of the posteriors, shape [N, D].
        normal: Those of the normal images, shape [M, D], M > 5.
        member: Whether an image is itself one of the normal ones, bool [N].

    Returns:
        Shape [N], float64.

    Source: Ramaswamy, Rastogi & Shim 2000, https://doi.org/10.1145/342009.335437
    """
    assert len(normal) > NEIGHBOUR_RANK
    far = nearest(mu, normal, NEIGHBOUR_RANK + 1)
    # A member's nearest is itself.
    return torch.where(member, far[:, NEIGHBOUR_RANK], far[:, NEIGHBOUR_RANK - 1])
