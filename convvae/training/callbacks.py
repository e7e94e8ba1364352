"""What may watch a run: one page.

A callback is an object with the methods below. All are optional: inherit from `Callback` and write
those that matter. They are called in this order, every callback in the order given:

    start       once, before the first batch
      step      after every batch
      batch     the loss of a single batch was recorded: one in `log_every`, read at a save or at
                an epoch's end
      epoch     an epoch was validated, recorded and saved
    finish      the run is complete, its model saved and its pictures drawn
    close       always last: finished, stopped, or failed

`metrics.jsonl` has every `batch` and `epoch` whether anything watches or not. Where a run goes back
to a saved state, `images` and `epoch` go back too. A callback sees the run and does not change it:
weights, images and noise are the same with it and without.

    class Halt(Callback):
        def start(self, run):
            self.run = run

        def epoch(self, row, vae):
            if row["val_bound"] > -2600:
                self.run.stop.set()  # saved and resumable, as after Ctrl-C

    convvae.train(config, callbacks=[Halt()])
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

from torch import Tensor

from convvae.config import TrainConfig, ValidatedOn
from convvae.model.objectives import Means
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE
from convvae.training.learner import TrainingProgress

Row = Mapping[str, Any]
"""A line of `metrics.jsonl`; `images` counts the images seen, the run's clock."""


@dataclass(frozen=True)
class Run:
    """A run as it starts, for callbacks."""

    folder: RunFolder
    config: TrainConfig
    vae: VAE
    """The model to look at: the averaged one where the run averages."""
    progress: TrainingProgress
    """Where it stands, and it moves on: at first image 0, or later in a run that is resumed."""
    total_images: int
    validation: Tensor
    """The images that `val_*` are of, uint8 [N, C, H, W]."""
    stop: threading.Event
    """Set it, and the run saves and stops after the batch under way."""
    labels: Tensor | None = None
    """Labels of the validation images, int64 [N], where there are any."""
    y: Tensor | None = None
    """What a conditional model is given of them, shape [N, C]: `vae.given(y)` is the model then;
    of the objective semi-supervised, a row of zeros for an image without a label."""
    validated_on: ValidatedOn = "test"
    """What the validation images are: training images held out, or the test images."""


class Callback(Protocol):
    """Watches a run; see the module for when each method is called."""

    def start(self, run: Run) -> None:
        """Before the first batch."""

    def step(self, progress: TrainingProgress, means: Callable[[], Means]) -> None:
        """After a batch; `means()` is the epoch so far, and waits for the device: ask rarely."""

    def batch(self, row: Row) -> None:
        """A single batch was recorded: its `loss`, nats per image, after `images`."""

    def epoch(self, row: Row, vae: VAE) -> None:
        """An epoch was recorded; `vae` is the model to look at, in training mode."""

    def finish(self) -> None:
        """The run is complete."""

    def close(self) -> None:
        """Always last."""


@final
class Together(Callback):
    """Several callbacks as one, called in their order."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = list(callbacks)

    def start(self, run: Run) -> None:
        """See `Callback`."""
        for callback in self.callbacks:
            callback.start(run)

    def step(self, progress: TrainingProgress, means: Callable[[], Means]) -> None:
        """See `Callback`."""
        for callback in self.callbacks:
            callback.step(progress, means)

    def batch(self, row: Row) -> None:
        """See `Callback`."""
        for callback in self.callbacks:
            callback.batch(row)

    def epoch(self, row: Row, vae: VAE) -> None:
        """See `Callback`."""
        for callback in self.callbacks:
            callback.epoch(row, vae)

    def finish(self) -> None:
        """See `Callback`."""
        for callback in self.callbacks:
            callback.finish()

    def close(self) -> None:
        """See `Callback`."""
        for callback in self.callbacks:
            callback.close()
