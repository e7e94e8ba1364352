"""The training loop: batches in their order, a step each, and the means of an epoch.

Progress is counted in images seen, and every random number is a function of (seed, progress): a
run that is stopped anywhere and resumed ends with the weights of one left alone, to the bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from convvae import runtime
from convvae.config import SEMI_SUPERVISED, TrainConfig
from convvae.data.pixels import draw_levels, to_unit
from convvae.errors import ConfigError, NonFiniteLossError
from convvae.evaluation.encode import evaluating, own_noise
from convvae.model.objectives import Means, Terms, draw, training_loss
from convvae.model.run_folder import RunFolder
from convvae.model.semi_supervised import joint, semi_supervised_loss
from convvae.model.vae import VAE
from convvae.training.augment import draw_moves
from convvae.training.callbacks import Callback
from convvae.training.cuda_graph import Step, StepInputs
from convvae.training.feeds import Feed
from convvae.training.learner import Learner, TrainingProgress
from convvae.training.saving import Saves
from convvae.training.schedules import StepSettings, step_settings


class BatchPlan:
    """Which images make up each batch of each epoch.

    Args:
        config: The run.
        rows: Places of the images to train on, int64 [N].

    Raises:
        ConfigError: no batch of two images or more can be made.
    """

    def __init__(self, config: TrainConfig, rows: Tensor) -> None:
        self.config = config
        self.rows = rows
        count = len(rows)
        full, rest = divmod(count, config.batch_size)
        if full == 0 and (config.drop_last or rest < 2):
            raise ConfigError(
                f"{count} images do not fill a batch of {config.batch_size}; lower `batch_size`"
            )
        self.epoch_images = full * config.batch_size if config.drop_last else count
        self.total_images = config.epochs * self.epoch_images

    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches: places of images, each image once, in an order of its own."""
        generator = runtime.generator(self.config.seed, "order", epoch)
        order = torch.randperm(len(self.rows), generator=generator)[: self.epoch_images]
        return in_batches(self.rows[order], self.config.batch_size)

    def last_settings(self, epoch: int) -> StepSettings:
        """The settings of an epoch's last step.

        Its schedules' weights are those of the validation.
        """
        last = self.batches(epoch)[-1]
        images = (epoch + 1) * self.epoch_images - len(last)
        return step_settings(self.config, images, self.total_images)


def in_batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """Places in their order, batch by batch; one left over joins the last batch.

    Neither batch normalisation nor an objective that looks at pairs can do with a single image.
    """
    parts = list(order.split(batch_size))
    if len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def epoch_steps(
    step: Step, feed: Feed, plan: BatchPlan, progress: TrainingProgress
) -> Iterator[Tensor]:
    """Take the steps from `progress` to the end of its epoch, one whenever the next is asked for.

    After each, the progress stands behind it and its loss is yielded: a scalar on the device, nats
    per image.
    """
    config = plan.config
    order = plan.batches(progress.epoch)[progress.batch :]
    for index, pixels in zip(order, feed.batches(order), strict=True):
        inputs = inputs_of(config, len(index), step.latent_dims, feed.shape, progress.images)
        if feed.y is not None:
            inputs = inputs._replace(y=feed.y[index])
        if feed.observed is not None:
            inputs = inputs._replace(observed=feed.observed[index])
        now = step_settings(config, progress.images, plan.total_images)
        now = now._replace(rate=now.rate * progress.step_factor)
        batch_loss = step(pixels, inputs, now)
        progress.batch += 1
        progress.images += len(index)
        progress.epoch_images += len(index)
        yield batch_loss


def inputs_of(
    config: TrainConfig, count: int, latent_dims: int, shape: tuple[int, int, int], position: int
) -> StepInputs:
    """What is drawn for a batch, see `StepInputs`.

    Args:
        config: The run.
        count: Images in the batch, B.
        latent_dims: Number of latents D.
        shape: C, H, W.
        position: Images seen before the batch.
    """
    noise = (config.mc_samples, count, latent_dims)
    return StepInputs(
        eps=runtime.noise(noise, config.seed, "train", position),
        moves=draw_moves(config.augment, count, shape[1:], config.seed, position),
        levels=draw_levels((count, *shape), config.seed, position)
        if config.binarize == "dynamic"
        else None,
    )


def train_epoch(
    saves: Saves,
    step: Step,
    feed: Feed,
    plan: BatchPlan,
    progress: TrainingProgress,
    watch: Callback,
    stop: threading.Event,
) -> Means:
    """Train from `progress` to the end of its epoch, or until `stop` is set.

    The state is saved whenever that is due.

    Returns:
        Means over the epoch so far, in training mode.

    Raises:
        NonFiniteLossError: the loss or a weight became infinite or not a number.
        OutputError: the state or a loss cannot be written.
    """
    learner, run = saves.learner, saves.run
    losses: list[tuple[int, Tensor]] = []
    began = time.monotonic() - progress.seconds

    def read() -> Means:
        # Reading the means waits for the device, so the clock is read after it.
        means = finite_means(learner, progress, run)
        progress.seconds = time.monotonic() - began
        return means

    def record() -> Means:
        means = read()
        for seen, batch_loss in losses:
            row = {"event": "log", "epoch": progress.epoch + 1, "images": seen}
            row["loss"] = float(batch_loss)  # nats per image
            run.append_metrics(row)
            watch.batch(row)
        losses.clear()
        return means

    for batch_loss in epoch_steps(step, feed, plan, progress):
        if progress.batch % learner.config.log_every == 0:
            losses.append((progress.images, batch_loss))
        watch.step(progress, read)
        if stop.is_set():
            break
        if saves.is_due():
            record()
            saves.save(progress)
    return record()


def finite_means(
    learner: Learner, progress: TrainingProgress, run: RunFolder | None = None
) -> Means:
    """Means over the epoch so far, when they and the weights are finite.

    Args:
        learner: What learns.
        progress: Where it stands.
        run: The folder that keeps its last epoch, if there is one.

    Raises:
        NonFiniteLossError: they are not.
    """
    means = learner.means(progress)
    if not means.is_finite():
        raise not_finite(f"the loss is {float(means.loss)}", progress, run)
    if not learner.is_finite():
        raise not_finite("a weight is not finite", progress, run)
    return means


class Validation(NamedTuple):
    """What the model to use makes of images that it was not trained on, in evaluation mode."""

    means: Means
    """The loss is at the weights that the schedules had in the epoch's last step."""
    full_loss: float
    """The loss at the weights that the schedules rise to, by which epochs are compared.

    A loss at a small weight of the KL is lower, and early epochs of a warm-up would seem the best.
    It is minus the bound for the plain objective with beta at 1, nats per image.
    """


def validate(
    learner: Learner,
    images: Tensor,
    settings: StepSettings,
    y: Tensor | None = None,
    observed: Tensor | None = None,
) -> Validation:
    """Evaluate the objective of the training on images that it does not see.

    Where it is a function of a batch as a whole (see `training_loss`) it is the mean over batches
    of the training's size, each image weighing the same. The noise of an image is that of
    `bounds.image_terms`, and the networks compute in float32.

    Args:
        learner: What learns.
        images: uint8, shape [N, C, H, W].
        settings: Of the epoch's last step.
        y: What is known of the images, shape [N, C]; None of an unconditional model.
        observed: Which of their pixels are there, bool [N, 1, H, W]; None where all are.
    """
    config, vae = learner.config, learner.weights
    if config.objective == SEMI_SUPERVISED and y is not None:
        part_of = partial(_semi_supervised, learner, y, observed)
    else:
        told = vae if y is None else vae.given(y)
        part_of = partial(_as_trained, learner, told.observing(observed))
    weights = ((settings.beta, settings.capacity), (config.beta, config.capacity or 0.0))
    total = learner.sums.new_zeros(4)
    with evaluating(vae):
        batches = in_batches(torch.arange(len(images)), config.batch_size)
        for index in batches[learner.ranks.rank :: learner.ranks.count]:
            part = images[index]
            eps = own_noise(vae, part, config.seed)(config.mc_samples)
            terms, losses = part_of(index, to_unit(part.to(vae.device)), eps, weights)
            total += torch.stack(
                [*(term.sum() for term in terms), *(len(part) * each for each in losses)]
            )
    log_px, kl, now, full = (learner.ranks.sum(total) / len(images)).cpu()
    return Validation(Means(now, log_px, kl), float(full))


Weights = tuple[tuple[float, float], ...]
"""Pairs of beta and capacity."""


def _as_trained(
    learner: Learner, vae: VAE, index: Tensor, x: Tensor, eps: Tensor, weights: Weights
) -> tuple[Terms, list[Tensor]]:
    """Terms of some images, and their loss at each of some weights."""
    config, model = learner.config, vae.at(index)
    draws = draw(model, x, eps)
    return draws.terms, [
        training_loss(config, model, draws, beta, capacity, learner.count)
        for beta, capacity in weights
    ]


def _semi_supervised(
    learner: Learner,
    y: Tensor,
    observed: Tensor | None,
    index: Tensor,
    x: Tensor,
    eps: Tensor,
    weights: Weights,
) -> tuple[Terms, list[Tensor]]:
    """The same of images of which some have no label."""
    there = None if observed is None else observed[index].to(x.device)
    found = joint(learner.weights, x, eps, y[index].to(x), there)
    alpha = learner.config.alpha
    return found.terms, [semi_supervised_loss(found, beta, alpha) for beta, _ in weights]


def not_finite(what: str, progress: TrainingProgress, run: RunFolder | None) -> NonFiniteLossError:
    """The error for a number that is infinite or not one; the files of the last epoch stay."""
    where = f"{what} in epoch {progress.epoch + 1}"
    if run is None:
        return NonFiniteLossError(f"{where}; train anew with a lower `lr` or with `clip_norm=1`")
    last = run.last if progress.best_epoch else run.model
    kept = last if progress.epoch else run.resume
    return NonFiniteLossError(
        f"{where}; {kept} keeps the weights of epoch {progress.epoch}; start a new run with a "
        "lower `lr` or with `clip_norm=1`, or let this one go back to its last saved state with "
        "`rollbacks=3`"
    )
