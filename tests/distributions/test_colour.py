"""The likelihood of colour: it sums to 1 over the colours, and its channels know of each other."""

import itertools

import pytest
import torch

from convvae.distributions import HEADS
from convvae.distributions.colour import ColourLogistic
from convvae.distributions.likelihoods import LEVELS, DiscretizedLogistic

VALUES = torch.arange(LEVELS, dtype=torch.double) / (LEVELS - 1)
SCALES = [-6.0, -2.5, 1.0]


def colour(channels, log_scale, components=2, seed=0):
    """One pixel's mixture of chains with coefficients of up to 1, in float64."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, 1, 1, generator=draw, dtype=torch.double)

    return ColourLogistic(
        random(components) * 2,
        random(components, channels),
        log_scale + random(components, channels) - 0.5,
        2 * random(components, channels * (channels - 1) // 2) - 1,
    )


def moderate(p):
    """The same with locations and coefficients that reach neither black nor white."""
    return ColourLogistic(
        p.log_weights, 0.3 + 0.4 * p.locations, p.log_scales, 0.5 * p.coefficients
    )


def mass(p, colours):
    """P of colours [N, C]."""
    return p.log_prob(colours.view(*colours.shape, 1, 1)).exp()


def first(p, channels):
    """The likelihood of the first channels alone: a chain's end sums to 1 by itself."""
    pairs = channels * (channels - 1) // 2
    return ColourLogistic(
        p.log_weights,
        p.locations[:, :channels],
        p.log_scales[:, :channels],
        p.coefficients[:, :pairs],
    )


@pytest.mark.parametrize("log_scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2])
def test_it_sums_to_one_over_all_colours(channels, log_scale):
    colours = torch.cartesian_prod(*[VALUES] * channels).view(-1, channels)
    assert len(colours) == LEVELS**channels
    assert mass(colour(channels, log_scale), colours).sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("log_scale", SCALES)
@pytest.mark.parametrize("channels", [3, 4])
def test_the_last_channel_sums_to_what_those_before_it_have(channels, log_scale):
    """With the sum over two channels above, the sum over all colours of three and four is 1."""
    p = colour(channels, log_scale)
    draw = torch.Generator().manual_seed(1)
    known = VALUES[torch.randint(LEVELS, (40, channels - 1), generator=draw)]
    whole = torch.cat(
        [known.repeat_interleave(LEVELS, 0), VALUES.repeat(len(known)).unsqueeze(1)], 1
    )
    found = mass(p, whole).view(len(known), LEVELS).sum(1)
    torch.testing.assert_close(found, mass(first(p, channels - 1), known), rtol=1e-9, atol=1e-300)


def test_draws_have_the_frequencies_of_their_probabilities():
    p = colour(2, -6.0)
    several = ColourLogistic(
        *(part.expand(*part.shape[:-2], 200, 200)
          for part in (p.log_weights, p.locations, p.log_scales, p.coefficients))
    )  # fmt: skip
    drawn = several.sample(torch.Generator().manual_seed(0)).flatten(1).T
    levels = (drawn * (LEVELS - 1)).round().long()
    torch.testing.assert_close(drawn, levels.to(drawn) / (LEVELS - 1))
    expected = mass(p, torch.cartesian_prod(VALUES, VALUES)) * len(drawn)
    counts = torch.bincount(levels[:, 0] * LEVELS + levels[:, 1], minlength=LEVELS**2)
    often = expected > 5
    assert often.sum() > 100
    z = (counts[often] - expected[often]) / expected[often].sqrt()
    assert z.abs().max() < 6
    assert z.square().mean().item() == pytest.approx(1, abs=6 * (2 / len(z)) ** 0.5)
    rare = expected[~often].sum().item()
    assert counts[~often].sum().item() == pytest.approx(rare, abs=6 * rare**0.5)


def test_the_mean_is_that_of_the_draws_and_of_the_probabilities():
    p = moderate(colour(2, -4.5, seed=3))
    colours = torch.cartesian_prod(VALUES, VALUES)
    exact = (mass(p, colours).unsqueeze(1) * colours).sum(0)
    torch.testing.assert_close(p.mean.flatten(), exact, rtol=0, atol=1e-5)
    many = moderate(colour(3, -4.5, seed=3))
    several = ColourLogistic(
        *(part.expand(*part.shape[:-2], 150, 150)
          for part in (many.log_weights, many.locations, many.log_scales, many.coefficients))
    )  # fmt: skip
    drawn = several.sample(torch.Generator().manual_seed(0)).flatten(1)
    error = drawn.std(1) / drawn.shape[1] ** 0.5
    assert ((drawn.mean(1) - many.mean.flatten()).abs() < 5 * error + 1e-5).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_values_and_gradients_are_finite_at_extreme_outputs(channels):
    head = HEADS["discretized-logistic-colour"](0.5)
    outputs = head.channels(channels)
    for size, value in itertools.product([1.0, 30.0, 1000.0], [0.0, 0.5, 1.0]):
        output = (size * torch.linspace(-1, 1, outputs)).view(-1, 1, 1).requires_grad_()
        x = torch.full((channels, 1, 1), round(value * 255) / 255)
        log_px = head(output).log_prob(x)
        (gradient,) = torch.autograd.grad(log_px, output)
        assert torch.isfinite(log_px)
        assert log_px <= 0
        assert torch.isfinite(gradient).all()


def test_a_channel_moves_those_after_it():
    one, zero = torch.tensor(1.0).view(1, 1, 1, 1), torch.zeros(1, 1, 1)
    half = torch.full((1, 3, 1, 1), 0.5)
    coefficients = torch.tensor([0.6, 0.0, -0.8]).view(1, 3, 1, 1)  # of 1 by 0, 2 by 0, 2 by 1
    p = ColourLogistic(zero, half, -5.0 * one.expand(1, 3, 1, 1), coefficients)

    def likeliest(*known):
        """The level of the channel after those known that is likeliest."""
        count = len(known) + 1
        before = torch.tensor(known).expand(LEVELS, -1)
        colours = torch.cat([before, VALUES.float().unsqueeze(1)], 1)
        log_px = first(p, count).log_prob(colours.view(LEVELS, count, 1, 1))
        return VALUES[log_px.argmax()].item()

    assert likeliest(0.5) == pytest.approx(0.5, abs=0.6 / 255)
    assert likeliest(1.0) == pytest.approx(0.8, abs=0.6 / 255)
    assert likeliest(0.0) == pytest.approx(0.2, abs=0.6 / 255)
    assert likeliest(0.0, 1.0) == pytest.approx(0.1, abs=0.6 / 255)
    assert likeliest(1.0, 1.0) == pytest.approx(0.1, abs=0.6 / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_chain_without_coefficients_is_the_logistic_of_each_channel(channels):
    p = colour(channels, -3.0, components=1)
    p.coefficients = torch.zeros_like(p.coefficients)
    locations, log_scales = (part.squeeze(0).unsqueeze(-1) for part in (p.locations, p.log_scales))
    plain = DiscretizedLogistic(torch.zeros_like(locations), locations, log_scales)
    draw = torch.Generator().manual_seed(2)
    x = VALUES[torch.randint(LEVELS, (20, channels, 1, 1), generator=draw)]
    torch.testing.assert_close(p.log_prob(x), plain.log_prob(x))
    torch.testing.assert_close(p.mean, plain.mean)
