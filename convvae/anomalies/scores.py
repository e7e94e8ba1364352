"""How unlike the normal images an image is: the scores by name.

`calibration` makes p-values of them, `report` writes them down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from convvae.anomalies.quantities import (
    bounds_ratio,
    coarse_error,
    complexity,
    dissimilarity,
    has_groups,
)
from convvae.data import Images
from convvae.data.pixels import to_unit
from convvae.errors import ModelFileError
from convvae.evaluation.bounds import importance_bounds
from convvae.evaluation.distances import nearest
from convvae.evaluation.encode import (
    Encodings,
    batch_size,
    batches,
    encode,
    evaluating,
    own_noise,
)
from convvae.evaluation.reconstruction import reconstruct
from convvae.model.vae import VAE

NEIGHBOUR_RANK = 5
"""The latent distance is that to the normal image of this rank by nearness."""
FLOOR = 0.01
"""Variance that whitening adds to every latent, whose prior variance is 1: unused ones stay so."""
SMALLEST_ERROR = 1e-12
"""Squared errors are not below it where their logarithm is taken."""


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
    "corrected_error": Score(
        1, "log units", "log coarse error beyond that of normal images as complex"
    ),
    "dissimilarity": Score(1, "0 to 2", "1 - structural similarity, over resolutions"),
    "neighbours": Score(1, "deviations", "latent distance where the normal codes are white"),
    "bounds_ratio": Score(1, "nats", "bound lost where the lower groups are the prior's"),
    "combination": Score(1, "deviations", "corrected_error and neighbours, each standardised"),
}
"""Name -> quantity; a score is its value times its sign, so that high is abnormal."""
FEW_NORMAL = ("latent_distance", "neighbours", "combination")
"""Scores that need more normal images than `NEIGHBOUR_RANK`."""


class Evidence(NamedTuple):
    """What the combination is made of: of N images, one pass of the encoder and the decoder."""

    mu: Tensor
    """Locations of the posteriors, shape [N, D]."""
    coarse_error: Tensor
    """See `quantities`, as of the other: shape [N]."""
    complexity: Tensor
    """Shape [N, 2]."""

    @property
    def log_error(self) -> Tensor:
        """Logarithm of the coarse error, shape [N]."""
        return self.coarse_error.clamp_min(SMALLEST_ERROR).log()


class Measured(NamedTuple):
    """What the scores of N images are made of."""

    encodings: Encodings
    importance_bound: Tensor
    """Nats, shape [N]."""
    complexity: Tensor
    """See `quantities`, as of the others: shape [N, 2]."""
    coarse_error: Tensor
    """Shape [N]."""
    dissimilarity: Tensor
    """Shape [N]."""
    bounds_ratio: Tensor | None
    """None of a model without groups."""

    @classmethod
    def of(cls, numbers: Mapping[str, Tensor]) -> Measured:
        """What `numbers` gave."""
        encodings = Encodings(*(numbers[name] for name in Encodings._fields))
        others = (numbers.get(name) for name in cls._fields[1:])
        return cls(encodings, *others)  # pyright: ignore[reportArgumentType]

    def numbers(self) -> dict[str, Tensor]:
        """All of it by name, to be stored."""
        own = self._asdict().items()
        found = {name: value for name, value in own if isinstance(value, Tensor)}
        return {**self.encodings._asdict(), **found}

    @property
    def evidence(self) -> Evidence:
        """What the combination is made of."""
        return Evidence(self.encodings.mu, self.coarse_error, self.complexity)

    def first(self, count: int) -> Measured:
        """Those of the first so many images."""
        return self.take(torch.arange(count))

    def take(self, places: Tensor) -> Measured:
        """Those of the images at these places, or where a mask is true."""
        encodings = Encodings(*(values[places] for values in self.encodings))
        others = (None if values is None else values[places] for values in self[1:])
        return Measured(encodings, *others)  # pyright: ignore[reportArgumentType]


class Reference(NamedTuple):
    """What the scores know of the normal images."""

    mu: Tensor
    """Locations of their posteriors, shape [M, D]."""
    whiten: Tensor
    """mu @ whiten has the covariance I, shape [D, D], float64."""
    line: Tensor
    """Height and slopes of log coarse error over complexity, shape [3], float64."""
    level: Tensor
    """Means of `corrected_error` and of `neighbours`, shape [2], float64."""
    spread: Tensor
    """Their standard deviations."""

    @classmethod
    def of(cls, normal: Evidence) -> Reference:
        """Of M normal images; where M is too small for a part, it says nothing."""
        mu = normal.mu
        found = cls(mu, _whitening(mu), _line(normal), torch.zeros(2), torch.ones(2))
        if len(mu) <= NEIGHBOUR_RANK:
            return found
        members = torch.ones(len(mu), dtype=torch.bool)
        both = torch.stack(
            [corrected_error(normal, found), neighbours(normal, found, members)]
        ).double()
        return found._replace(level=both.mean(1), spread=both.std(1).clamp_min(1e-9))


def _whitening(mu: Tensor) -> Tensor:
    """The inverse transposed Cholesky factor of the codes' covariance and `FLOOR` I, [D, D]."""
    centred = mu.double() - mu.double().mean(0)
    covariance = centred.T @ centred / max(1, len(mu) - 1)
    floor = FLOOR * torch.eye(mu.shape[1], dtype=torch.double)
    return torch.linalg.inv(torch.linalg.cholesky(covariance + floor)).T


def _line(normal: Evidence) -> Tensor:
    """Least squares of log coarse error on complexity: height and slopes, shape [3]."""
    error, x = normal.log_error, normal.complexity
    centred = x - x.mean(0)
    # Images that are equally complex say nothing of a slope: it is 0.
    gram = centred.T @ centred + 1e-6 * len(x) * torch.eye(2, dtype=x.dtype)
    slopes = torch.linalg.solve(gram, centred.T @ (error - error.mean()))
    return torch.cat([(error.mean() - x.mean(0) @ slopes).reshape(1), slopes])


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
    found: list[Measured] = []
    done = start
    for batch in batches(vae, source, binarize_seed, start, stop):
        these = slice(done, done + len(batch))
        images = batch if chosen is None else batch[chosen[these]]
        if len(images):
            found.append(measure_images(vae, images, seed=seed, samples=samples))
        done = these.stop
        progress(len(batch))
    whole = _cat(found)
    for name, values in whole.numbers().items():
        if not values.isfinite().all():
            raise ModelFileError(
                f"the {name.replace('_', ' ')} of some images of {source.name} is not a finite "
                "number: the model's weights are damaged; train again"
            )
    return whole


def measure_images(vae: VAE, images: Tensor, *, seed: int, samples: int) -> Measured:
    """The same of images uint8 [N, C, H, W] of the model's size, unchecked."""
    parts: list[Measured] = []
    for part in images.split(batch_size(vae)):
        x, mean = to_unit(part), reconstruct(vae, part)
        ratio = None
        if has_groups(vae):
            with evaluating(vae):
                eps = own_noise(vae, part, seed)(1)
                ratio = bounds_ratio(vae, x.to(vae.device), eps).cpu().double()
        parts.append(
            Measured(
                encode(vae, part, seed=seed),
                importance_bounds(vae, part, samples=samples, seed=seed),
                complexity(x).double(),
                coarse_error(x, mean).double(),
                dissimilarity(x, mean).double(),
                ratio,
            )
        )
    return _cat(parts)


def gather(vae: VAE, images: Tensor) -> Evidence:
    """What the combination is made of, of images uint8 [N, C, H, W] of the model's size.

    In float64, on the CPU: standardised by images that are nearly alike, the rounding of float32
    would show, and it differs with an image's company.
    """
    exact = deepcopy(vae).cpu().double()
    parts: list[Evidence] = []
    with evaluating(exact):
        for part in images.split(batch_size(vae)):
            x = to_unit(part).double()
            z = exact.encode(x).location
            error = coarse_error(x, exact.decode(z).mean)
            mu = z[:, : vae.config.outline]
            parts.append(Evidence(mu, error.double(), complexity(x)))
    return Evidence(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _cat(parts: list[Measured]) -> Measured:
    numbers = [part.numbers() for part in parts]
    return Measured.of({name: torch.cat([one[name] for one in numbers]) for name in numbers[0]})


def scores(measured: Measured, reference: Reference, member: Tensor) -> dict[str, Tensor]:
    """The scores of N images, high where abnormal, each of shape [N] and float64.

    Args:
        measured: Of the images.
        reference: What is known of the normal images.
        member: Whether an image is itself one of the normal ones, bool [N].

    Returns:
        Name -> score; without those of `FEW_NORMAL` where there are too few normal images, and
        without `bounds_ratio` where the model has no groups.
    """
    encodings = measured.encodings
    found = {
        "bound": encodings.bound,
        "importance_bound": measured.importance_bound,
        "squared_error": encodings.squared_error,
        "corrected_error": corrected_error(measured.evidence, reference),
        "dissimilarity": measured.dissimilarity,
    }
    if measured.bounds_ratio is not None:
        found["bounds_ratio"] = measured.bounds_ratio
    if len(reference.mu) > NEIGHBOUR_RANK:
        found["latent_distance"] = latent_distance(encodings.mu, reference.mu, member)
        found["neighbours"] = neighbours(measured.evidence, reference, member)
        found["combination"] = combination(found["corrected_error"], found["neighbours"], reference)
    return {name: SCORES[name].sign * found[name] for name in SCORES if name in found}


def corrected_error(evidence: Evidence, reference: Reference) -> Tensor:
    """log coarse error - (height + slopes . complexity), the plane of the normal images: [N].

    A simple image is reconstructed well whatever it shows, and a complex one badly: what is
    compared is the error of normal images as complex as this one.

    Source: the idea, for log-likelihoods, Serra et al. 2020, https://arxiv.org/abs/1909.11480
    """
    return evidence.log_error - reference.line[0] - evidence.complexity @ reference.line[1:]


def neighbours(evidence: Evidence, reference: Reference, member: Tensor) -> Tensor:
    """The latent distance where the normal images' codes are white: Mahalanobis's, shape [N]."""
    codes, normal = (mu.double() @ reference.whiten for mu in (evidence.mu, reference.mu))
    return latent_distance(codes, normal, member)


def combination(error: Tensor, far: Tensor, reference: Reference) -> Tensor:
    """log sum exp of corrected error and neighbours, each standardised by the normal images: [N].

    Near the larger of the two, and more where both are large.
    """
    both = torch.stack([error, far])
    level, spread = reference.level.unsqueeze(1), reference.spread.unsqueeze(1)
    return ((both - level) / spread).logsumexp(0)


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
