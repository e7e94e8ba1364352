"""A training run: from settings and images to a run folder."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from convvae import data, runtime
from convvae.config import SEMI_SUPERVISED, TrainConfig, ValidatedOn
from convvae.data.pixels import binarize_once
from convvae.errors import ConfigError, NonFiniteLossError, StoppedError
from convvae.evaluation import doctor
from convvae.images import sheets
from convvae.model.checkpoint import ModelMetadata, load_metadata, load_model, save_model
from convvae.model.conditions import conditions, given_labels_of
from convvae.model.objectives import Means, squared_error_and_kl_per_image
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE
from convvae.training.callbacks import Callback, Run, Together
from convvae.training.cuda_graph import Step
from convvae.training.distributed import (
    OF_THE_FIRST,
    check_images,
    check_settings,
    images_of,
    joined,
    restarted,
    share_state,
    step_of,
)
from convvae.training.feeds import Feed, feed_of
from convvae.training.fine_tuning import condition_for, start_from
from convvae.training.folders import own_folder
from convvae.training.holdout import RunImages, with_labels_repeated
from convvae.training.learner import Learner, TrainingProgress
from convvae.training.loop import BatchPlan, not_finite, train_epoch, validate
from convvae.training.missing import check_mask, mean_observed
from convvae.training.progress import TrainingDisplay, unbroken
from convvae.training.ranks import Ranks
from convvae.training.records import (
    PREVIEW,
    check_same_images,
    draw_pictures,
    joint_picture,
    write_config,
    write_report,
)
from convvae.training.recovery import recover
from convvae.training.resuming import continued
from convvae.training.saving import Saves
from convvae.training.signals import stop_flag, stopping
from convvae.training.tensorboard import TensorBoard


def train(
    config: TrainConfig,
    console: Console | None = None,
    resume: Path | None = None,
    callbacks: Iterable[Callback] = (),
    images: RunImages | None = None,
) -> RunFolder:
    """Train a model and write its run folder.

    Args:
        config: Everything about the run.
        console: Where to show the settings, the progress and remarks, as the command does. Absent,
            progress and remarks go to standard output; `Console(quiet=True)` shows nothing.
        resume: Continue the run in this folder; `config` is its own, but for settings that leave
            its result alone, see `convvae.training.resuming`.
        callbacks: What else watches the run, see `convvae.training.callbacks`.
        images: Images in memory, instead of those that `config.data` names.

    Returns:
        The run folder: model, metrics, pictures.

    Raises:
        ConvvaeError: the settings, images or folder cannot be used, each with its own class.
        UsageError: a setting would change the result of the run that is continued.
        NonFiniteLossError: the loss became infinite or not a number.
        StoppedError: Ctrl-C, SIGTERM, or a callback; everything is saved.
    """
    resume = resume or restarted(config)
    with joined(config.device) as ranks:
        shown = (console or Console()) if ranks.is_first else Console(quiet=True)
        try:
            with unbroken(shown), ExitStack() as held:
                config, device = ranks.together(lambda: settle(config, resume, ranks))
                tensorboard = [TensorBoard()] if config.tensorboard else []
                watch = [TrainingDisplay(shown), *tensorboard, *callbacks]
                runtime.keep_freed_memory()
                if resume is None and config.out is not None:
                    ranks.together(RunFolder(config.out).check_free)
                run = resume and ranks.together(lambda: own_folder(config, resume, ranks, held))
                images = images or images_of(config, ranks)
                training = ranks.together(lambda: prepare(config, device, images, run, ranks))
                run = run or ranks.together(lambda: own_folder(config, None, ranks, held))
                if console:
                    announce(shown, config, training.learner.vae, device)
                say(shown, [images.in_words(config.validation), *images.missing_in_words()])
                say(shown, doctor.of_images(images.test.images, config))
                carry_out(training, run, Together(watch if ranks.is_first else []), shown)
        except (StoppedError, NonFiniteLossError) as error:
            if ranks.is_first:
                raise
            raise type(error)("") from error  # the first process says it
    return run


@dataclass(frozen=True)
class Training:
    """What a run is made of, before it has a folder."""

    config: TrainConfig
    images: RunImages
    plan: BatchPlan
    learner: Learner


def settle(
    config: TrainConfig, resume: Path | None, ranks: Ranks
) -> tuple[TrainConfig, torch.device]:
    """Settings and device of this process.

    Raises:
        ConvvaeError: they cannot be used, or those of the processes differ.
    """
    config, device = resolve(config if resume is None else continued(config, resume))
    check_settings(config, ranks)
    if not ranks.is_first:
        config = config.model_copy(update=dict.fromkeys(OF_THE_FIRST, False))
    return config, device


def prepare(
    config: TrainConfig,
    device: torch.device,
    images: RunImages,
    run: RunFolder | None,
    ranks: Ranks,
) -> Training:
    """Make what learns.

    Args:
        config: The run, resolved.
        device: Where it computes.
        images: Its images.
        run: The folder of the run that is continued.
        ranks: The processes that train.

    Raises:
        ConfigError, ImageSizeError: the settings do not fit the images.
        DataChangedError: the images are not those that the run was begun with.
        ModelFileError, ModelMismatchError: the model to start from cannot be.
        DeviceError: the networks are to be compiled, and there is no compiler.
    """
    if run is not None and ranks.is_first:
        check_same_images(run, images.source)
    semi = config.objective == SEMI_SUPERVISED
    plan = BatchPlan(config, with_labels_repeated(images) if semi else images.rows)
    if not ranks.alone:
        check_images(images.source, plan.batches(0), ranks)
    channels, height, width = images.source.images.shape[1:]
    model = config.model((height, width), channels, condition_for(config, images.source))
    conditions(model, images.test)  # what cannot be told of them is said before the work
    learner = Learner(config, model, device, len(images.rows), ranks)
    check_mask(config, learner.vae, images.source)
    if run is None or not run.is_saved():
        begin(learner, images)
    if config.compile == "on":
        runtime.compile_networks(learner.forward_pass)
    return Training(config, images, plan, learner)


def carry_out(training: Training, run: RunFolder, watch: Callback, console: Console) -> None:
    """Train from where the folder stands to the end.

    Args:
        training: What learns, from what.
        run: Its folder, held for it.
        watch: What watches it.
        console: Where to say remarks.

    Raises:
        ConvvaeError: as `train`.
    """
    config, images, learner = training.config, training.images, training.learner
    ranks = learner.ranks
    saves = Saves(run, learner, lambda line: say(console, [line]))
    start = ranks.together(
        lambda: take_up(training, saves) if run.is_saved() else TrainingProgress()
    )
    progress = share_state(learner, start, ranks)
    y = conditions(learner.vae.config, images.source)
    feed = feed_of(images.source, learner.vae.device, ranks, y)
    with closing(watch):
        with stop_flag() as asked:
            stop = asked if ranks.alone else threading.Event()
            step = step_of(learner, asked, stop)
            write_config(run, config, images.source, learner.vae, step.engine, progress)
            saves.save(progress)
            watch.start(start_of(run, training, progress, asked))
            run_epochs(training, saves, step, feed, progress, watch, stop)
        undone = (
            "stopped after the last epoch, before its pictures and page were done; the model "
            f"is saved, draw them with `resume='{run.path}'`"
        )

        def end() -> None:
            with stopping(undone):
                conclude(run, learner, images, progress, console)
                watch.finish()

        # The others wait: torchrun starts none again once one of them has ended well.
        ranks.patient.together(end if ranks.is_first else lambda: None)
    say(console, [f"wrote {run.path}"])


def run_epochs(
    training: Training,
    saves: Saves,
    step: Step,
    feed: Feed,
    progress: TrainingProgress,
    watch: Callback,
    stop: threading.Event,
) -> None:
    """Take the epochs that are left.

    Raises:
        NonFiniteLossError: the loss became infinite or not a number.
        StoppedError: `stop` was set, and the state is saved.
    """
    config, plan = training.config, training.plan
    while not (is_over(config, progress) or stop.is_set()):
        try:
            train_means = train_epoch(saves, step, feed, plan, progress, watch, stop)
            if not stop.is_set():
                finish_epoch(saves, train_means, plan, training.images, progress, watch)
        except NonFiniteLossError as error:
            recover(saves, plan, progress, error)
    if stop.is_set():
        saves.save(progress)
        where = f"in epoch {progress.epoch + 1}" if progress.batch else f"after {progress.epoch}"
        raise StoppedError(
            f"stopped {where} of {config.epochs} epochs; everything is saved, continue with "
            f"`resume='{saves.run.path}'`"
        )


def start_of(
    run: RunFolder, training: Training, progress: TrainingProgress, stop: threading.Event
) -> Run:
    """The run as it starts, for callbacks."""
    images, learner = training.images, training.learner
    return Run(
        folder=run,
        config=learner.config,
        vae=learner.weights,
        progress=progress,
        total_images=training.plan.total_images,
        validation=images.validation.images,
        stop=stop,
        labels=images.validation.labels,
        y=conditions(learner.weights.config, images.validation),
        validated_on=images.validated_on,
    )


def is_over(config: TrainConfig, progress: TrainingProgress) -> bool:
    """Whether a run has all its epochs, or its patience is at an end."""
    return progress.epoch >= config.epochs or is_out_of_patience(config, progress)


def is_out_of_patience(config: TrainConfig, progress: TrainingProgress) -> bool:
    """Whether so many epochs as the run allows did no better than the best one."""
    if config.patience is None or not progress.best_epoch:
        return False
    return progress.epoch - progress.best_epoch >= config.patience


def conclude(
    run: RunFolder,
    learner: Learner,
    images: RunImages,
    progress: TrainingProgress,
    console: Console,
) -> None:
    """Take the weights that are kept, draw them, say what looks wrong, and write the page.

    Args:
        run: The folder of the finished run.
        learner: What has learnt; `learner.weights` are the kept ones afterwards.
        images: The images of the run.
        progress: Where it stands.
        console: Where to say it.
    """
    config, vae, test = learner.config, learner.weights, images.test
    if progress.best_epoch:
        say(console, keep_best(run, vae, progress, config))
    train = replace(images.source, names=None).take(images.rows[:PREVIEW])
    if config.binarize == "dynamic":
        drawn = binarize_once(train.images, "train", config.binarize_seed)
        train = replace(train, images=drawn)
    draw_pictures(run, vae, train, test, config.seed)
    say(console, doctor.of_run(config, run.read_metrics()))
    given = given_labels_of(vae, test)
    say(console, doctor.of_model(given, test.images, load_metadata(run.path)))
    if config.report:
        write_report(run, vae, test, config.seed)


def keep_best(
    run: RunFolder, vae: VAE, progress: TrainingProgress, config: TrainConfig
) -> Iterator[str]:
    """Put the kept weights into a model, note in their file that the run is over, and say both.

    Raises:
        ModelFileError: the file of the best weights is not whole.
    """
    kept, metadata = load_model(run.model)
    vae.load_state_dict(kept.state_dict())
    save_model(run.model, vae, metadata.model_copy(update={"run_epochs": progress.epoch}))
    best, last = progress.best_epoch, progress.epoch
    if is_out_of_patience(config, progress):
        yield f"stopped after epoch {last}: {last - best} epochs did no better on validation images"
    yield (
        f"kept the weights of epoch {best} of {last}, the best on validation images: loss "
        f"{progress.best_loss:.2f}, bound {metadata.bound:.2f} nats per image; the last are in "
        f"{run.last}"
    )


def begin(learner: Learner, images: RunImages) -> None:
    """Give a learner the weights that it starts from.

    Raises:
        ModelFileError, ModelMismatchError: the model to start from cannot be.
    """
    if learner.config.init:
        start_from(learner, learner.config.init)
    elif learner.config.output_bias == "mean":
        learner.start_at(mean_observed(images))


def take_up(training: Training, saves: Saves) -> TrainingProgress:
    """Load the state of a run that was stopped, and drop what it recorded since.

    Raises:
        ModelFileError: no saved state can be continued from.
        ConfigError: it has more epochs than are asked for.
    """
    run, learner, epochs = saves.run, training.learner, training.config.epochs
    progress = saves.load()
    if progress.epoch > epochs:
        raise ConfigError(f"{run.path} has {progress.epoch} epochs already; ask for more")
    run.rewind_metrics(progress.epoch, progress.images, saves.note)
    if progress.epoch_images and not learner.sums_are_whole:
        saves.note(
            f"note: {run.resume} is of a version that did not sum the losses; train_loss of epoch "
            f"{progress.epoch + 1} has -log p(x|z) + beta KL for its first "
            f"{progress.epoch_images:,} images"
        )
    return progress


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


def finish_epoch(
    saves: Saves,
    train_means: Means,
    plan: BatchPlan,
    images: RunImages,
    progress: TrainingProgress,
    watch: Callback,
) -> None:
    """Validate, record and save at the end of an epoch; then stand at the next one, and show it.

    Raises:
        NonFiniteLossError: the loss of the validation images is infinite or not a number.
    """
    run, learner = saves.run, saves.learner
    config, vae = learner.config, learner.weights
    means, full_loss = validate(
        learner,
        images.validation.images,
        plan.last_settings(progress.epoch),
        conditions(vae.config, images.validation),
        images.validation.observed,
    )
    if not (means.is_finite() and math.isfinite(full_loss)):
        raise not_finite("the loss of the validation images is not finite", progress, run)
    row = {
        "event": "epoch",
        "epoch": progress.epoch + 1,
        "images": progress.images,
        **numbers("train", train_means, config, vae),
        **numbers("val", means, config, vae),
        "val_full_loss": full_loss,
        "validated_on": images.validated_on,
        "seconds": progress.seconds,
        "images_per_second": progress.epoch_images / progress.seconds,
    }
    if images.validation.observed is not None:
        row["val_observed"] = float(images.validation.observed.float().mean())
    if config.skip_norm is not None:
        row["skipped_steps"] = int(learner.skipped)
    run.append_metrics(row)

    progress.next_epoch()
    learner.start_epoch()
    metadata = facts_of(learner, progress, float(means.bound), images.validated_on)
    if images.held_out is None:
        save_model(run.model, vae, metadata)
    else:
        save_model(run.last, vae, metadata)
        if progress.is_best(full_loss):
            save_model(run.model, vae, metadata.model_copy(update={"kept": "best"}))
    saves.save(progress)
    watch.epoch(row, vae)
    if config.preview:
        name = f"epoch-{progress.epoch:04}.png"
        sheets.save_png(run.pictures / name, joint_picture(vae, images.test, config.seed))


def facts_of(
    learner: Learner, progress: TrainingProgress, bound: float, validated_on: ValidatedOn
) -> ModelMetadata:
    """What a model file says of the weights at a progress."""
    config = learner.config
    return ModelMetadata(
        model=learner.weights.config,
        data=config.data,
        crop=config.crop,
        split=config.split,
        skip_bad=config.skip_bad,
        recipe=config.recipe,
        binarize=config.binarize,
        binarize_seed=config.binarize_seed,
        mask=config.mask,
        epochs=progress.epoch,
        images=progress.images,
        bound=bound,
        validated_on=validated_on,
        versions=runtime.versions(),
    )


def numbers(prefix: str, means: Means, config: TrainConfig, vae: VAE) -> dict[str, float | None]:
    """Means under the names of `metrics.jsonl`; nats per image, but the last.

    `squared_error_and_kl` is what the MLX and Lux tutorials print: per full batch, that of an image
    times the batch size.
    """
    log_px, kl = float(means.log_px), float(means.kl)
    squared = squared_error_and_kl_per_image(vae.config, log_px, kl) if not config.mask else None
    return {
        f"{prefix}_loss": float(means.loss),
        f"{prefix}_log_px": log_px,
        f"{prefix}_kl": kl,
        f"{prefix}_bound": float(means.bound),
        f"{prefix}_squared_error_and_kl": None if squared is None else squared * config.batch_size,
    }


def announce(console: Console, config: TrainConfig, vae: VAE, device: torch.device) -> None:
    """Say what is about to run: every setting, the device, the size of the model."""
    lines = [f"convvae {runtime.versions()['convvae']} on {runtime.describe_device(device)}"]
    lines += [f"  {name} = {value}" for name, value in config.model_dump(mode="json").items()]
    lines += [f"{vae.num_parameters() / 1e6:.4f} M trainable parameters"]
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def say(console: Console, lines: Iterable[object]) -> None:
    """Print remarks and notes, a line each."""
    for line in lines:
        console.print(str(line), soft_wrap=True, highlight=False, markup=False)
