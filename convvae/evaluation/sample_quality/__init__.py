"""How near a model's samples are to real images, as two sets in a named feature space.

`features` names the spaces, `measures` compares sets of features, and `comparison` does both for a
model: its samples against real images, beside other real images against the same.
"""

from convvae.evaluation.sample_quality.comparison import (
    Comparison,
    SampleQuality,
    compare,
    sample_quality,
    samples_against,
)
from convvae.evaluation.sample_quality.features import feature_space

__all__ = [
    "Comparison",
    "SampleQuality",
    "compare",
    "feature_space",
    "sample_quality",
    "samples_against",
]
