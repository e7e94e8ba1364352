import math

import pytest
import torch
import torch.nn.functional as F

from convvae.config import ModelConfig
from convvae.model import VAE
from convvae.objectives import Terms, elbo, loss, squared_error_and_kl


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
    ours = squared_error_and_kl(vae.config, terms.log_px.mean().item(), terms.kl.mean().item())
    assert ours is not None
    assert ours * 4 == pytest.approx(theirs.item(), rel=1e-5)
    assert -terms.bound.mean().item() == pytest.approx(ours + 60 * math.log(math.pi), rel=1e-5)


def test_squared_error_is_not_defined_for_bernoulli():
    assert squared_error_and_kl(model("bernoulli").config, -80.0, 20.0) is None
