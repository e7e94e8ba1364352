"""The likelihoods and the priors by name, and how one's own join them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from convvae.distributions.colour import ColourHead
from convvae.distributions.flows import FlowPrior
from convvae.distributions.interleaved import InterleavedBernoulliHead
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
from convvae.distributions.priors import LearnedMixture, Prior, StandardNormal
from convvae.parts import LIKELIHOOD_NAMES, PRIOR_NAMES

PriorMaker: TypeAlias = Callable[[int, int], Prior]
"""The numbers of latents D and of components M -> a prior."""

HEADS: dict[str, type[Head]] = {
    "bernoulli": BernoulliHead,
    "bernoulli-interleaved": InterleavedBernoulliHead,
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

PRIORS: dict[str, PriorMaker] = {
    "normal": lambda latent_dims, _: StandardNormal(latent_dims),
    "mixture": LearnedMixture,
    "flow": lambda latent_dims, _: FlowPrior(latent_dims),
}
"""What makes the prior of each name; the model makes `vamp` and `conditional`, which ask more."""


def register_likelihood(name: str, head: type[Head]) -> None:
    """Make a likelihood of one's own a value of the setting `likelihood`.

    Call it before a model file that names it is loaded. A name registered before stands for the
    newer part from then on.

    Args:
        name: Small letters, digits and hyphens.
        head: A subclass of `Head`, called with the setting `variance`: from a decoder's raw output
            [..., outputs * C, H, W] to a `Likelihood` of x [..., C, H, W].

    Raises:
        ConfigError: the name is convvae's own, or no name.
    """
    LIKELIHOOD_NAMES.add(name)
    HEADS[name] = head


def register_prior(name: str, make: PriorMaker) -> None:
    """Make a prior of one's own a value of the setting `prior`.

    KL(q(z|x) || p(z)) is then the mean of log q(z|x) - log p(z) over the draws of z. Call it before
    a model file that names it is loaded. A name registered before stands for the newer part from
    then on.

    Args:
        name: Small letters, digits and hyphens.
        make: A subclass of `Prior`, or a function: called with the settings `latent_dims` and
            `prior_components`.

    Raises:
        ConfigError: the name is convvae's own, or no name.
    """
    PRIOR_NAMES.add(name)
    PRIORS[name] = make
