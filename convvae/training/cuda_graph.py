"""A training step recorded once and replayed, so that a GPU never waits for Python.

A step of a small model is a few hundred kernels of a few microseconds each, and launching them one
by one takes longer than running them. A CUDA graph launches all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from convvae import runtime
from convvae.data.pixels import to_unit
from convvae.training.augment import take
from convvae.training.learner import Learner
from convvae.training.schedules import StepSettings

WARM_UP_STEPS = 3
"""Steps taken before the recording, in which libraries choose their kernels and make buffers."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a computation on fixed tensors and returns what repeats it."""


class Step(Protocol):
    """A training step on images resident on the device."""

    engine: str
    """How the step is launched, for the record of a run."""
    images: Tensor
    """uint8 [N, C, H, W] on the device; a run may write others over them."""
    latent_dims: int
    """Number of latents D, for which noise is given."""

    def __call__(
        self, index: Tensor, eps: Tensor, settings: StepSettings, moves: Tensor | None = None
    ) -> Tensor:
        """Take the step and return its loss, a scalar on the device, in nats per image.

        Args:
            index: Which images make up the batch, shape [B].
            eps: Standard normal noise, shape [K, B, D].
            settings: Where the run stands.
            moves: How the images are moved, shape [B, 3], if the run augments: see `augment`.
        """
        ...


class PlainStep:
    """A step launched kernel by kernel.

    Args:
        learner: What learns.
        images: uint8, shape [N, C, H, W], on the learner's device.
        y: What is known of them, shape [N, C], there too; None of an unconditional model.
    """

    engine = "eager"

    def __init__(self, learner: Learner, images: Tensor, y: Tensor | None = None) -> None:
        self.learner = learner
        self.images, self.y = images, y
        self.latent_dims = learner.vae.config.latent_dims

    def __call__(
        self, index: Tensor, eps: Tensor, settings: StepSettings, moves: Tensor | None = None
    ) -> Tensor:
        """Take the step."""
        eps = eps.to(self.images.device, non_blocking=True)
        return self.learner.step(self.batch(index, moves), eps, settings, self.known(index))

    def batch(self, index: Tensor, moves: Tensor | None) -> Tensor:
        """Some images as the networks take them, in [0, 1]."""
        device = self.images.device
        if moves is not None:
            moves = moves.to(device, non_blocking=True)
        return to_unit(take(self.images, index.to(device, non_blocking=True), moves))

    def known(self, index: Tensor) -> Tensor | None:
        """What is known of some images, shape [B, C]."""
        return None if self.y is None else self.y[index.to(self.y.device, non_blocking=True)]


class CapturedStep:
    """A step recorded as a graph and replayed; what differs between steps is copied in before.

    The first steps, and batches of another size than a whole one, are taken kernel by kernel: every
    step is a step of the run, and the mathematics is that of `PlainStep`.

    Args:
        learner: What learns.
        images: uint8, shape [N, C, H, W], on the learner's device.
        record: Makes the graph; `runtime.record_graph` on a GPU.
        y: What is known of them, shape [N, C], there too; None of an unconditional model.
    """

    engine = "cuda graph"

    def __init__(
        self,
        learner: Learner,
        images: Tensor,
        record: Record = runtime.record_graph,
        y: Tensor | None = None,
    ) -> None:
        self.plain = PlainStep(learner, images, y)
        self.images = images
        self.latent_dims = self.plain.latent_dims
        self.record = record
        config, device = learner.config, images.device
        shape = (config.mc_samples, config.batch_size, self.latent_dims)
        self.index = torch.zeros(config.batch_size, dtype=torch.int64, device=device)
        self.eps = torch.zeros(shape, device=device)
        augments = config.augment != "none"
        self.moves = self.index.new_zeros(config.batch_size, 3) if augments else None
        self.loss = torch.zeros((), device=device)
        self.warm_up = WARM_UP_STEPS
        self.replay: Callable[[], None] | None = None

    def __call__(
        self, index: Tensor, eps: Tensor, settings: StepSettings, moves: Tensor | None = None
    ) -> Tensor:
        """Take the step."""
        if len(index) != len(self.index):
            return self.plain(index, eps, settings, moves)
        self.plain.learner.set_step(settings, len(index))
        self.index.copy_(index, non_blocking=True)
        self.eps.copy_(eps, non_blocking=True)
        if self.moves is not None and moves is not None:
            self.moves.copy_(moves, non_blocking=True)
        if self.warm_up:
            self.warm_up -= 1
            runtime.on_side_stream(self._update)
        else:
            # Recording runs nothing: the step is taken by the replay.
            self.replay = self.replay or self.record(self._update)
            self.replay()
        return self.loss.clone()

    def _update(self) -> None:
        x = to_unit(take(self.images, self.index, self.moves))
        known = self.plain.known(self.index)
        self.loss.copy_(self.plain.learner.update(x, self.eps, y=known))


def make_step(learner: Learner, images: Tensor, y: Tensor | None = None) -> Step:
    """The step for a device: recorded on a GPU of NVIDIA's kind, plain elsewhere.

    Where steps may be left out it is plain too: that is decided anew at each of them.

    Args:
        learner: What learns.
        images: uint8, shape [N, C, H, W], on the learner's device.
        y: What is known of them, shape [N, C], there too; None of an unconditional model.
    """
    recorded = images.is_cuda and learner.config.skip_norm is None
    return (CapturedStep if recorded else PlainStep)(learner, images, y=y)
