"""The mean of a rounded logistic against the plain sum over the 255 levels."""

import pytest
import torch

from convvae.distributions import HEADS
from convvae.distributions.rounded import LEVELS, rounded_mean

LOCATIONS = torch.cat([
    torch.linspace(0, 255, 511), torch.tensor([1e-6, 0.49, 0.51, 254.4, 254.6, 255 - 1e-4]),
    # Of a channel that another one has moved beyond black or white.
    torch.tensor([-200.0, -13.0, -2.5, -0.3, 255.3, 257.6, 270.0, 400.0]),
])  # fmt: skip


def plain_sum(location, scale):
    """sum_v s((m - v + 1/2) / b) over v = 1 to 255, in float64."""
    location, scale = location.double(), scale.double()
    return sum(torch.sigmoid((location - v + 0.5) / scale) for v in range(1, LEVELS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.double])
def test_the_mean_is_the_sum_over_the_levels_at_every_scale(dtype):
    scales = 255 * torch.linspace(-7, 3, 201).exp()
    edges = torch.tensor([0.999, 1.0, 1.001, 254.9, 255.0, 255.1])
    scale, location = torch.meshgrid(torch.cat([scales, edges]), LOCATIONS, indexing="ij")
    found = rounded_mean(location.to(dtype), scale.to(dtype))
    assert found.dtype == dtype
    error = (found.double() - plain_sum(location, scale)).abs().max() / (LEVELS - 1)
    assert error < (1e-6 if dtype == torch.float32 else 1e-7)


def test_its_gradient_is_finite_and_that_of_the_sum():
    location = LOCATIONS[::7].double().expand(9, -1).clone().requires_grad_()
    scale = torch.logspace(-0.6, 3.7, 9).double().unsqueeze(1).expand_as(location)
    (found,) = torch.autograd.grad(rounded_mean(location, scale).sum(), location)
    (exact,) = torch.autograd.grad(plain_sum(location, scale).sum(), location)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-4)


def test_a_mixtures_mean_takes_few_operations(monkeypatch):
    calls = []
    plain = torch.sigmoid
    monkeypatch.setattr(torch, "sigmoid", lambda x: calls.append(1) or plain(x))
    name = "discretized-logistic-mixture"
    mean = HEADS[name](0.5)(torch.randn(HEADS[name].channels(1), 4, 4)).mean
    assert mean.shape == (1, 4, 4)
    assert len(calls) < 40
