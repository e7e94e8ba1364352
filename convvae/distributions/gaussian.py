"""What is known of Gaussians in closed form."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


Value = TypeVar("Value", Tensor, float)


def gaussian_log_density(square: Value, logvar: Tensor | float, count: int = 1) -> Value:
    r"""Logarithm of the density of Gaussian values, -1/2 (square + count (log 2 pi + logvar)).

    Args:
        square: Sum of (z - mu)^2 / exp(logvar) over the values, or that of each.
        logvar: Logarithm of their variance; 0 of the standard normal.
        count: Values that are summed over.

    Returns:
        Nats, in the shape of `square`.
    """
    return -0.5 * (count * (LOG_2PI + logvar) + square)


def normal_log_density(z: Tensor, mu: Tensor, std: Tensor) -> Tensor:
    """log N(z; mu, std^2) of every element, in nats."""
    return -0.5 * ((z - mu) / std).square() - std.log() - 0.5 * LOG_2PI


def normal_kl(mu_q: Tensor, std_q: Tensor, mu_p: Tensor, std_p: Tensor) -> Tensor:
    r"""KL(N(mu_q, std_q^2) || N(mu_p, std_p^2)) of every element, in nats.

    1/2 [(mu_q - mu_p)^2 + std_q^2] / std_p^2 - 1/2 - log(std_q / std_p)
    """
    square = (mu_q - mu_p).square() + std_q.square()
    return 0.5 * (square / std_p.square() - 1) - torch.log(std_q / std_p)
