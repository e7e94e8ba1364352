"""The probability in a VAE: posteriors q(z|x), priors p(z), likelihoods p(x|z), and KL(q || p).

In the style of `torch.distributions`, and always reduced to one number per image: `log_prob` sums
over the latents or over the pixels, in nats. Random draws take their standard normal noise, or a
generator, as an argument, so that everything here is a function of its arguments.
"""

from convvae.distributions.colour import ColourLogistic
from convvae.distributions.flows import ConditionalFlow, FlowPosterior, FlowPrior
from convvae.distributions.gaussian import normal_kl, normal_log_density
from convvae.distributions.interleaved import InterleavedBernoulli
from convvae.distributions.kl import kl_divergence, kl_per_latent
from convvae.distributions.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    Head,
    Laplace,
    Likelihood,
    OptimalGaussian,
    gaussian_log_prob,
    gaussian_squared_error,
)
from convvae.distributions.posteriors import DiagonalGaussian, FullGaussian, Posterior
from convvae.distributions.priors import (
    ConditionalNormal,
    FullMixture,
    GaussianMixture,
    LearnedMixture,
    Prior,
    StandardNormal,
    VampPrior,
)
from convvae.distributions.tables import HEADS, PRIORS, register_likelihood, register_prior

__all__ = [
    "HEADS",
    "PRIORS",
    "Bernoulli",
    "ColourLogistic",
    "ConditionalFlow",
    "ConditionalNormal",
    "ContinuousBernoulli",
    "DiagonalGaussian",
    "DiscretizedLogistic",
    "FlowPosterior",
    "FlowPrior",
    "FullGaussian",
    "FullMixture",
    "Gaussian",
    "GaussianMixture",
    "Head",
    "InterleavedBernoulli",
    "Laplace",
    "LearnedMixture",
    "Likelihood",
    "OptimalGaussian",
    "Posterior",
    "Prior",
    "StandardNormal",
    "VampPrior",
    "gaussian_log_prob",
    "gaussian_squared_error",
    "kl_divergence",
    "kl_per_latent",
    "normal_kl",
    "normal_log_density",
    "register_likelihood",
    "register_prior",
]
