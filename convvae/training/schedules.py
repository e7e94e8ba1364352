"""What changes from step to step: the learning rate, the weight of the KL, its capacity."""

from __future__ import annotations

import math
from typing import NamedTuple

from convvae.config import TrainConfig

WARM_UP_SHARE = 0.3
"""Share of a one-cycle schedule in which the learning rate rises."""
START_DIVISOR = 25.0
"""A one-cycle schedule starts at its peak learning rate divided by this."""
CYCLES = 4
"""Rises of the weight of the KL term in a cyclical schedule."""


def learning_rate(config: TrainConfig, progress: float) -> float:
    r"""The learning rate after a share `progress` of the run's images.

    `constant` stays at the peak; `cosine` falls as (1 + cos(pi progress)) / 2; `one-cycle` rises
    in a straight line from peak / 25 over the first 30% and falls by the cosine after it.

    Source: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983; Smith & Topin 2018,
    https://arxiv.org/abs/1708.07120
    """
    match config.schedule:
        case "constant":
            factor = 1.0
        case "cosine":
            factor = _cosine(progress)
        case "one-cycle":
            start = 1 / START_DIVISOR
            rising = progress < WARM_UP_SHARE
            factor = (
                start + (1 - start) * progress / WARM_UP_SHARE
                if rising
                else _cosine((progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))
            )
    return config.lr * factor


def kl_weight(config: TrainConfig, images: int, progress: float) -> float:
    """The weight of the KL term after so many images, a share `progress` of the run's.

    `constant` is beta throughout; `linear` rises to it from 0 over `kl_warmup` images; `cyclical`
    does so in the first half of each quarter of the run.

    Source: Sonderby et al. 2016, https://arxiv.org/abs/1602.02282; Fu et al. 2019,
    https://arxiv.org/abs/1903.10145
    """
    match config.kl_schedule:
        case "constant":
            share = 1.0
        case "linear":
            share = images / config.kl_warmup
        case "cyclical":
            share = 2 * (CYCLES * progress % 1)
    return config.beta * min(1.0, share)


def kl_capacity(config: TrainConfig, images: int) -> float:
    """Nats that the KL is held at after so many images: up from 0 over `kl_warmup` of them.

    Source: Burgess et al. 2018, https://arxiv.org/abs/1804.03599
    """
    return (config.capacity or 0.0) * min(1.0, images / config.kl_warmup)


class StepSettings(NamedTuple):
    """What differs between steps, the images and their noise apart."""

    rate: float
    """Learning rate."""
    beta: float
    """Weight of the KL term."""
    images: int
    """Images seen before the step."""
    capacity: float = 0.0
    """Nats that the KL is held at, if the run has a capacity."""


def step_settings(config: TrainConfig, images: int, total_images: int) -> StepSettings:
    """The settings of the step after `images` of a run's `total_images`."""
    progress = images / total_images
    return StepSettings(
        learning_rate(config, progress),
        kl_weight(config, images, progress),
        images,
        kl_capacity(config, images),
    )


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
