import math

import pytest
import torch

from convvae.distributions import FullMixture, StandardNormal
from convvae.evaluation import fitted_priors
from convvae.evaluation.bounds import image_terms
from convvae.evaluation.encode import generate
from convvae.model.vae import VAE

NARROW = 0.5 * math.log(2 * math.pi * math.e) + math.log(0.1)
"""Entropy of a Gaussian of standard deviation 0.1, nats."""


def clusters():
    """Codes in two narrow clusters, and their entropy in nats."""
    centre = torch.where(torch.rand(2000, 1) < 0.5, -2.0, 2.0)
    z = torch.cat((centre, torch.zeros_like(centre)), 1) + 0.1 * torch.randn(2000, 2)
    return z, math.log(2) + 2 * NARROW


def banana():
    """Codes along a parabola, and their entropy in nats."""
    first = torch.randn(2000, 1)
    z = torch.cat((first, first**2 + 0.1 * torch.randn(2000, 1)), 1)
    return z, 0.5 * math.log(2 * math.pi * math.e) + NARROW


@pytest.mark.parametrize(
    ("fit", "codes"), [(fitted_priors.fit_mixture, clusters), (fitted_priors.fit_flow, banana)]
)
def test_a_fitted_density_nears_the_entropy_of_the_codes(fit, codes, monkeypatch):
    monkeypatch.setattr(fitted_priors, "FLOW_STEPS", 400)
    z, entropy = codes()
    prior = fit(z, seed=1)
    with torch.no_grad():
        cross_entropy = -prior.log_prob(z).mean().item()
    assert entropy - 0.1 < cross_entropy < entropy + 0.25
    assert cross_entropy < -StandardNormal(2).log_prob(z).mean().item() - 1
    drawn = prior.sample(2000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), z.mean(0), rtol=0, atol=0.2)
    torch.testing.assert_close(drawn.std(0), z.std(0), rtol=0.1, atol=0.1)
    again = fit(z, seed=1).sample(2000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_a_given_mixture_integrates_to_one_and_draws_what_it_says():
    logw = torch.tensor([0.3, 0.7]).log()
    mu = torch.tensor([[1.0, -1.0], [-0.5, 2.0]])
    scale_tril = torch.tensor([[[0.5, 0.0], [0.4, 0.9]], [[1.2, 0.0], [-0.3, 0.6]]])
    prior = FullMixture(logw, mu, scale_tril)
    axis = torch.linspace(-8, 8, 641)
    grid = torch.cartesian_prod(axis, axis)
    mass = prior.log_prob(grid).exp() * (16 / 640) ** 2
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-3)
    drawn = prior.sample(40_000, torch.Generator().manual_seed(0))
    mean = (mass.unsqueeze(1) * grid).sum(0)
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.05)
    covariance = (mass.unsqueeze(1) * (grid - mean)).T @ (grid - mean)
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0, atol=0.05)


def test_few_codes_get_few_components():
    assert len(fitted_priors.fit_mixture(torch.randn(30, 2), seed=0).logw) == 1
    assert len(fitted_priors.fit_mixture(torch.randn(120, 2), seed=0).logw) == 2


def test_a_fitted_prior_serves_the_model_that_it_was_fitted_for(tiny_model, monkeypatch):
    monkeypatch.setattr(fitted_priors, "MAX_IMAGES", 60)
    vae = VAE(tiny_model).eval()
    with torch.no_grad():
        vae.encoder.proj_mu.bias += 3.0  # far from the prior
    images = torch.randint(256, (80, 1, 12, 10), dtype=torch.uint8)
    before = image_terms(vae, images, seed=0).bound.mean()
    assert fitted_priors.draw_codes(vae, images, seed=0).shape == (
        60 * fitted_priors.DRAWS_PER_IMAGE,
        3,
    )
    vae.prior = fitted_priors.fit_sampler("mixture", vae, images, seed=0)
    assert image_terms(vae, images, seed=0).bound.mean() > before + 3
    assert generate(vae, 5, seed=0).shape == (5, 1, 12, 10)
