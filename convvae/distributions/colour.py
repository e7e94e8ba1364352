"""A likelihood of colour: the channels of a pixel know of each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from convvae.distributions.likelihoods import (
    COMPONENTS,
    LEVELS,
    LOG_SCALE_RANGE,
    START_LOG_SCALE,
    Head,
    Likelihood,
    logistic_mass,
    logistic_mean,
    uniform,
)


class ColourLogistic(Likelihood):
    r"""A probability for each of the 256^C colours of a pixel: a mixture of chains of logistics.

    P(v) = sum_k w_k prod_c P(v_c; m_kc(v), b_kc), one weight for all channels of a pixel, each
    factor a logistic integrated over the bin of its level as in `DiscretizedLogistic`, and the
    location of a channel moved by the channels before it:
    m_kc(v) = m_kc + sum_{i<c} a_kci (x_i - 1/2), x = v / 255. It sums to 1 over the colours.

    Args:
        logits: Of the weights w, shape [..., M, H, W].
        locations: m, in units of intensity, shape [..., M, C, H, W].
        log_scales: log b, the same shape.
        coefficients: a, shape [..., M, C (C - 1) / 2, H, W]: of channel 1 by 0, 2 by 0, 2 by 1, ...

    Source: Salimans et al. 2017, https://arxiv.org/abs/1701.05517
    """

    def __init__(
        self, logits: Tensor, locations: Tensor, log_scales: Tensor, coefficients: Tensor
    ) -> None:
        self.log_weights = logits.log_softmax(-3)
        self.locations = locations
        self.log_scales = log_scales.clamp(*LOG_SCALE_RANGE)
        self.coefficients = coefficients

    @property
    def mean(self) -> Tensor:
        """E[x|z], shape [..., C, H, W]; a channel moves those after it by its mean.

        Exact but where a logistic reaches beyond black or white, and so is cut off.
        """
        known: list[Tensor] = []
        for channel in range(self.locations.shape[-3]):
            location = self._location(channel, known)
            known.append(logistic_mean(location, self.log_scales[..., channel, :, :]))
        means = torch.stack(known, -3)
        return (self.log_weights.exp().unsqueeze(-3) * means).sum(-4)

    def log_prob(self, x: Tensor) -> Tensor:
        """log P(x|z) in nats, shape [...]; x in whole levels."""
        return self.log_probs(x).sum((-3, -2, -1))

    def log_probs(self, x: Tensor) -> Tensor:
        """log P of every pixel, nats, shape [..., 1, H, W]."""
        known = [channel.unsqueeze(-3) for channel in x.unbind(-3)]
        each: list[Tensor] = []
        for channel, value in enumerate(known):
            location = self._location(channel, known)
            each.append(logistic_mass(value, location, self.log_scales[..., channel, :, :]))
        return (self.log_weights + torch.stack(each).sum(0)).logsumexp(-3, keepdim=True)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x in whole levels on the CPU, shape [..., C, H, W]."""
        log_weights = self.log_weights.cpu()
        gumbel = -torch.log(-torch.log(uniform(log_weights, generator)))
        one_hot = F.one_hot((log_weights + gumbel).argmax(-3), log_weights.shape[-3])
        chosen = one_hot.movedim(-1, -3).unsqueeze(-3)

        def pick(values: Tensor) -> Tensor:
            return (values.cpu() * chosen).sum(-4, keepdim=True)

        p = ColourLogistic(
            torch.zeros_like(log_weights[..., :1, :, :]),
            pick(self.locations),
            pick(self.log_scales),
            pick(self.coefficients),
        )
        known: list[Tensor] = []
        for channel in range(self.locations.shape[-3]):
            location = p._location(channel, known)
            noise = torch.logit(uniform(location, generator))
            value = location + p.log_scales[..., channel, :, :].exp() * noise
            known.append((value.clamp(0, 1) * (LEVELS - 1)).round() / (LEVELS - 1))
        return torch.cat(known, -3)

    def _location(self, channel: int, known: list[Tensor]) -> Tensor:
        """Locations of a channel's logistics, the channels before it known; [..., M, H, W]."""
        location, first = self.locations[..., channel, :, :], channel * (channel - 1) // 2
        for before in range(channel):
            by = self.coefficients[..., first + before, :, :]
            location = location + by * (known[before] - 0.5)
        return location


class ColourHead(Head):
    """Raw output, ordered (location, log-scale, coefficient, weight) x component, -> likelihood.

    The locations are logits, the coefficients hyperbolic tangents.
    """

    is_mass = True

    @classmethod
    def channels(cls, channels: int) -> int:
        """Channels of the raw output for images of so many."""
        return COMPONENTS * (2 * channels + channels * (channels - 1) // 2 + 1)

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""
        channels = next(c for c in range(1, 5) if self.channels(c) == output.shape[-3])
        pairs = channels * (channels - 1) // 2
        sizes = [COMPONENTS * size for size in (channels, channels, pairs, 1)]
        locations, log_scales, coefficients, logits = (
            part.unflatten(-3, (COMPONENTS, size // COMPONENTS))
            for part, size in zip(output.split(sizes, -3), sizes, strict=True)
        )
        return ColourLogistic(
            logits.squeeze(-3),
            locations.sigmoid(),
            log_scales + START_LOG_SCALE,
            coefficients.tanh(),
        )
