import math

import pytest
import torch
import torch.nn.functional as F

from convvae.config import ModelConfig, TrainConfig
from convvae.distributions import DiagonalGaussian
from convvae.model.objectives import (
    Terms,
    capacity_loss,
    draw,
    elbo,
    log_aggregate,
    loss,
    squared_error_and_kl_per_image,
    squared_mmd,
    total_correlation,
    training_loss,
)
from convvae.model.vae import VAE


def model(likelihood):
    torch.manual_seed(1)
    config = ModelConfig(
        image_size=(10, 12), channels=1, latent_dims=3, max_filters=8, likelihood=likelihood
    )
    return VAE(config).eval()


def test_the_bound_is_the_formula_by_hand():
    vae, x, eps = model("bernoulli"), torch.rand(4, 1, 10, 12), torch.randn(1, 4, 3)
    mu, logvar = vae.encoder(x)
    logits = vae.decoder(mu + torch.exp(0.5 * logvar) * eps[0])
    cross_entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
    terms = elbo(vae, x, eps)
    torch.testing.assert_close(terms.log_px, -cross_entropy)
    torch.testing.assert_close(terms.kl, kl)
    torch.testing.assert_close(terms.bound, -cross_entropy - kl)


def test_draws_average_log_likelihoods_not_logits():
    vae, x, eps = model("bernoulli"), torch.rand(4, 1, 10, 12), torch.randn(3, 4, 3)
    each = torch.stack([elbo(vae, x, draw.unsqueeze(0)).log_px for draw in eps])
    torch.testing.assert_close(elbo(vae, x, eps).log_px, each.mean(0))


def test_without_noise_one_draw_is_made():
    vae, x = model("gaussian"), torch.rand(4, 1, 10, 12)
    torch.manual_seed(3)
    first = elbo(vae, x)
    torch.manual_seed(3)
    assert torch.equal(first.log_px, elbo(vae, x).log_px)
    assert first.log_px.shape == first.kl.shape == (4,)


def test_the_loss_at_beta_one_is_minus_the_mean_bound():
    terms = Terms(torch.tensor([-3.0, -5.0]), torch.tensor([1.0, 2.0]))
    assert loss(terms).item() == -terms.bound.mean().item()
    assert loss(terms, beta=4.0).item() == pytest.approx(4.0 + 6.0)


def test_squared_error_and_kl_is_the_tutorials_loss():
    vae, x, eps = model("gaussian"), torch.rand(4, 1, 10, 12), torch.randn(1, 4, 3)
    terms = elbo(vae, x, eps)
    mean = vae.decode(vae.encode(x).rsample(eps)).mean[0]
    theirs = ((x - mean) ** 2).sum() + terms.kl.sum()
    ours = squared_error_and_kl_per_image(
        vae.config, terms.log_px.mean().item(), terms.kl.mean().item()
    )
    assert ours is not None
    assert ours * 4 == pytest.approx(theirs.item(), rel=1e-5)
    assert -terms.bound.mean().item() == pytest.approx(ours + 60 * math.log(math.pi), rel=1e-5)


def test_squared_error_is_not_defined_for_bernoulli():
    assert squared_error_and_kl_per_image(model("bernoulli").config, -80.0, 20.0) is None


def correlated(count, rho, generator):
    """Narrow posteriors whose aggregate is a Gaussian, its correlation near rho."""
    a, b = torch.randn(2, count, generator=generator, dtype=torch.double)
    mu = torch.stack((a, rho * a + math.sqrt(1 - rho**2) * b), 1)
    spread = 0.1
    logvar = torch.full_like(mu, 2 * math.log(spread))
    noise = torch.randn(mu.shape, generator=generator, dtype=torch.double)
    return DiagonalGaussian(math.sqrt(1 - spread**2) * mu, logvar), noise


def test_the_total_correlation_of_a_gaussian_aggregate_is_the_known_one():
    q, eps = correlated(3000, 0.8, torch.Generator().manual_seed(0))
    z = q.rsample(eps).unsqueeze(0)
    covariance = 0.8 * 0.99
    expected = -0.5 * math.log(1 - covariance**2)
    assert total_correlation(q, z, 3000).item() == pytest.approx(expected, abs=0.1)
    q, eps = correlated(3000, 0.0, torch.Generator().manual_seed(0))
    assert total_correlation(q, q.rsample(eps).unsqueeze(0), 3000).item() < 0.15


def test_the_aggregate_of_a_whole_data_set_is_the_mixture_of_its_posteriors():
    mu, logvar = torch.randn(2, 6, 3).double()
    q, z = DiagonalGaussian(mu, logvar), torch.randn(2, 6, 3).double()
    each = torch.distributions.Normal(mu, (logvar / 2).exp()).log_prob(z.unsqueeze(2))
    joint = each.sum(-1).exp().mean(2).log()
    product = each.exp().mean(2).log().sum(-1)
    torch.testing.assert_close(total_correlation(q, z, 6), (joint - product).mean())


def test_the_aggregate_posterior_is_estimated_without_bias():
    """Over all batches of two of three images that hold image 0, the mean of q(z_0) is exact."""
    mu, z = torch.tensor([[0.0], [1.0], [3.0]]).double(), torch.full((1, 2, 1), 0.4).double()
    exact = torch.distributions.Normal(mu, 1.0).log_prob(z[0, :1]).exp().mean()
    found = []
    for other in (1, 2):
        pair = DiagonalGaussian(mu[[0, other]], torch.zeros(2, 1).double())
        joint, each = log_aggregate(pair, z, 3)
        torch.testing.assert_close(joint, each.squeeze(-1))
        found.append(joint[0, 0].exp())
    torch.testing.assert_close(torch.stack(found).mean(), exact)


def test_the_discrepancy_is_the_sum_over_pairs():
    z, eps = torch.randn(2, 2, 5, 3).double()
    kernel = lambda a, b: torch.exp(-(a - b).square().sum() / 6)  # noqa: E731
    total = 0.0
    for k in range(2):
        for i in range(5):
            for j in range(5):
                if i != j:
                    total += kernel(z[k, i], z[k, j]) + kernel(eps[k, i], eps[k, j])
                    total -= 2 * kernel(z[k, i], eps[k, j])
    assert squared_mmd(z, eps).item() == pytest.approx(float(total) / (2 * 5 * 4))


def test_the_discrepancy_is_zero_in_the_mean_at_the_prior_and_not_elsewhere():
    eps = torch.randn(400, 1, 20, 2).double()
    # z depends on its own noise, as a posterior's draws do, and is standard normal as a whole.
    z = 0.6 * eps + 0.8 * torch.randn(eps.shape).double()
    found = torch.stack([squared_mmd(a, b) for a, b in zip(z, eps, strict=True)])
    assert abs(found.mean().item()) < 5 * found.std().item() / 20
    shifted = torch.stack([squared_mmd(a + 1, b) for a, b in zip(z, eps, strict=True)])
    assert shifted.mean().item() > 0.1


def test_objectives_are_their_equations():
    vae, x, eps = model("gaussian"), torch.rand(4, 1, 10, 12), torch.randn(2, 4, 3)
    made = draw(vae, x, eps)
    log_px, kl = made.terms.log_px.mean(), made.kl.mean()
    correlation = total_correlation(made.q, made.z, 9)
    cases = {
        "beta-tc": ({"objective": "beta-tc"}, kl - log_px + 2 * correlation),
        "capacity": ({"capacity": 5.0}, 3 * (kl - 0.5).abs() - log_px),
        "mmd": ({"mmd": 7.0}, 3 * kl - log_px + 7 * squared_mmd(made.z, eps)),
        "elbo": ({}, 3 * kl - log_px),
    }
    for name, (settings, expected) in cases.items():
        config = TrainConfig(data="digits", beta=3.0, **settings)
        found = training_loss(config, vae, made, 3.0, 0.5, 9)
        torch.testing.assert_close(found, expected, msg=name)
    assert capacity_loss(made, 3.0, 0.5) == cases["capacity"][1]
