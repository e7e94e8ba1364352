import math

import pytest
import torch
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as torch_kl

from convvae.distributions import (
    Bernoulli,
    DiagonalGaussian,
    Gaussian,
    StandardNormal,
    gaussian_log_prob,
    gaussian_squared_error,
    kl_divergence,
    likelihood,
)


@pytest.fixture
def q():
    return DiagonalGaussian(torch.randn(5, 3).double(), torch.randn(5, 3).double())


def test_kl_equals_torch_distributions(q):
    ours = kl_divergence(q, StandardNormal(3))
    scale = torch.exp(0.5 * q.logvar)
    theirs = torch_kl(Normal(q.mu, scale), Normal(torch.zeros(3), torch.ones(3))).sum(-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_kl_of_the_prior_itself_is_zero():
    q = DiagonalGaussian(torch.zeros(2, 4), torch.zeros(2, 4))
    assert kl_divergence(q, StandardNormal(4)).tolist() == [0.0, 0.0]


def test_kl_equals_its_monte_carlo_estimate(q):
    z = q.rsample(torch.randn(200_000, 5, 3).double())
    estimate = q.log_prob(z) - StandardNormal(3).log_prob(z)
    error = (estimate.mean(0) - kl_divergence(q, StandardNormal(3))).abs()
    assert (error < 5 * estimate.std(0) / math.sqrt(200_000)).all()


def test_posterior_log_prob_equals_torch_distributions(q):
    z = torch.randn(7, 5, 3).double()
    theirs = Independent(Normal(q.mu, torch.exp(0.5 * q.logvar)), 1).log_prob(z)
    torch.testing.assert_close(q.log_prob(z), theirs)


def test_prior_log_prob_equals_torch_distributions():
    z = torch.randn(7, 3)
    theirs = Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(StandardNormal(3).log_prob(z), theirs)


def test_rsample_is_the_reparameterised_draw(q):
    eps = torch.randn(2, 5, 3).double()
    torch.testing.assert_close(q.rsample(eps), q.mu + q.logvar.exp().sqrt() * eps)


def test_prior_samples_are_a_function_of_their_generator():
    draws = [StandardNormal(4).sample(6, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert draws[0].shape == (6, 4)
    assert torch.equal(*draws)


def test_bernoulli_sums_to_one_over_all_binary_images():
    p = Bernoulli(logits=torch.randn(1, 2, 2))
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).view(-1, 1, 2, 2)
    total = p.log_prob(images).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_gaussian_integrates_to_one():
    p = Gaussian(mean=torch.rand(1, 1, 1), variance=0.5)
    x = torch.linspace(-8, 9, 20_001).view(-1, 1, 1, 1)
    total = torch.trapezoid(p.log_prob(x).exp(), x.flatten())
    torch.testing.assert_close(total, torch.tensor(1.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variance", [0.5, 0.01, 2.0])
def test_gaussian_log_prob_equals_torch_distributions(variance):
    mean, x = torch.rand(4, 2, 3, 5), torch.rand(4, 2, 3, 5)
    theirs = Normal(mean, math.sqrt(variance)).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(Gaussian(mean, variance).log_prob(x), theirs)


def test_variance_one_half_is_squared_error_up_to_a_constant():
    mean, x = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
    squared_error = ((x - mean) ** 2).sum((1, 2, 3))
    constant = 0.5 * 64 * math.log(math.pi)
    torch.testing.assert_close(-Gaussian(mean, 0.5).log_prob(x), squared_error + constant)


@pytest.mark.parametrize("variance", [0.5, 0.03])
def test_squared_error_is_recovered_from_the_log_probability(variance):
    error = torch.tensor([3.25, 12.5]).double()
    log_px = gaussian_log_prob(error, 64, variance)
    recovered = [gaussian_squared_error(value, 64, variance) for value in log_px.tolist()]
    assert recovered == pytest.approx(error.tolist(), rel=1e-12)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian"])
def test_likelihoods_by_name_reduce_the_pixels_and_keep_the_batch(name):
    p = likelihood(name, torch.randn(3, 5, 2, 8, 9), variance=0.5)
    assert p.log_prob(torch.rand(5, 2, 8, 9)).shape == (3, 5)
    assert p.mean.shape == (3, 5, 2, 8, 9)
    assert p.mean.min() > 0
    assert p.mean.max() < 1


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(KeyError, match="poisson"):
        likelihood("poisson", torch.zeros(1, 1, 8, 8), variance=0.5)
