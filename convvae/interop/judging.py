"""The calibration that a model's file carries, as a graph: how abnormal an image is, and how sure.

x [B, C, H, W] in [0, 1] -> `score` [B] and `p` [B], float64, and `flagged` [B], bool: what `convvae
anomalies` says of images that are none of the normal ones, but for rounding.
"""

from __future__ import annotations

import json
from typing import final

from torch import Tensor, nn

from convvae.anomalies.calibration import threshold
from convvae.anomalies.carried import Carried
from convvae.anomalies.quantities import coarse_error, complexity, dissimilarity
from convvae.anomalies.scores import (
    NEIGHBOUR_RANK,
    SCORES,
    Evidence,
    Reference,
    combination,
    corrected_error,
)
from convvae.model.vae import VAE

DRAWING = ("bound", "importance_bound", "bounds_ratio")
"""Scores that draw z: a graph draws nothing."""


@final
class JudgingGraph(nn.Module):
    """x -> score, p-value, and whether it is flagged, by a carried calibration.

    Args:
        vae: The model, or what of it makes reconstructions.
        carried: The calibration; its score is none of `DRAWING`.
    """

    def __init__(self, vae: VAE, carried: Carried) -> None:
        super().__init__()
        self.vae, self.score, self.rate = vae, carried.terms.score, carried.terms.false_alarms
        assert self.score not in DRAWING
        assert SCORES[self.score].sign == 1
        # Copies: a tensor that is a part of a file's would be saved with the whole of it.
        for name, values in carried.calibration.reference._asdict().items():
            self.register_buffer(name, values.double().clone())
        self.register_buffer("normal", carried.calibration.normal[self.score].clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, C, H, W] -> score [B], p [B], flagged [B]."""
        score = self._score(x)
        normal = self.get_buffer("normal")
        at_least = (normal >= score.unsqueeze(1)).sum(1)
        p = (1 + at_least).double() / (1 + len(normal))
        return score, p, p <= self.rate

    def _score(self, x: Tensor) -> Tensor:
        z = self.vae.encode(x).location
        mean = self.vae.decode(z).mean
        match self.score:
            case "squared_error":
                return (mean - x).square().flatten(1).mean(1).double()
            case "dissimilarity":
                return dissimilarity(x, mean).double()
            case _:
                return self._by_normal_images(x, mean, z[:, : self.vae.config.outline])

    def _by_normal_images(self, x: Tensor, mean: Tensor, mu: Tensor) -> Tensor:
        reference = Reference(*(self.get_buffer(name) for name in Reference._fields))
        evidence = Evidence(mu, coarse_error(x, mean).double(), complexity(x).double())
        codes, normal = mu.double(), reference.mu
        match self.score:
            case "corrected_error":
                return corrected_error(evidence, reference)
            case "latent_distance":
                return _far(codes, normal)
            case _:
                far = _far(codes @ reference.whiten, normal @ reference.whiten)
        if self.score == "neighbours":
            return far
        return combination(corrected_error(evidence, reference), far, reference)


def _far(codes: Tensor, normal: Tensor) -> Tensor:
    """Distances of codes [B, D] to the 5th nearest of the normal ones [M, D], shape [B]."""
    squares = (codes.unsqueeze(1) - normal).square().sum(2)
    return squares.topk(NEIGHBOUR_RANK, dim=1, largest=False).values[:, -1].sqrt()


def terms(carried: Carried) -> str:
    """What the graph's file says of the calibration, as JSON."""
    found = carried.terms
    limit = threshold(carried.calibration.normal[found.score], found.false_alarms)
    known = {"score": found.score, "unit": SCORES[found.score].unit, "threshold": limit}
    known |= {"false_alarms": found.false_alarms, "normal_images": found.images}
    return json.dumps(known)
