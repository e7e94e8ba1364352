"""Muon: steps along the orthogonalised momentum of every filter bank and matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
"""Share of the running mean of the gradients that a step keeps."""
ITERATIONS = 5
"""Newton-Schulz iterations: singular values end between about 0.7 and 1.2."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd quintic a s + b s^3 + c s^5 of each iteration, which grows small singular values."""
RMS = 0.2
"""Root mean square of a step's elements at learning rate 1, about that of Adam's."""


class Muon(torch.optim.Optimizer):
    r"""W <- (1 - lr wd) W - 0.2 lr sqrt(max(m, n)) O(M), for weights W taken as m x n matrices.

    M is the Nesterov momentum of the gradient and O(M) the nearest matrix with orthonormal rows or
    columns: every direction of a filter bank learns as fast as every other. A convolution's weights
    are a matrix of one row a filter. Biases and gains, which are no matrices, follow Adam with
    decoupled weight decay, at the same learning rate.

    Args:
        parameters: The weights.
        lr: Learning rate, a tensor so that a recorded step can read it.
        betas: Adam's, for biases and gains.
        weight_decay: Decoupled weight decay.
        capturable: Whether the step may be recorded as a CUDA graph.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the scale from Liu et
    al. 2025, https://arxiv.org/abs/2502.16982
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: Tensor,
        betas: tuple[float, float],
        weight_decay: float,
        capturable: bool,
    ) -> None:
        weights = list(parameters)
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})
        self.matrices = [weight for weight in weights if weight.ndim > 1]
        vectors = [weight for weight in weights if weight.ndim < 2]
        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        self.adam = (
            torch.optim.AdamW(vectors, **settings, fused=True, capturable=capturable)
            if vectors
            else None
        )
        if self.adam:
            self.adam.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step along the gradients of the weights."""
        if self.adam:
            self.adam.step()
        group = self.param_groups[0]
        for weight in self.matrices:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
            direction = weight.grad.lerp(momentum, MOMENTUM).flatten(1)
            scale = RMS * math.sqrt(max(direction.shape))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(orthogonalise(direction).view_as(weight) * (group["lr"] * scale))


def orthogonalise(matrix: Tensor) -> Tensor:
    """The orthogonal factor U V^T of a matrix U S V^T, nearly: its singular values set to about 1.

    Args:
        matrix: Shape [m, n].
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonalise(matrix.T).T
    a, b, c = COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x
