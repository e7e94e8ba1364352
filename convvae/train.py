"""Training: one loop, from images to a run folder.

Position is counted in images seen, and every random number is a function of (seed, position): a run
that is stopped anywhere and resumed ends with the weights of one left alone, to the bit on the same
machine with the same number of threads.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from torch import Tensor

from convvae import data, doctor, runtime, sheets
from convvae.callbacks import Callback, Run, Together
from convvae.captured import Step, make_step
from convvae.checkpoint import Facts, RunFolder, next_run_folder, save_model
from convvae.config import TrainConfig
from convvae.data.pixels import binarize, binarize_once
from convvae.errors import ConfigError, NonFiniteLossError, StoppedError
from convvae.evaluate import mean_terms
from convvae.learner import Learner, Position, pace
from convvae.model import VAE
from convvae.objectives import Terms, loss, squared_error_and_kl
from convvae.progress import TrainingDisplay
from convvae.records import (
    check_same_images,
    draw_pictures,
    joint_picture,
    write_config,
    write_report,
)
from convvae.tracking import TensorBoard


def train(
    config: TrainConfig,
    console: Console | None = None,
    resume: Path | None = None,
    callbacks: Iterable[Callback] = (),
) -> RunFolder:
    """Train a model and write its run folder.

    Arguments:
        config: Everything about the run.
        console: Where to show progress; nowhere if absent.
        resume: Continue the run in this folder; `config` is its own, perhaps with more epochs.
        callbacks: What else watches the run, see `convvae.callbacks`.

    Returns:
        The run folder: model, metrics, pictures.

    Raises:
        ConvvaeError: the settings, images or folder cannot be used, each with its own class.
        NonFiniteLossError: the loss became infinite or not a number.
        StoppedError: Ctrl-C, SIGTERM, or a callback; everything is saved.
    """
    console = console or Console(quiet=True)
    tensorboard = [TensorBoard()] if config.tensorboard else []
    watch = Together([TrainingDisplay(console), *tensorboard, *callbacks])
    config, device = resolve(config)
    out = config.out or _default_folder(config)
    if resume is None:
        RunFolder(out).check_free()
    runtime.keep_freed_memory()
    trained_on, held_out = load_images(config, "train"), load_images(config, "test")
    images, validation = trained_on.images, held_out.images
    plan = Plan(config, len(images))
    channels, height, width = images.shape[1:]
    model = config.model((height, width), channels)
    learner = Learner(config, model, device, len(images))

    if config.compile == "on":
        runtime.compile_networks(learner.vae.encoder, learner.vae.decoder)
    if resume:
        run, position = take_up(learner, trained_on, resume)
    else:
        run, position = begin(learner, images, out)
    redrawn = config.binarize == "dynamic"
    step = make_step(learner, (images.clone() if redrawn else images).to(device))
    write_config(run, config, learner.vae.config, trained_on, device, step.engine, position)
    announce(console, config, learner.vae, device)
    say(console, doctor.of_images(validation, config.likelihood))

    with closing(watch), stop_flag() as stop:
        total, labels = plan.total_images, held_out.labels
        facts = Run(run, config, learner.weights, position, total, validation, stop, labels)
        watch.start(facts)
        while position.epoch < config.epochs:
            if redrawn:
                draws = runtime.generator(config.seed, "binarize", position.epoch)
                step.images.copy_(binarize(images, draws))
            train_terms = train_epoch(learner, step, plan, position, run, watch, stop)
            if stop.is_set():
                learner.save(run.resume, position)
                raise StoppedError(
                    f"stopped in epoch {position.epoch + 1} of {config.epochs}; everything is "
                    f"saved, continue with: convvae train --resume {run.path}"
                )
            finish_epoch(learner, train_terms, validation, position, run, watch)
        draw_pictures(run, learner.weights, step.images.cpu(), validation, config.seed)
        conclude(run, learner, held_out, console)
        watch.finish()
    console.print(f"wrote {run.path}", soft_wrap=True, highlight=False)
    return run


def conclude(run: RunFolder, learner: Learner, test: data.ImageSet, console: Console) -> None:
    """Say what looks wrong with a finished run, and write the page about it."""
    config, vae = learner.config, learner.weights
    say(console, doctor.of_run(config, run.read_metrics()))
    say(console, doctor.of_model(vae, test.images))
    if config.report:
        write_report(run, vae, test, config.seed)


def begin(learner: Learner, images: Tensor, folder: Path) -> tuple[RunFolder, Position]:
    """Make a run folder, and save the start in it.

    Raises:
        RunExistsError: the folder already holds a run.
        OutputError: the folder cannot be made.
    """
    run, position = RunFolder.create(folder), Position()
    if learner.config.output_bias == "mean":
        learner.start_at(mean_pixel(images))
    learner.save(run.resume, position)
    return run, position


def take_up(learner: Learner, images: data.ImageSet, folder: Path) -> tuple[RunFolder, Position]:
    """Load the state of a run that was stopped, and drop what it recorded since.

    Raises:
        ModelFileError: the folder holds no run that can be continued.
        DataChangedError: the images are others than those of its start.
        ConfigError: it has more epochs than are asked for.
    """
    run = RunFolder.open(folder)
    check_same_images(run, images)
    position = learner.load(run.resume)
    if position.epoch > learner.config.epochs:
        raise ConfigError(f"{folder} has {position.epoch} epochs already; ask for more")
    run.rewind_metrics(position.epoch, position.images)
    return run, position


def resolve(config: TrainConfig) -> tuple[TrainConfig, torch.device]:
    """Settle what `auto` means here, so that a resumed run computes as it began.

    Raises:
        DeviceError: the device or the precision does not exist here.
    """
    device = runtime.pick_device(config.device)
    settled = {
        "device": device.type,
        "precision": runtime.pick_precision(config.precision, device),
        "compile": "off" if config.compile == "auto" else config.compile,
        "data": data.canonical(config.data),
    }
    return config.model_copy(update=settled), device


class Plan:
    """Which images make up each batch of each epoch.

    Arguments:
        config: The run.
        count: Number of images N.

    Raises:
        ConfigError: no batch of two images or more can be made.
    """

    def __init__(self, config: TrainConfig, count: int) -> None:
        self.config = config
        self.count = count
        full, rest = divmod(count, config.batch_size)
        if full == 0 and (config.drop_last or rest < 2):
            raise ConfigError(
                f"{count} images do not fill a batch of {config.batch_size}; lower --batch-size"
            )
        self.epoch_images = full * config.batch_size if config.drop_last else count
        self.total_images = config.epochs * self.epoch_images

    def batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches: indices of images, each image once, in an order of its own.

        Batch normalisation cannot train on a single image: one left over joins the last batch.
        """
        generator = runtime.generator(self.config.seed, "order", epoch)
        order = torch.randperm(self.count, generator=generator)[: self.epoch_images]
        parts = list(order.split(self.config.batch_size))
        if len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts


def epoch_steps(step: Step, plan: Plan, position: Position) -> Iterator[Tensor]:
    """Take the steps from `position` to the end of its epoch, one whenever the next is asked for.

    After each, the position stands behind it and its loss is yielded: a scalar on the device, nats
    per image.
    """
    config = plan.config
    for index in plan.batches(position.epoch)[position.batch :]:
        shape = (config.mc_samples, len(index), config.latent_dims)
        eps = runtime.noise(shape, config.seed, "train", position.images)
        batch_loss = step(index, eps, pace(config, position.images, plan.total_images))
        position.batch += 1
        position.images += len(index)
        position.epoch_images += len(index)
        yield batch_loss


def train_epoch(
    learner: Learner,
    step: Step,
    plan: Plan,
    position: Position,
    run: RunFolder,
    watch: Callback,
    stop: threading.Event,
) -> Terms:
    """Train from `position` to the end of its epoch, or until `stop` is set.

    Returns:
        Mean terms over the epoch so far, in training mode.

    Raises:
        NonFiniteLossError: the loss or a weight became infinite or not a number.
    """
    config = learner.config
    losses: list[tuple[int, Tensor]] = []
    began = time.monotonic() - position.seconds

    def read() -> Terms:
        # Reading the means waits for the device, so the clock is read after it.
        means = finite_means(learner, position, run)
        position.seconds = time.monotonic() - began
        return means

    for batch_loss in epoch_steps(step, plan, position):
        if position.batch % config.log_every == 0:
            losses.append((position.images, batch_loss))
        watch.step(position, read)
        if stop.is_set():
            break
    means = read()
    for seen, batch_loss in losses:
        row = {"event": "log", "epoch": position.epoch + 1, "images": seen}
        row["loss"] = float(batch_loss)  # nats per image
        run.append_metrics(row)
        watch.batch(row)
    return means


def finite_means(learner: Learner, position: Position, run: RunFolder | None = None) -> Terms:
    """Mean terms over the epoch so far, when they and the weights are finite.

    Arguments:
        learner: What learns.
        position: Where it stands.
        run: The folder that keeps its last epoch, if there is one.

    Raises:
        NonFiniteLossError: they are not.
    """
    means = learner.means(position)
    value = float(loss(means, learner.config.beta))
    if not math.isfinite(value):
        raise not_finite(f"the loss is {value}", position, run)
    if not learner.is_finite():
        raise not_finite("a weight is not finite", position, run)
    return means


def not_finite(what: str, position: Position, run: RunFolder | None) -> NonFiniteLossError:
    """The error for a number that is infinite or not one; the files of the last epoch stay."""
    where = f"{what} in epoch {position.epoch + 1}"
    if run is None:
        return NonFiniteLossError(f"{where}; train anew with a lower lr or with clip_norm=1")
    kept = run.model if position.epoch else run.resume
    return NonFiniteLossError(
        f"{where}; {kept} keeps the weights of epoch "
        f"{position.epoch}; start a new run with a lower --lr or with --clip-norm 1"
    )


def finish_epoch(
    learner: Learner,
    train_terms: Terms,
    validation: Tensor,
    position: Position,
    run: RunFolder,
    watch: Callback,
) -> None:
    """Validate, record, save and draw at the end of an epoch; then stand at the next one.

    Raises:
        NonFiniteLossError: the bound of the validation images is infinite or not a number.
    """
    config, vae = learner.config, learner.weights
    val_terms = mean_terms(vae, validation, seed=config.seed, mc_samples=config.mc_samples)
    if not math.isfinite(loss(val_terms, config.beta)):
        raise not_finite("the loss of the validation images is not finite", position, run)
    row = {
        "event": "epoch",
        "epoch": position.epoch + 1,
        "images": position.images,
        **numbers("train", train_terms, config, vae),
        **numbers("val", val_terms, config, vae),
        "seconds": position.seconds,
        "images_per_second": position.epoch_images / position.seconds,
    }
    run.append_metrics(row)
    watch.epoch(row, vae)

    position.next_epoch()
    learner.sums.zero_()
    facts = Facts(
        model=vae.config,
        data=config.data,
        crop=config.crop,
        split=config.split,
        skip_bad=config.skip_bad,
        recipe=config.recipe,
        binarize=config.binarize,
        binarize_seed=config.binarize_seed,
        epochs=position.epoch,
        images=position.images,
        bound=float(val_terms.bound),
        versions=runtime.versions(),
    )
    save_model(run.model, vae, facts)
    learner.save(run.resume, position)
    if config.preview:
        name = f"epoch-{position.epoch:04}.png"
        sheets.save_png(run.pictures / name, joint_picture(vae, validation, config.seed))


def numbers(prefix: str, terms: Terms, config: TrainConfig, vae: VAE) -> dict[str, float | None]:
    """Mean terms under the names of `metrics.jsonl`; nats per image, but the last.

    `squared_error_and_kl` is what the MLX and Lux tutorials print: summed over a batch.
    """
    log_px, kl = float(terms.log_px), float(terms.kl)
    squared = squared_error_and_kl(vae.config, log_px, kl)
    return {
        f"{prefix}_loss": float(loss(terms, config.beta)),
        f"{prefix}_log_px": log_px,
        f"{prefix}_kl": kl,
        f"{prefix}_bound": float(terms.bound),
        f"{prefix}_squared_error_and_kl": None if squared is None else squared * config.batch_size,
    }


def load_images(config: TrainConfig, split: data.Split) -> data.ImageSet:
    """The run's images of a split, of its size and channels.

    `limit` cuts the training images only. Test images are binarised once if the run binarises at
    all, training images if it does so once.
    """
    prepare = data.Preparation(
        image_size=config.image_size,
        channels=config.channels,
        crop=config.crop,
        split=config.split,
        skip_bad=config.skip_bad,
    )
    limit = config.limit if split == "train" else None
    found = data.load(config.data, split, data_dir=config.data_dir, limit=limit, prepare=prepare)
    if config.binarize == "static" or (config.binarize == "dynamic" and split == "test"):
        return replace(found, images=binarize_once(found.images, split, config.binarize_seed))
    return found


def mean_pixel(images: Tensor) -> Tensor:
    """Mean intensity of each channel in [0, 1], shape [C], of images uint8 [N, C, H, W]."""
    sums = torch.stack([part.sum((0, 2, 3)) for part in images.split(1000)]).sum(0)
    return (sums / (255 * images[:, 0].numel())).float()


def announce(console: Console, config: TrainConfig, vae: VAE, device: torch.device) -> None:
    """Say what is about to run: every setting, the device, the size of the model."""
    lines = [f"convvae {runtime.versions()['convvae']} on {runtime.describe_device(device)}"]
    lines += [f"  {name} = {value}" for name, value in config.model_dump(mode="json").items()]
    lines += [f"{vae.num_parameters() / 1e6:.4f} M trainable parameters"]
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def say(console: Console, remarks: Iterable[doctor.Remark]) -> None:
    """Print the doctor's remarks, a line each."""
    for remark in remarks:
        console.print(str(remark), soft_wrap=True, highlight=False, markup=False)


@contextmanager
def stop_flag() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def restore() -> None:
        for kind in kinds:
            signal.signal(kind, before[kind])

    def stop(_signal: int, _frame: FrameType | None) -> None:
        event.set()
        restore()

    for kind in kinds:
        signal.signal(kind, stop)
    try:
        yield event
    finally:
        restore()


def _default_folder(config: TrainConfig) -> Path:
    name = data.short_name(config.data)
    return next_run_folder(f"{name}-{config.recipe}" if config.recipe else name)
