"""The face of PyOD on the estimator: which images are unlike those of `fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from convvae.anomalies.calibration import p_values
from convvae.anomalies.scores import (
    NEIGHBOUR_RANK,
    Evidence,
    Reference,
    combination,
    corrected_error,
    gather,
    neighbours,
)
from convvae.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from convvae.model.vae import VAE

COMPARED = 2_000
"""Images of `fit` whose codes others are compared with, at most: the first of them."""


class OutlierDetection:
    """`decision_function`, `predict` and `predict_proba` as in PyOD: high, and 1, where abnormal.

    The score is `combination` of `convvae anomalies`. It is held against the images of `fit`,
    which the model has learnt from: new images score as more abnormal than they. `calibrate` holds
    it against others.

    Source: of the interface, Zhao, Nasrullah & Li 2019, https://jmlr.org/papers/v20/19-011.html
    """

    contamination: float
    decision_scores_: NDArray[np.float64]
    """Of the images of `fit`, shape [N]."""
    threshold_: float
    """Above it an image is called abnormal: a share `contamination` of those of `fit`."""
    labels_: NDArray[np.int64]
    """1 where an image of `fit` is called abnormal, else 0: shape [N]."""
    _reference: Reference

    if TYPE_CHECKING:

        @property
        def vae_(self) -> VAE:
            """The model."""
            ...

        def _images(self, X: ArrayLike | Tensor, at_least: int = 1) -> Tensor: ...

    def calibrate(self, X: ArrayLike | Tensor) -> Self:
        """Hold later images against normal ones that the model has not learnt from.

        Args:
            X: At least two images or rows.
        """
        self._hold_against(self._images(X, at_least=2))
        return self

    def decision_function(self, X: ArrayLike | Tensor) -> NDArray[np.float64]:
        """How unlike those of `fit` images are, high where abnormal, shape [N].

        Raises:
            NotFittedError: there are no images to hold them against.
        """
        images = self._checked(X)
        evidence = gather(self.vae_, images)
        return self._score(evidence, torch.zeros(len(evidence.mu), dtype=torch.bool)).numpy()

    def predict(self, X: ArrayLike | Tensor) -> NDArray[np.int64]:
        """1 where an image is called abnormal, else 0: shape [N]."""
        return (self.decision_function(X) > self.threshold_).astype(np.int64)

    def predict_proba(self, X: ArrayLike | Tensor) -> NDArray[np.float64]:
        """Scores from the lowest of `fit` to the highest as 0 to 1: normal, abnormal, [N, 2].

        PyOD's `linear` scale, no probability; `p_values` are calibrated.
        """
        score = self.decision_function(X)
        low, high = self.decision_scores_.min(), self.decision_scores_.max()
        abnormal = ((score - low) / ((high - low) or 1)).clip(0, 1)
        return np.stack([1 - abnormal, abnormal], 1)

    def p_values(self, X: ArrayLike | Tensor) -> NDArray[np.float64]:
        """(1 + number of the images of `fit` with at least the score) / (1 + their number): [N]."""
        score = torch.from_numpy(self.decision_function(X))
        member = torch.zeros(len(score), dtype=torch.bool)
        return p_values(score, torch.from_numpy(self.decision_scores_), member).numpy()

    def _checked(self, X: ArrayLike | Tensor) -> Tensor:
        if not hasattr(self, "_reference"):
            raise NotFittedError(
                f"this {type(self).__name__} has no images to hold others against: call fit, or "
                "calibrate with normal ones"
            )
        return self._images(X)

    def _hold_against(self, images: Tensor) -> None:
        """Settle what later images are held against.

        Raises:
            ConfigError: `contamination` is out of its range.
        """
        if not 0 < self.contamination <= 0.5:
            raise ConfigError(f"contamination={self.contamination}: it is a share, in (0, 0.5]")
        evidence = gather(self.vae_, images)
        compared = Evidence(*(values[:COMPARED] for values in evidence))
        self._reference = Reference.of(compared)
        member = torch.arange(len(images)) < COMPARED
        self.decision_scores_ = self._score(evidence, member).numpy()
        self.threshold_ = float(np.quantile(self.decision_scores_, 1 - self.contamination))
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(np.int64)

    def _score(self, evidence: Evidence, member: Tensor) -> Tensor:
        """The combination; of few images to compare with, the corrected error alone."""
        error = corrected_error(evidence, self._reference)
        if len(self._reference.mu) <= NEIGHBOUR_RANK:
            return error
        return combination(error, neighbours(evidence, self._reference, member), self._reference)
