import math
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.distributions import kl_divergence as torch_kl

import convvae
from convvae.distributions import (
    HEADS,
    Bernoulli,
    ConditionalFlow,
    DiagonalGaussian,
    FlowPrior,
    FullGaussian,
    Gaussian,
    LearnedMixture,
    StandardNormal,
    VampPrior,
    gaussian_log_prob,
    gaussian_squared_error,
    kl_divergence,
)
from convvae.errors import MissingExtraError


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


def made(name, raw, variance=0.3):
    """The likelihood called `name` around a raw output [channels(C), H, W], evaluating."""
    return HEADS[name](variance).eval()(raw)


@pytest.mark.parametrize("name", HEADS)
def test_likelihoods_by_name_reduce_the_pixels_and_keep_the_batch(name):
    raw = torch.randn(3, 5, HEADS[name].channels(2), 8, 9)
    p = made(name, raw)
    x = torch.randint(256, (5, 2, 8, 9)) / 255
    assert p.log_prob(x).shape == (3, 5)
    assert torch.isfinite(p.log_prob(x)).all()
    assert p.mean.shape == (3, 5, 2, 8, 9)
    assert p.mean.min() > 0
    assert p.mean.max() < 1
    assert p.sample(torch.Generator().manual_seed(0)).shape == (3, 5, 2, 8, 9)


DENSITIES = ["gaussian", "gaussian-learned", "gaussian-optimal", "laplace"]
MASSES = [f"discretized-logistic{kind}" for kind in ("", "-mixture", "-colour")]


@pytest.mark.parametrize("logit", [-6.0, -1e-4, 0.0, 0.7, 5.0])
@pytest.mark.parametrize("name", [*DENSITIES, "continuous-bernoulli"])
def test_densities_integrate_to_one_and_have_their_mean(name, logit):
    p = made(name, torch.full((1, 1, 1), logit, dtype=torch.double))
    ends = (0.0, 1.0) if name == "continuous-bernoulli" else (-20.0, 21.0)
    x = torch.linspace(*ends, 400_001, dtype=torch.double).view(-1, 1, 1, 1)
    density = p.log_prob(x).exp()
    assert torch.trapezoid(density, x.flatten()).item() == pytest.approx(1.0, abs=1e-5)
    mean = torch.trapezoid(density * x.flatten(), x.flatten()).item()
    assert p.mean.item() == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize("name", MASSES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0])
def test_masses_sum_to_one_over_the_levels_and_have_their_mean(name, scale):
    generator = torch.Generator().manual_seed(3)
    raw = scale * torch.randn(
        HEADS[name].channels(1), 1, 1, generator=generator, dtype=torch.double
    )
    p = made(name, raw)
    x = (torch.arange(256, dtype=torch.double) / 255).view(-1, 1, 1, 1)
    mass = p.log_prob(x).exp()
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-9)
    assert p.mean.item() == pytest.approx((mass * x.flatten()).sum().item(), abs=1e-9)


@pytest.mark.parametrize("name", HEADS)
def test_samples_have_the_mean_of_their_distribution(name):
    raw = torch.linspace(-2, 2, HEADS[name].channels(1)).view(-1, 1, 1).expand(-1, 200, 200)
    p = made(name, raw)
    drawn = p.sample(torch.Generator().manual_seed(1))
    error = drawn.std().item() / 200
    assert drawn.mean().item() == pytest.approx(p.mean.mean().item(), abs=5 * error + 1e-4)
    if name in MASSES:
        assert ((drawn * 255).round() / 255 == drawn).all()


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("name", HEADS)
def test_samples_are_finite_at_both_ends_of_the_uniform_draws(name, u, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, generator=None: torch.full(shape, u))
    logits = torch.tensor([-1000.0, -60.0, -1.0, 0.0, 1.0, 60.0, 1000.0])
    drawn = made(name, logits.expand(HEADS[name].channels(1), 1, 7)).sample()
    assert torch.isfinite(drawn).all()
    if name not in DENSITIES:
        assert drawn.min() >= 0
        assert drawn.max() <= 1


def test_colour_channels_keep_their_own_parameters():
    raw = torch.zeros(6, 1, 1)
    raw[0], raw[1], raw[2] = -4.0, 0.0, 4.0
    mean = made("discretized-logistic", raw).mean.flatten().tolist()
    assert mean == sorted(mean)
    assert mean[1] == pytest.approx(0.5, abs=1e-4)


def test_a_learned_variance_is_a_parameter_and_an_optimal_one_follows_the_error():
    learned = HEADS["gaussian-learned"](0.3)
    assert [p.shape for p in learned.parameters()] == [()]
    optimal, x = HEADS["gaussian-optimal"](0.3).train(), torch.rand(4, 1, 6, 6)
    raw = torch.zeros(4, 1, 6, 6, requires_grad=True)
    p = optimal(raw)
    best = p.log_prob(x).sum()
    error = (x - 0.5).square().mean().item()
    assert p.optimal_variance(x).item() == pytest.approx(error)
    for variance in (0.9 * error, 1.1 * error):
        assert Gaussian(torch.full_like(x, 0.5), variance).log_prob(x).sum() < best
    # The gradient is that of -n/2 log(mean squared error), whose optimum is taken out.
    (gradient,) = torch.autograd.grad(best, raw)
    whole = -0.5 * x.numel() * (x - raw.sigmoid()).square().mean().log()
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, raw)[0])
    assert optimal.variance.item() == pytest.approx(0.3)  # to score is not to learn
    optimal.keep(p.optimal_variance(x))
    assert optimal.variance.item() == pytest.approx(0.9 * 0.3 + 0.1 * error)
    assert optimal.eval()(raw).variance is optimal.variance


@pytest.fixture
def full():
    mu, logvar = torch.randn(2, 5, 3).double()
    return FullGaussian(mu, logvar, torch.randn(5, 3).double())


def test_a_full_gaussian_is_that_of_torch(full):
    theirs = MultivariateNormal(full.mu, scale_tril=full.scale_tril)
    z = torch.randn(7, 5, 3).double()
    torch.testing.assert_close(full.log_prob(z), theirs.log_prob(z))
    standard = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    torch.testing.assert_close(kl_divergence(full, StandardNormal(3)), torch_kl(theirs, standard))
    eps = torch.randn(2, 5, 3).double()
    expected = full.mu + torch.einsum("bij,kbj->kbi", full.scale_tril, eps)
    torch.testing.assert_close(full.rsample(eps), expected)


def test_a_full_gaussian_without_correlations_is_the_diagonal_one(q):
    plain = FullGaussian(q.mu, q.logvar, torch.zeros(5, 3).double())
    z = torch.randn(4, 5, 3).double()
    torch.testing.assert_close(plain.log_prob(z), q.log_prob(z))
    ours, theirs = (kl_divergence(one, StandardNormal(3)) for one in (plain, q))
    torch.testing.assert_close(ours, theirs)


def encode(images):
    mu = images.flatten(1)[:, :2] * 4
    return mu, torch.full_like(mu, -0.5)


def priors():
    vamp = VampPrior(2, 3, (1, 2, 2), encode)
    return [LearnedMixture(2, 4), vamp, StandardNormal(2), FlowPrior(2)]


@pytest.mark.parametrize("prior", priors(), ids=lambda prior: type(prior).__name__)
def test_priors_integrate_to_one_and_draw_what_they_say(prior):
    axis = torch.linspace(-9, 9, 301)
    grid = torch.cartesian_prod(axis, axis)
    mass = prior.log_prob(grid).exp() * (18 / 300) ** 2
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-3)
    drawn = prior.sample(40_000, torch.Generator().manual_seed(0))
    mean = (mass.unsqueeze(1) * grid).sum(0)
    torch.testing.assert_close(drawn.mean(0), mean.detach(), rtol=0, atol=0.05)


def test_the_divergence_from_a_learned_prior_is_the_mean_over_the_draws(q):
    prior = LearnedMixture(3, 4).double()
    z = q.rsample(torch.randn(6, 5, 3).double())
    expected = (q.log_prob(z) - prior.log_prob(z)).mean(0)
    torch.testing.assert_close(kl_divergence(q, prior, z), expected)
    with pytest.raises(ValueError, match="needs draws"):
        kl_divergence(q, prior)


@pytest.fixture
def bent():
    """A flow posterior of two latents, over one image, whose flow is far from the identity."""
    flow = ConditionalFlow(2)
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return flow(DiagonalGaussian(torch.tensor([[0.3, -0.5]]), torch.tensor([[-0.4, 0.2]])))


def test_a_flow_posterior_integrates_to_one_and_is_what_its_draws_say(bent):
    axis = torch.linspace(-12, 12, 481)
    grid = torch.cartesian_prod(axis, axis).unsqueeze(1)
    with torch.no_grad():
        mass = bent.log_prob(grid).exp() * (24 / 480) ** 2
        drawn = bent.rsample(torch.randn(40_000, 1, 2))
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-3)
    mean = (mass.unsqueeze(-1) * grid).sum(0)
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.05)
    assert (drawn.mean(0) - bent.base.mean).abs().max() > 0.05


def test_a_flow_posteriors_location_is_where_its_gaussians_mean_goes_and_not_its_mean(bent):
    with torch.no_grad():
        drawn = bent.rsample(torch.randn(40_000, 1, 2))
        torch.testing.assert_close(bent.location, bent.rsample(torch.zeros(1, 2)))
    assert not hasattr(bent, "mean")
    assert (drawn.mean(0) - bent.location).abs().max() > 5 * drawn.std(0).max() / 200


def test_the_location_of_a_gaussian_is_its_mean(q, full):
    for gaussian in (q, full):
        assert gaussian.location is gaussian.mean is gaussian.mu


def test_a_flow_posteriors_density_follows_from_its_jacobian(bent):
    eps = torch.randn(2)
    z0 = bent.base.mean[0] + (0.5 * bent.base.logvar[0]).exp() * eps
    jacobian = torch.autograd.functional.jacobian(
        lambda noise: bent.rsample(noise.view(1, 1, 2)).flatten(), eps
    )
    z = bent.rsample(eps.view(1, 1, 2))
    expected = StandardNormal(2).log_prob(eps) - jacobian.det().abs().log()
    torch.testing.assert_close(bent.log_prob(z).squeeze(), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(z.flatten(), z0)


@pytest.mark.parametrize("part", [FlowPrior, ConditionalFlow])
def test_flows_without_their_library_say_which_extra_brings_it(part, monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'convvae\[flows\]'"):
        part(2)


def test_the_gaussian_density_is_written_once():
    rooms = Path(convvae.__file__).parent
    places = [path.name for path in rooms.rglob("*.py") if "2 * math.pi" in path.read_text()]
    assert places == ["gaussian.py"]
