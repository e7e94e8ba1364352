"""Four interleaved binary images: a mass over all images, each seeing only those before it."""

import pytest
import torch
from torch import nn

from convvae.distributions import HEADS, Bernoulli

HEAD = HEADS["bernoulli-interleaved"]


def head(seed=0):
    """A head whose steps do see each other, in float64."""
    torch.manual_seed(seed)
    made = HEAD(0.5).double()
    nn.init.normal_(made.last.weight, std=1.0)
    return made


def raw(*shape, channels=1, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(
        *shape[:-2], HEAD.channels(channels), *shape[-2:], generator=draw, dtype=torch.double
    )


def all_images(height, width):
    """Every binary image of a size, [2^(H W), 1, H, W]."""
    count = height * width
    return (torch.arange(2**count)[:, None] >> torch.arange(count) & 1).double().view(
        -1, 1, height, width
    )  # fmt: skip


@pytest.mark.parametrize(("height", "width"), [(2, 4), (4, 2), (3, 3), (1, 5)])
def test_it_sums_to_one_over_all_images(height, width):
    p = head()(raw(height, width))
    assert p.log_prob(all_images(height, width)).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_it_is_no_product_of_pixels():
    """Else the sum above would say nothing of the steps."""
    images = all_images(2, 4)
    p = head()(raw(2, 4)).log_prob(images).exp()
    means = (p[:, None, None, None] * images).sum(0)
    product = Bernoulli(torch.logit(means)).log_prob(images).exp()
    assert (p - product).abs().max() > 0.1 * p.max()


def test_at_the_start_it_is_a_bernoulli_of_the_first_channels():
    output = raw(3, 5, 7, channels=2).float()
    x = (torch.rand(3, 2, 5, 7, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    p = HEAD(0.5)(output)
    torch.testing.assert_close(p.log_prob(x), Bernoulli(output[:, :2]).log_prob(x))
    torch.testing.assert_close(p.mean, torch.sigmoid(output[:, :2]))


def test_the_draws_have_the_probabilities():
    count, images = 4_000, all_images(2, 3)
    p = head()(raw(2, 3).expand(count, -1, -1, -1))
    drawn = p.sample(torch.Generator().manual_seed(0))
    places = (drawn.flatten(1).long() << torch.arange(6)).sum(1)
    expected = head()(raw(2, 3)).log_prob(images).exp() * count
    counts = torch.bincount(places, minlength=64)
    z = (counts - expected) / expected.sqrt().clamp_min(1)
    assert z.abs().max() < 6


def test_the_mean_of_the_first_image_is_exact():
    images = all_images(2, 4)
    p = head()(raw(2, 4))
    exact = (p.log_prob(images).exp()[:, None, None, None] * images).sum(0)
    torch.testing.assert_close(p.mean[..., ::2, ::2], exact[..., ::2, ::2])
    assert p.mean.min() >= 0
    assert p.mean.max() <= 1


def test_an_image_is_scored_alike_alone_and_among_draws():
    made, output = head(), raw(3, 2, 6, 6, channels=3)
    x = (torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(3)) < 0.5).double()
    together = made(output).log_prob(x)
    assert together.shape == (3, 2)
    for draw in range(3):
        for place in range(2):
            alone = made(output[draw, place]).log_prob(x[place])
            torch.testing.assert_close(together[draw, place], alone)


def test_gradients_are_those_of_differences():
    made, output = head(), raw(1, 4, 4).requires_grad_()
    x = (torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(4)) < 0.5).double()
    assert torch.autograd.gradcheck(lambda output: made(output).log_prob(x), (output,))
