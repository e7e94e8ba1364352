"""Likelihoods of images of which pixels are missing."""

import pytest
import torch

from convvae.distributions import HEADS, Likelihood
from convvae.errors import ConfigError

CHANNELS = 3


WHOLE_IMAGES = "bernoulli-interleaved"
"""A pixel of it depends on others: what is missing cannot be left out."""


@pytest.fixture(params=[name for name in HEADS if name != WHOLE_IMAGES])
def head(request):
    """Every other likelihood, in evaluation mode."""
    return HEADS[request.param](0.3).eval()


def raw(head, batch=4):
    generator = torch.Generator().manual_seed(0)
    shape = (2, batch, head.channels(CHANNELS), 8, 9)
    return torch.randn(shape, generator=generator, dtype=torch.double)


def images(batch=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (batch, CHANNELS, 8, 9), generator=generator) / 255.0


def mask(batch=4):
    return torch.rand(batch, 1, 8, 9, generator=torch.Generator().manual_seed(2)) < 0.5


def test_values_sum_to_the_image(head):
    p, x = head(raw(head)), images()
    each = p.log_probs(x)
    assert each.shape[-2:] == (8, 9)
    torch.testing.assert_close(each.sum((-3, -2, -1)), p.log_prob(x))
    whole = torch.ones(4, 1, 8, 9, dtype=torch.bool)
    torch.testing.assert_close(p.log_prob_of(x, whole), p.log_prob(x))


def test_observed_pixels_alone_are_scored_and_alone_have_a_gradient(head):
    output, x, there = raw(head).requires_grad_(), images(), mask()
    found = head(output).log_prob_of(x, there)
    pixels = torch.where(there, head(output).log_probs(x), 0.0)
    torch.testing.assert_close(found, pixels.sum((-3, -2, -1)))
    other = torch.where(there, x, 1 - x)
    assert torch.equal(head(output).log_prob_of(other, there), found)
    (gradient,) = torch.autograd.grad(found.sum(), output)
    missing = ~there.expand(2, -1, output.shape[2], -1, -1)
    assert (gradient[missing] == 0).all()
    assert (gradient[~missing] != 0).any()


def test_parts_of_an_image_add_up(head):
    p, x, there = head(raw(head)), images(), mask()
    both = p.log_prob_of(x, there) + p.log_prob_of(x, ~there)
    torch.testing.assert_close(both, p.log_prob(x))


def test_the_optimal_variance_is_that_of_the_observed_pixels():
    head = HEADS["gaussian-optimal"](0.3).train()
    p, x, there = head(raw(head)), images(), mask()
    squares = (p.mean - x).square()[there.expand(2, 4, CHANNELS, 8, 9)]
    variance = p.optimal_variance(x, there)
    torch.testing.assert_close(variance, squares.mean())
    count = there.sum((1, 2, 3)) * CHANNELS
    error = torch.where(there, (p.mean - x).square(), 0.0).sum((-3, -2, -1))
    exact = -error / (2 * variance) - count / 2 * (2 * torch.pi * variance).log()
    torch.testing.assert_close(p.log_prob_of(x, there), exact)


def test_a_likelihood_that_scores_whole_images_only_says_so():
    class Whole(Likelihood):
        mean = torch.zeros(1, 1, 2, 2)

        def log_prob(self, x):
            return x.sum((-3, -2, -1))

        def sample(self, generator=None):
            return self.mean

    with pytest.raises(ConfigError, match=r"Whole scores whole images only.*the method log_probs"):
        Whole().log_prob_of(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool))


def test_pixels_that_depend_on_each_other_cannot_be_left_out():
    p = HEADS[WHOLE_IMAGES](0.3)(torch.zeros(1, HEADS[WHOLE_IMAGES].channels(1), 8, 9))
    with pytest.raises(ConfigError, match="scores whole images only"):
        p.log_prob_of(torch.zeros(1, 1, 8, 9), torch.ones(1, 1, 8, 9, dtype=torch.bool))
