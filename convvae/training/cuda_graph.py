"""A training step recorded once and replayed, so that a GPU never waits for Python.

A step of a small model is a few hundred kernels of a few microseconds each, and launching them one
by one takes longer than running them. A CUDA graph launches all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from convvae import runtime
from convvae.data.pixels import black_or_white, to_unit
from convvae.training.augment import moved
from convvae.training.learner import Learner
from convvae.training.schedules import StepSettings

WARM_UP_STEPS = 3
"""Steps taken before the recording, in which libraries choose their kernels and make buffers."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a computation on fixed tensors and returns what repeats it."""


class StepInputs(NamedTuple):
    """What a step needs of a batch of B images beside them; draws follow from (seed, position)."""

    eps: Tensor
    """Standard normal noise, shape [K, B, D]."""
    moves: Tensor | None = None
    """How the images are moved, int64 [B, 3], if the run augments: see `augment`."""
    levels: Tensor | None = None
    """Grey values beyond which a pixel is white, uint8 [B, C, H, W], if it binarises each epoch."""
    y: Tensor | None = None
    """What is known of the images, shape [B, C], if the model is conditional."""
    observed: Tensor | None = None
    """Which of their pixels are there, bool [B, 1, H, W], if some are missing."""

    def share(self, own: slice) -> StepInputs:
        """Those of some of the images."""
        others = (None if part is None else part[own] for part in self[1:])
        return StepInputs(self.eps[:, own], *others)

    def to(self, device: torch.device) -> StepInputs:
        """The same on a device."""
        eps, *others = (
            None if part is None else part.to(device, non_blocking=True) for part in self
        )
        assert eps is not None
        return StepInputs(eps, *others)


def batch_of(pixels: Tensor, inputs: StepInputs) -> Tensor:
    """Images as the networks take them: moved, black or white if the run wants it, in [0, 1]."""
    pixels = moved(pixels, inputs.moves)
    if inputs.levels is not None:
        pixels = black_or_white(pixels, inputs.levels)
    return to_unit(pixels)


def observed_of(inputs: StepInputs) -> Tensor | None:
    """Which pixels of the images that `batch_of` gives are there: they are moved with them."""
    return None if inputs.observed is None else moved(inputs.observed, inputs.moves)


class Step(Protocol):
    """A training step on a batch of images on the device."""

    engine: str
    """How the step is launched, for the record of a run."""
    latent_dims: int
    """Number of latents D, for which noise is given."""

    def __call__(self, pixels: Tensor, inputs: StepInputs, settings: StepSettings) -> Tensor:
        """Take the step and return its loss, a scalar on the device, in nats per image.

        Args:
            pixels: The images, uint8 [b, C, H, W] on the device: the batch, or the share of it
                that is this process's.
            inputs: Of the whole batch.
            settings: Where the run stands.
        """
        ...


class PlainStep:
    """A step launched kernel by kernel.

    Args:
        learner: What learns.
    """

    engine = "eager"

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.latent_dims = learner.vae.config.latent_dims

    def __call__(self, pixels: Tensor, inputs: StepInputs, settings: StepSettings) -> Tensor:
        """Take the step."""
        inputs = inputs.to(pixels.device)
        x, observed = batch_of(pixels, inputs), observed_of(inputs)
        return self.learner.step(x, inputs.eps, settings, inputs.y, observed)


class CapturedStep:
    """A step recorded as a graph and replayed; what differs between steps is copied in before.

    The first steps, and batches of another size than a whole one, are taken kernel by kernel: every
    step is a step of the run, and the mathematics is that of `PlainStep`.

    Args:
        learner: What learns.
        record: Makes the graph; `runtime.record_graph` on a GPU.
    """

    engine = "cuda graph"

    def __init__(self, learner: Learner, record: Record = runtime.record_graph) -> None:
        self.plain = PlainStep(learner)
        self.latent_dims = self.plain.latent_dims
        self.record = record
        self.fixed: tuple[Tensor | None, ...] = ()
        """Where the graph reads the images of a batch and what goes with them."""
        self.loss = torch.zeros((), device=learner.vae.device)
        self.warm_up = WARM_UP_STEPS
        self.replay: Callable[[], None] | None = None

    def __call__(self, pixels: Tensor, inputs: StepInputs, settings: StepSettings) -> Tensor:
        """Take the step."""
        learner = self.plain.learner
        if len(pixels) != learner.config.batch_size:
            return self.plain(pixels, inputs, settings)
        learner.set_step(settings, len(pixels))
        now = (pixels, *inputs)
        self.fixed = self.fixed or tuple(
            None if part is None else torch.empty_like(part, device=pixels.device) for part in now
        )
        for fixed, part in zip(self.fixed, now, strict=True):
            if fixed is not None and part is not None:
                fixed.copy_(part, non_blocking=True)
        if self.warm_up:
            self.warm_up -= 1
            runtime.on_side_stream(self._update)
        else:
            # Recording runs nothing: the step is taken by the replay.
            self.replay = self.replay or self.record(self._update)
            self.replay()
        return self.loss.clone()

    def _update(self) -> None:
        pixels, eps, *others = self.fixed
        assert pixels is not None
        assert eps is not None
        inputs = StepInputs(eps, *others)
        x, observed = batch_of(pixels, inputs), observed_of(inputs)
        loss = self.plain.learner.update(x, eps, y=inputs.y, observed=observed)
        self.loss.copy_(loss)


def make_step(learner: Learner) -> Step:
    """The step for a device: recorded on a GPU of NVIDIA's kind, plain elsewhere.

    Where steps may be left out it is plain too: that is decided anew at each of them.

    Args:
        learner: What learns.
    """
    recorded = learner.vae.device.type == "cuda" and learner.config.skip_norm is None
    return (CapturedStep if recorded else PlainStep)(learner)
