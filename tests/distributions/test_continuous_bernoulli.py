"""The continuous Bernoulli in float32, as models compute it, against 120 digits and quadrature."""

import mpmath
import pytest
import torch

from convvae.distributions import HEADS, ContinuousBernoulli

mpmath.mp.dps = 120
SIZES = (1e-30, 1e-8, 1e-4, 1e-2, 0.3, 0.999, 1.0, 1.001, 3.0, 10.0, 16.7, 40.0, 100.0, 1000.0)
LOGITS = [0.0, *SIZES, *(-size for size in SIZES)]


def log_partition(l):
    """log of the integral of exp(x l) over [0, 1]."""
    return mpmath.log(mpmath.expm1(l) / l) if l else mpmath.mpf(0)


def exact_mean(l):
    return 1 / (1 - mpmath.exp(-l)) - 1 / l if l else mpmath.mpf("0.5")


def exactly(function, logits):
    """A function of 120 digits at float32 logits, in float64."""
    values = [float(function(mpmath.mpf(l))) for l in logits.flatten().tolist()]
    return torch.tensor(values, dtype=torch.double).view(logits.shape)


@pytest.fixture
def logits():
    """float32 logits, images of one pixel: [N, 1, 1, 1]."""
    return torch.tensor(LOGITS).view(-1, 1, 1, 1)


def test_log_prob_is_exact_at_every_logit(logits):
    for x in torch.tensor([0.0, 1e-3, 0.3, 0.5, 0.9, 1 - 2**-20, 1.0]):
        found = ContinuousBernoulli(logits).log_prob(x.view(1, 1, 1, 1))
        exact = exactly(lambda l, x=float(x): x * l - log_partition(l), logits)
        torch.testing.assert_close(found.double(), exact.flatten(), rtol=3e-7, atol=3e-7)


def test_the_mean_is_exact_at_every_logit(logits):
    found = ContinuousBernoulli(logits).mean
    torch.testing.assert_close(found.double(), exactly(exact_mean, logits), rtol=1e-6, atol=0)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("logit", [-1000.0, -100.0, -3.0, 0.0, 0.5, 30.0, 1000.0])
def test_the_density_integrates_to_one_in_float32(logit):
    # From the end at which the density is high, at places that are closer together there.
    steps = torch.cat([torch.zeros(1), torch.logspace(-8, 0, 40_001, dtype=torch.double)])
    x = (steps if logit < 0 else 1 - steps).float().view(-1, 1, 1, 1)
    density = ContinuousBernoulli(torch.full((1, 1, 1), logit)).log_prob(x).double().exp()
    area = torch.trapezoid(density, x.double().flatten()).abs()
    assert area.item() == pytest.approx(1.0, abs=1e-4)


def test_gradients_are_finite_and_exact_at_every_logit(logits):
    logits.requires_grad_()
    x = torch.full((1, 1, 1, 1), 0.25)
    (gradient,) = torch.autograd.grad(ContinuousBernoulli(logits).log_prob(x).sum(), logits)
    exact = 0.25 - exactly(exact_mean, logits.detach())
    torch.testing.assert_close(gradient.double(), exact, rtol=0, atol=5e-7)
    (variance,) = torch.autograd.grad(ContinuousBernoulli(logits).mean.sum(), logits)
    exact = exactly(
        lambda l: mpmath.diff(exact_mean, l) if abs(l) > 1e-3 else 1 / 12, logits.detach()
    )
    torch.testing.assert_close(variance.double(), exact, rtol=1e-4, atol=1e-6)


def test_the_series_are_long_enough_for_float64(logits):
    p = ContinuousBernoulli(logits.double())
    torch.testing.assert_close(p.mean, exactly(exact_mean, logits), rtol=1e-10, atol=0)
    exact = exactly(lambda l: l / 4 - log_partition(l), logits).flatten()
    found = p.log_prob(torch.full((1, 1, 1, 1), 0.25, dtype=torch.double))
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("logit", [-1000.0, -100.0, -2.0, 0.0, 1e-6, 5.0, 300.0])
def test_draws_have_the_moments_of_the_distribution(logit):
    count = 40_000
    p = ContinuousBernoulli(torch.full((1, 200, 200), logit))
    drawn = p.sample(torch.Generator().manual_seed(2)).double()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    l = mpmath.mpf(logit)
    mean = float(exact_mean(l))
    variance = float(mpmath.diff(exact_mean, l)) if abs(logit) > 1e-3 else 1 / 12
    assert drawn.mean().item() == pytest.approx(mean, abs=5 * (variance / count) ** 0.5)
    assert drawn.var().item() == pytest.approx(variance, rel=0.1)


def test_draws_are_the_quantiles_of_their_uniform_numbers(monkeypatch):
    u = 0.37
    monkeypatch.setattr(torch, "rand", lambda shape, generator=None: torch.full(shape, u))
    logits = torch.tensor(LOGITS).view(-1, 1, 1)
    exact = exactly(
        lambda l: (
            mpmath.log1p(mpmath.mpf(torch.tensor(u).item()) * mpmath.expm1(l)) / l if l else u
        ),
        logits,
    )
    found = ContinuousBernoulli(logits).sample()
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


def test_mixed_precision_reaches_neither_the_density_nor_its_gradient(logits):
    """Under autocast the network's output may be bfloat16; what is made of it stays float32."""
    head, x = HEADS["continuous-bernoulli"](0.5), torch.full((1, 1, 1, 1), 0.25)
    with torch.autocast("cpu", torch.bfloat16):
        output = logits.clone().requires_grad_()
        found = head(output).log_prob(x)
        (gradient,) = torch.autograd.grad(found.sum(), output)
    plain = ContinuousBernoulli(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain.log_prob(x), rtol=1e-6, atol=1e-6)
    exact = 0.25 - exactly(exact_mean, logits)
    torch.testing.assert_close(gradient.double(), exact, rtol=0, atol=5e-7)
