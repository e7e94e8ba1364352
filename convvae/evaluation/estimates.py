"""A mean over images with its standard error, or why there is none."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """A mean over images and its standard error."""

    mean: float
    standard_error: float | None
    """Standard deviation over images / sqrt(N); None of a single image."""

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The estimate from a value per image, shape [N].

        Examples:
            >>> Estimate.of(torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])).mean
            5.0
        """
        error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(float(values.mean()), error)


class Undefined(NamedTuple):
    """Stands where a number would be, had it a meaning."""

    not_defined: str
    """Why it has none."""
