"""Numbers with a known answer: VAEs that are linear or small, against algebra and quadrature."""

import itertools
import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from convvae.distributions import (
    DiagonalGaussian,
    FullGaussian,
    Gaussian,
    StandardNormal,
    kl_divergence,
    kl_per_latent,
)
from convvae.errors import ConfigError
from convvae.evaluation.bounds import image_terms, importance_bounds
from convvae.evaluation.imputation import chains, denoise_batch, impute
from convvae.model.objectives import (
    draw,
    dreg_loss,
    elbo,
    free_bits_loss,
    importance_weighted_bound,
    iwae_loss,
    loss,
)
from convvae.model.vae import VAE

torch.manual_seed(0)
SIDE, D, N = 3, 2, 400
PIXELS = SIDE * SIDE


def weighted_loss(vae, draws):
    return iwae_loss(draws)


class LinearVAE(nn.Module):
    """z ~ N(0, I), x ~ N(W z + m, s I): a VAE whose every quantity is known.

    The true posterior is N(M^-1 W^T (x - m), s M^-1) with M = W^T W + s I, diagonal where W's
    columns are orthogonal.
    """

    def __init__(self, weight, mean, variance):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.mean, self.variance = mean, variance
        self.prior = StandardNormal(weight.shape[1])
        self.offset, self.widening = 0.0, 0.0

    def encode(self, x):
        gram = self.weight.T @ self.weight + self.variance * torch.eye(D, dtype=x.dtype)
        mu = (x.flatten(1) - self.mean) @ self.weight @ torch.linalg.inv(gram)
        logvar = (self.variance * torch.linalg.inv(gram).diagonal()).log()
        return DiagonalGaussian(mu + self.offset, (logvar + self.widening).expand_as(mu))

    draw, log_px, observing, device = VAE.draw, VAE.log_px, VAE.observing, torch.device("cpu")
    observed = None

    def decode(self, z):
        mean = z @ self.weight.T + self.mean
        return Gaussian(mean.unflatten(-1, (1, SIDE, SIDE)), self.variance)


@pytest.fixture(scope="module")
def fitted():
    """Probabilistic PCA by scikit-learn, the VAE that equals it, the data, and log p(x)."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(PIXELS, D, generator=generator, dtype=torch.double)
    x = torch.randn(N, D, generator=generator, dtype=torch.double) @ mixing.T
    x = x + 0.3 * torch.randn(N, PIXELS, generator=generator, dtype=torch.double)
    pca = PCA(D, svd_solver="full").fit(x.numpy())
    variance = float(pca.noise_variance_)
    scales = torch.tensor(pca.explained_variance_ - variance).sqrt()
    vae = LinearVAE(torch.tensor(pca.components_).T * scales, torch.tensor(pca.mean_), variance)
    exact = torch.tensor(pca.score_samples(x.numpy()))
    return vae, x.view(N, 1, SIDE, SIDE), exact


def noise(draws, count=N, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(draws, count, D, generator=generator, dtype=torch.double)


def test_importance_weights_at_the_true_posterior_give_log_p_exactly(fitted):
    vae, x, exact = fitted
    for draws in (1, 7):
        bound = importance_weighted_bound(vae, x, noise(draws))
        torch.testing.assert_close(bound, exact, rtol=0, atol=1e-4)


def test_the_elbo_at_the_true_posterior_is_log_p(fitted):
    vae, x, exact = fitted
    # With an exact KL, log p(x|z) alone is drawn: the mean over draws tends to log p(x).
    eps = noise(4000)
    bound = torch.stack([elbo(vae, x, part).bound for part in eps.split(500)]).mean(0)
    assert (bound - exact).mean().abs().item() < 0.01
    # Mirrored and orthonormal draws integrate the quadratic log p(x|z) exactly.
    exactly = math.sqrt(D) * torch.cat([torch.eye(D), -torch.eye(D)]).double()
    bound = elbo(vae, x, exactly.unsqueeze(1).expand(-1, N, -1)).bound
    torch.testing.assert_close(bound, exact, rtol=0, atol=1e-4)


def test_weights_with_analytic_divergences_are_no_bound(fitted):
    """log mean_k p(x|z_k) exp(-KL) lies above log p(x) at the true posterior."""
    vae, x, exact = fitted
    terms = [elbo(vae, x, eps) for eps in noise(500).split(1)]
    log_px = torch.stack([term.log_px for term in terms])
    claimed = log_px.logsumexp(0) - math.log(len(log_px)) - terms[0].kl
    assert (claimed > exact).all()
    assert (claimed - exact).mean().item() > 0.3


@pytest.mark.parametrize(("offset", "widening"), [(0.2, 0.0), (0.0, 0.7), (-0.1, -0.5)])
def test_elsewhere_the_bounds_are_below_by_the_divergence_and_rise_with_k(
    fitted, offset, widening, monkeypatch
):
    vae, x, exact = fitted
    true = vae.encode(x)
    monkeypatch.setattr(vae, "offset", offset)
    monkeypatch.setattr(vae, "widening", widening)
    q = vae.encode(x)
    ratio = (q.logvar - true.logvar).exp()
    square = (q.mu - true.mu) ** 2 / true.logvar.exp()
    gap = 0.5 * (ratio - 1 - ratio.log() + square).sum(1)
    exactly = math.sqrt(D) * torch.cat([torch.eye(D), -torch.eye(D)]).double()
    bound = elbo(vae, x, exactly.unsqueeze(1).expand(-1, N, -1)).bound
    torch.testing.assert_close(bound, exact - gap, rtol=0, atol=1e-4)
    assert (bound < exact).all()

    means = [
        torch.stack([
            importance_weighted_bound(vae, x, one) for one in noise(40 * k).view(40, k, N, D)
        ]).mean()
        for k in (1, 4, 16, 64)
    ]  # fmt: skip
    assert means[0].item() == pytest.approx(bound.mean().item(), abs=0.02)
    assert all(low < high for low, high in itertools.pairwise(means))
    assert means[-1] < exact.mean()


def test_kl_is_that_of_torch_and_of_its_draws():
    generator = torch.Generator().manual_seed(2)
    mu, logvar = torch.randn(2, 5, 3, generator=generator, dtype=torch.double)
    q, prior = DiagonalGaussian(mu, logvar), StandardNormal(3)
    normal = torch.distributions.Normal(mu, (logvar / 2).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mu), 1.0)
    exact = torch.distributions.kl_divergence(normal, standard).sum(1)
    torch.testing.assert_close(kl_divergence(q, prior), exact, rtol=1e-12, atol=1e-12)

    z = q.rsample(torch.randn(200_000, 5, 3, generator=generator, dtype=torch.double))
    drawn = q.log_prob(z) - prior.log_prob(z)
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - exact).abs() < 5 * error).all()


class PartialVAE(LinearVAE):
    """The same with the true posterior of an image of which pixels are missing.

    Each image has its own: N(M_o^-1 W_o^T (x_o - m_o), s M_o^-1), W_o the rows of what is observed.
    """

    def encode(self, x):
        there = self.observed.flatten(1).double()
        weight = self.weight.detach()
        gram = torch.einsum("bp,pd,pe->bde", there, weight, weight)
        inverse = torch.linalg.inv(gram + self.variance * torch.eye(D, dtype=x.dtype))
        seen = (there * (x.flatten(1) - self.mean)) @ weight
        mu = torch.einsum("bde,be->bd", inverse, seen)
        scale = torch.linalg.cholesky(self.variance * inverse)
        diagonal = scale.diagonal(dim1=1, dim2=2)
        lower = (scale / diagonal.unsqueeze(1))[:, *torch.tril_indices(D, D, -1)]
        return FullGaussian(mu + self.offset, 2 * diagonal.log(), lower)


@pytest.fixture(scope="module")
def partly_seen(fitted):
    """The model, images with other pixels missing of each, and log p of what is observed."""
    vae, x, _ = fitted
    observed = torch.rand(N, PIXELS, generator=torch.Generator().manual_seed(4)) < 0.6
    observed[:, 0] = True
    weight = vae.weight.detach()
    covariance = weight @ weight.T + vae.variance * torch.eye(PIXELS, dtype=torch.double)
    exact = torch.stack([
        torch.distributions.MultivariateNormal(
            vae.mean[there], covariance[there][:, there]
        ).log_prob(image[there])
        for image, there in zip(x.flatten(1), observed, strict=True)
    ])  # fmt: skip
    partial = PartialVAE(weight, vae.mean, vae.variance)
    return partial.observing(observed.view(N, 1, SIDE, SIDE)), x, exact


def test_of_missing_pixels_the_bound_is_that_of_the_observed_ones(partly_seen):
    vae, x, exact = partly_seen
    for draws in (1, 7):
        bound = importance_weighted_bound(vae, x, noise(draws))
        torch.testing.assert_close(bound, exact, rtol=0, atol=1e-4)
    exactly = math.sqrt(D) * torch.cat([torch.eye(D), -torch.eye(D)]).double()
    bound = elbo(vae, x, exactly.unsqueeze(1).expand(-1, N, -1)).bound
    torch.testing.assert_close(bound, exact, rtol=0, atol=1e-4)


def test_of_missing_pixels_the_bound_is_below_elsewhere_and_their_values_do_not_matter(
    partly_seen, monkeypatch
):
    vae, x, exact = partly_seen
    monkeypatch.setattr(vae, "offset", 0.2)
    some = importance_weighted_bound(vae, x, noise(3))
    other = torch.where(vae.observed, x, torch.rand_like(x))
    assert some.mean() < exact.mean()
    assert torch.equal(importance_weighted_bound(vae, other, noise(3)), some)


class CurvedVAE(LinearVAE):
    """A decoder that bends: log p(x) has no closed form, but D = 2 can be integrated."""

    def decode(self, z):
        return super().decode(z + 0.1 * torch.sin(2 * z.flip(-1)))


def test_a_bent_models_log_p_is_that_of_quadrature(fitted):
    vae, x, _ = fitted
    bent, some = CurvedVAE(vae.weight.detach(), vae.mean, vae.variance), x[:8]
    bent.widening = 1.0  # the proposals reach where the bend has moved the posterior
    axis = torch.linspace(-6, 6, 601, dtype=torch.double)
    grid = torch.cartesian_prod(axis, axis)
    step = 2 * math.log(12 / 600)
    joint = [
        (bent.decode(part.unsqueeze(1)).log_prob(some) + bent.prior.log_prob(part).unsqueeze(1))
        for part in grid.split(100_000)
    ]
    exact = torch.cat(joint).logsumexp(0) + step
    bound = importance_weighted_bound(bent, some, noise(150_000, 8))
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.01)
    assert (elbo(bent, some, noise(2000, 8)).bound.mean() < exact.mean()).item()


def test_reparameterised_gradients_are_those_of_finite_differences(fitted):
    vae, x, _ = fitted
    some, eps = x[:5], noise(3, 5)
    for bound in (lambda: elbo(vae, some, eps).bound.sum(),
                  lambda: importance_weighted_bound(vae, some, eps).sum()):  # fmt: skip
        (gradient,) = torch.autograd.grad(bound(), vae.weight)
        for place in ((0, 0), (4, 1)):
            ends = []
            for change in (1e-6, -1e-6):
                vae.weight.data[place] += change
                ends.append(bound().item())
                vae.weight.data[place] -= change
            assert gradient[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_an_image_scores_the_same_alone_and_in_company(tiny_model):
    from convvae.model.vae import VAE

    vae = VAE(tiny_model)
    images = torch.randint(
        256, (30, 1, 12, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    for score in (
        lambda some, seed=1: importance_bounds(vae, some, samples=60, seed=seed),
        lambda some, seed=1: image_terms(vae, some, seed=seed, mc_samples=2).bound,
    ):
        together = score(images)
        alone = torch.cat([score(images[i : i + 1]) for i in (0, 17, 29)])
        torch.testing.assert_close(alone, together[[0, 17, 29]], rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(score(images.flip(0)).flip(0), together, rtol=1e-6, atol=1e-4)
        assert not torch.equal(score(images, seed=2), together)


def offset_gradients(fitted, objective, offset, draws, repeats):
    """The gradient by a shift of the posterior's mean, one a repeat: [repeats, D]."""
    vae, x, _ = fitted
    one = x[:1].expand(repeats, -1, -1, -1)
    shift = torch.full((repeats, D), offset, dtype=torch.double, requires_grad=True)
    shifted = LinearVAE(vae.weight.detach(), vae.mean, vae.variance)
    shifted.offset = shift
    made = draw(shifted, one, noise(draws, repeats))
    return torch.autograd.grad(objective(shifted, made) * repeats, shift)[0]


def test_the_doubly_reparameterised_gradient_vanishes_at_the_true_posterior(fitted):
    assert offset_gradients(fitted, dreg_loss, 0.0, 5, 50).abs().max() < 1e-9
    assert offset_gradients(fitted, weighted_loss, 0.0, 5, 50).abs().max() > 0.1


@pytest.mark.parametrize("draws", [1, 5])
def test_both_gradients_of_the_weighted_bound_have_the_same_mean(fitted, draws):
    found = [
        offset_gradients(fitted, objective, 0.1, draws, 20_000)
        for objective in (weighted_loss, dreg_loss)
    ]
    error = sum((one.var(0) / len(one)).sqrt() for one in found)
    assert ((found[0].mean(0) - found[1].mean(0)).abs() < 5 * error).all()
    assert (found[1].std(0) < found[0].std(0)).all()


def test_both_losses_have_the_value_of_the_bound_and_the_same_decoder_gradient(fitted):
    vae, x, _ = fitted
    eps = noise(6, 9)
    expected = -importance_weighted_bound(vae, x[:9], eps).mean()
    for objective in (weighted_loss, dreg_loss):
        torch.testing.assert_close(objective(vae, draw(vae, x[:9], eps)), expected)

    # A decoder of its own, so that its gradient can be told from the encoder's.
    gradients = []
    for objective in (weighted_loss, dreg_loss):
        decoding = vae.weight.detach().clone().requires_grad_()
        made = draw(vae, x[:9], eps)
        mean = (made.z @ decoding.T + vae.mean).unflatten(-1, (1, SIDE, SIDE))
        made = made._replace(log_px=Gaussian(mean, vae.variance).log_prob(x[:9]))
        gradients.append(torch.autograd.grad(objective(vae, made), decoding)[0])
    torch.testing.assert_close(*gradients)


def test_free_bits_cost_a_latent_nothing_below_its_share(fitted):
    vae, x, _ = fitted
    made = draw(vae, x, noise(2))
    each = kl_per_latent(made.q, vae.prior).mean(0)
    low, high = 0.5 * each.min().item(), each.mean().item()
    plain = loss(made.terms, 0.7)
    torch.testing.assert_close(free_bits_loss(vae, made, 0.7, low), plain)
    expected = 0.7 * each.clamp_min(high).sum() - made.log_px.mean()
    torch.testing.assert_close(free_bits_loss(vae, made, 0.7, high), expected)


@pytest.mark.parametrize(
    ("offset", "widening", "zeros"), [(0.0, 0.0, False), (0.1, 0.8, False), (0.1, 0.0, True)]
)
def test_missing_pixels_have_their_conditional_mean_and_covariance(
    fitted, offset, widening, zeros, monkeypatch
):
    """Also by a posterior that is wrong: the acceptance makes good for it.

    With zeros, by that of the observed pixels.
    """
    vae, x, _ = fitted
    vae = PartialVAE(vae.weight.detach(), vae.mean, vae.variance) if zeros else vae
    monkeypatch.setattr(vae, "offset", offset)
    monkeypatch.setattr(vae, "widening", widening)
    chains_each, missing = 1500, torch.tensor([0, 4, 5])
    seen = torch.tensor([place for place in range(PIXELS) if place not in missing])
    observed = torch.ones(PIXELS, dtype=torch.bool)
    observed[missing] = False
    weight = vae.weight.detach()
    covariance = weight @ weight.T + vae.variance * torch.eye(PIXELS, dtype=torch.double)
    gain = covariance[missing][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
    exact_covariance = covariance[missing][:, missing] - gain @ covariance[seen][:, missing]
    some = x[:2].repeat_interleave(chains_each, 0)
    flat = x[:2].flatten(1)
    exact = vae.mean[missing] + (flat[:, seen] - vae.mean[seen]) @ gain.T

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        there = observed.view(1, 1, SIDE, SIDE)
        steps = chains(vae, some, there, 80, generator, zeros=zeros)
        last = list(steps)[-1]
    assert bool(last.accepted.all()) == (not offset)
    for place in range(2):
        rows = slice(place * chains_each, (place + 1) * chains_each)
        drawn = last.x[rows].flatten(1)
        assert torch.equal(drawn[:, seen], flat[place, seen].expand(chains_each, -1))
        found = drawn[:, missing]
        error = (exact_covariance.diagonal() / chains_each).sqrt()
        assert ((found.mean(0) - exact[place]).abs() < 4 * error).all()
        sizes = exact_covariance.diagonal().sqrt()
        bound = 5 * sizes.outer(sizes) * (2 / chains_each) ** 0.5
        assert ((torch.cov(found.T) - exact_covariance).abs() < bound).all()


def test_pixels_that_depend_on_each_other_are_not_completed(tiny_model):
    vae = VAE(tiny_model.model_copy(update={"likelihood": "bernoulli-interleaved"})).eval()
    images, seen = torch.zeros(2, 1, 12, 10, dtype=torch.uint8), torch.ones(2, 1, 12, 10) > 0
    with pytest.raises(ConfigError, match="scores whole images only"):
        impute(vae, images, seen, completions=1, steps=2, seed=0)


def test_noise_is_taken_away_as_the_model_says(fitted):
    vae, x, _ = fitted
    variance, y = 2 * vae.variance, x[:5]
    weight = vae.weight.detach()
    inner = torch.linalg.inv(weight.T @ weight + variance * torch.eye(D, dtype=torch.double))
    exact = vae.mean + (y.flatten(1) - vae.mean) @ weight @ inner @ weight.T
    spread = variance**0.5 * (weight @ inner @ weight.T).diagonal().sqrt()
    with torch.no_grad():
        found = denoise_batch(vae, y, noise(8_000, 5), variance**0.5)
    error = 5 * spread / found.effective.min() ** 0.5
    assert found.effective.min() > 1_000
    assert ((found.mean.flatten(1) - exact).abs() < error).all()
    torch.testing.assert_close(found.spread.flatten(1), spread.expand(5, -1), rtol=0.1, atol=0)
