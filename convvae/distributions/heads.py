"""The likelihoods by name."""

from __future__ import annotations

from convvae.distributions.colour import ColourHead
from convvae.distributions.likelihoods import (
    BernoulliHead,
    ContinuousBernoulliHead,
    DiscretizedLogisticHead,
    GaussianHead,
    Head,
    LaplaceHead,
    LearnedGaussianHead,
    MixtureHead,
    OptimalGaussianHead,
)

HEADS: dict[str, type[Head]] = {
    "bernoulli": BernoulliHead,
    "continuous-bernoulli": ContinuousBernoulliHead,
    "gaussian": GaussianHead,
    "gaussian-learned": LearnedGaussianHead,
    "gaussian-optimal": OptimalGaussianHead,
    "laplace": LaplaceHead,
    "discretized-logistic": DiscretizedLogisticHead,
    "discretized-logistic-mixture": MixtureHead,
    "discretized-logistic-colour": ColourHead,
}
"""What makes the likelihood of each name from a decoder's raw output."""
