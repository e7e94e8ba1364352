"""The public face: what a notebook calls, on arrays and without a run folder.

Each is a thin layer over the room that does the work: `training.run`, `evaluation`, `data`. Images
are NumPy arrays, torch tensors, or what `load_images` gives. An array is `[N, H, W]`,
`[N, H, W, C]` or `[N, C, H, W]` with C from 1 to 4: uint8, or floats in [0, 1]. The axis with at
most 4 places is C, and an array in which both axes could be is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from convvae import data
from convvae.config import Size, TrainConfig
from convvae.data.in_memory import IN_MEMORY, image_set
from convvae.data.pixels import binarize_once
from convvae.data.sources import prepared
from convvae.errors import (
    ConfigError,
    ImageSizeError,
    NonFiniteLossError,
    StoppedError,
    did_you_mean,
)
from convvae.evaluation import encode as encoding
from convvae.evaluation import reconstruction
from convvae.evaluation.evaluate import Evaluation
from convvae.evaluation.evaluate import evaluate as evaluate_images
from convvae.evaluation.masks import MARKED, masked
from convvae.evaluation.runs import (
    Comparison,
    Measured,
    Wanted,
    check_runs,
    measure_run,
    open_run,
)
from convvae.evaluation.runs import compare as compare_runs
from convvae.model.checkpoint import ModelMetadata, load_model
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE
from convvae.training import holdout
from convvae.training import run as training
from convvae.training.callbacks import Callback
from convvae.training.fine_tuning import settings_like
from convvae.training.progress import TrainingDisplay
from convvae.training.recipes import load_recipe

if TYPE_CHECKING:
    from convvae.data import ImageSet, Split
    from convvae.training.holdout import RunImages

Images: TypeAlias = "NDArray[Any] | Tensor | ImageSet"
"""Images, as every function here takes them."""
ON_DISK = ("out", "data_dir", "split", "skip_bad")
"""Settings that say nothing of an array."""


class Trained(NamedTuple):
    """A trained model and how it came to be."""

    model: VAE
    """In evaluation mode, on the CPU: the weights that did best on the images held out."""
    metadata: ModelMetadata
    """What its file would say, for `convvae.model.save_model(path, model, metadata)`."""
    metrics: list[dict[str, Any]]
    """The lines of `metrics.jsonl`; those whose `event` is `epoch` end an epoch."""


@overload
def train(
    source: TrainConfig,
    /,
    console: Console | None = None,
    resume: Path | None = None,
    callbacks: Iterable[Callback] = (),
) -> RunFolder: ...


@overload
def train(
    source: Images | str | Path,
    /,
    console: Console | None = None,
    *,
    callbacks: Iterable[Callback] = (),
    **settings: Any,  # noqa: ANN401
) -> Trained: ...


def train(
    source: TrainConfig | Images | str | Path,
    /,
    console: Console | None = None,
    resume: Path | None = None,
    callbacks: Iterable[Callback] = (),
    **settings: Any,
) -> RunFolder | Trained:
    r"""Train a VAE: it minimises beta KL(q(z|x) || p(z)) - E_q[log p(x|z)], in nats per image.

    - `train(images, latent_dims=8, epochs=20)` trains on an array, `train("mnist", epochs=20)` on
      any source that `load_images` opens. Nothing stays on disk unless `out=FOLDER` is given. A
      share of the images, `validation`, is held out and chooses the weights that are kept.
    - `train(TrainConfig(...))` writes a run folder, as `convvae train` does, and returns it;
      `load_model(run.path)` has its model.

    Args:
        source: Images (see `load_images`), a source of them, or all settings as a `TrainConfig`.
        console: Where to show progress; absent, standard output. `Console(quiet=True)` of rich
            shows nothing.
        resume: Continue the run in this folder, of a `TrainConfig` only.
        callbacks: What else watches the run, see `convvae.training.callbacks`.
        settings: Those of `TrainConfig`, by their names; `recipe="mlx-cvae"` starts from a recipe.

    Returns:
        `Trained`: model, metadata, metrics; of a `TrainConfig` its `RunFolder`.

    Raises:
        ConfigError: a setting is not known, out of its range, or says nothing of an array.
        CorruptDataError: the array is none of images, see `load_images`.
        ImageSizeError: the images are smaller than 8 pixels a side.
        NonFiniteLossError: the loss became infinite or not a number.
        StoppedError: Ctrl-C, SIGTERM, or a callback.

    Source: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Examples:
        >>> images = np.random.default_rng(0).random((40, 8, 8))  # [N, H, W], floats in [0, 1]
        >>> quiet = Console(quiet=True)
        >>> model = train(images, quiet, latent_dims=2, max_filters=4, epochs=1).model
        >>> generate(model, 3).shape
        (3, 1, 8, 8)
    """
    if isinstance(source, TrainConfig):
        if settings:
            raise ConfigError(
                f"{', '.join(settings)} goes into the TrainConfig: it has all settings of the run"
            )
        return training.train(source, console, resume, callbacks)
    if resume is not None:
        raise ConfigError("resume continues a run folder: give its TrainConfig, not images")
    settings = _whole(settings)
    if isinstance(source, str | Path):
        config = TrainConfig.checked({"data": str(source), **settings}, "train")
        return _train_with(config, None, console, callbacks)
    return _train_with(*_in_memory(source, settings), console, callbacks)


def _whole(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a call with those that stand behind them: a recipe's, an earlier model's.

    Raises:
        ConfigError: one is no setting.
        UsageError: there is no such recipe.
        ModelFileError: there is no such model.
    """
    _check_names(settings)
    if settings.get("recipe"):
        settings = {**load_recipe(settings["recipe"]), **settings}
    if settings.get("init"):
        settings = {**settings_like(settings["init"]), **settings}
    kept = settings.get("out") is not None
    return {"preview": kept, "report": kept, **settings}


def _in_memory(source: Images, settings: dict[str, Any]) -> tuple[TrainConfig, RunImages]:
    """The run that is meant by an array, and its images, a share of them held out.

    Raises:
        ConfigError: a setting is out of its range, or says nothing of an array.
        CorruptDataError: the array is none of images.
        ImageSizeError: the images are too small.
    """
    for name in ON_DISK:
        if name in settings:
            raise ConfigError(
                f"{name} is for images on disk, and these are in memory; save them as a .npy file "
                f"and give its path, or leave out {name}"
            )
    config = TrainConfig.checked({"data": IN_MEMORY, "split": "none", **settings}, "train")
    found = load_images(
        source,
        image_size=config.image_size,
        channels=config.channels,
        crop=config.crop,
        limit=config.limit,
        mask=MARKED if config.mask == MARKED else None,
    )
    found = masked(found, config.mask, config.seed)
    train_images = holdout.binarized(found, "train", config)
    test_images = holdout.binarized(found, "test", config)
    return config, holdout.divide(train_images, test_images, config)


def _check_names(settings: dict[str, Any]) -> None:
    """Refuse what is no setting.

    Raises:
        ConfigError: it is none.
    """
    known = TrainConfig.model_fields.keys() - {"data"}
    for name in settings:
        if name not in known:
            raise ConfigError(
                f"train has no setting {name!r}{did_you_mean(name, sorted(known))}; "
                "help(convvae.TrainConfig) lists them"
            )


def _train_with(
    config: TrainConfig,
    images: RunImages | None,
    console: Console | None,
    callbacks: Iterable[Callback],
) -> Trained:
    """Train in the run folder that was asked for, else in one that does not outlive the training.

    Raises:
        NonFiniteLossError: the loss became infinite or not a number.
        StoppedError: training was stopped.
    """
    if config.out is not None:
        return _trained(training.train(config, console, callbacks=callbacks, images=images))
    watch = [TrainingDisplay(console or Console()), *callbacks]
    with TemporaryDirectory(prefix="convvae-") as folder:
        inside = config.model_copy(update={"out": Path(folder)})
        try:
            run = training.train(inside, Console(quiet=True), callbacks=watch, images=images)
        except StoppedError:
            raise StoppedError(
                "training was stopped, and nothing of it is kept; train a source on disk with "
                "out=FOLDER to keep a run that can be continued"
            ) from None
        except NonFiniteLossError:
            raise NonFiniteLossError(
                "the loss or a weight became infinite or not a number; train anew with a lower lr "
                "or with clip_norm=1"
            ) from None
        return _trained(run)


def _trained(run: RunFolder) -> Trained:
    return Trained(*load_model(run.path), run.read_metrics())


def load_images(
    source: Images | str | Path,
    part: Split = "train",
    *,
    image_size: Size | int | None = None,
    channels: int | None = None,
    crop: bool = False,
    limit: int | None = None,
    split: str = "auto",
    skip_bad: bool = False,
    data_dir: str | Path | None = None,
    mask: str | None = None,
) -> ImageSet:
    """Images from anywhere: a published set, one's own files, or an array.

    An array is `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` with C from 1 to 4: uint8, bool,
    uint16 (the high byte is kept), or floats in [0, 1] (rounded to the nearest of 256 levels). The
    axis with at most 4 places is C; an array in which both could be is refused.

    Args:
        source: A name such as `mnist`, a folder, archive, array file or table, `hf:OWNER/NAME`, or
            an array; see `convvae.data.load`.
        part: "train" or "test"; an array is all there is, and only called so.
        image_size: Height and width to resize to, a single number for both; None leaves them.
        channels: 1 grey, 3 RGB; of files also 2 and 4, with alpha. None leaves them.
        crop: Cut to the aspect of that size at the centre, instead of padding with black.
        limit: The first so many images.
        split: How images on disk are divided: auto, folders, a share held out, or none.
        skip_bad: Leave out files that cannot be read.
        data_dir: Folder with the files of a published set.
        mask: Pixels that are missing: "marked" takes those that are NaN, that an array `missing`
            of an `.npz` names, or that are not opaque; others as `--mask` of `train` has them.

    Returns:
        `ImageSet`: `images` uint8 `[N, C, H, W]`, `labels` int64 `[N]` or None, `observed` bool
        `[N, 1, H, W]` or None where no pixel is missing.

    Raises:
        CorruptDataError: an array or a file is not one of images, or an array can be read in two
            ways.
        ConfigError: `limit`, `channels` or `split` do not fit, or say nothing of an array.
        ImageSizeError: images of several sizes, and no `image_size`.
        ConvvaeError: as `convvae.data.load`.

    Examples:
        >>> load_images(np.zeros((5, 28, 28, 3), np.uint8), image_size=8).images.shape
        torch.Size([5, 3, 8, 8])
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    prepare = data.Preparation(
        image_size=size,
        channels=channels,
        crop=crop,
        split=split,
        skip_bad=skip_bad,
        marked=mask == MARKED,
    )
    if isinstance(source, str | Path):
        folder = None if data_dir is None else Path(data_dir)
        found = data.load(str(source), part, data_dir=folder, limit=limit, prepare=prepare)
        return masked(found, mask, 0)
    if split != "auto" or skip_bad or data_dir is not None:
        raise ConfigError("split, skip_bad and data_dir are for images on disk; leave them out")
    marked = mask == MARKED
    found = source if isinstance(source, data.ImageSet) else image_set(source, part, marked=marked)
    if limit is not None:
        if not 1 <= limit <= len(found):
            raise ConfigError(f"limit is {limit}, but there are {len(found)} images")
        found = found.take(torch.arange(limit))
    if found.observed is not None and size not in (None, (found.height, found.width)):
        raise ImageSizeError(
            f"images of {found.height}x{found.width} of which pixels are missing are not resized; "
            "leave out image_size, or resize them before"
        )
    return masked(replace(found, images=prepared(found.images, prepare)), mask, 0)


def evaluate(
    model: VAE, images: Images, *, seed: int = 0, mc_samples: int = 1, samples: int = 0
) -> Evaluation:
    r"""What a model is worth on images: bound = E_q[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x).

    Args:
        model: The model.
        images: See `load_images`; of the model's size and channels. Of those that
            `load_images(..., mask=...)` gives, bounds and errors are of the observed pixels.
        seed: Of the noise, which is a function of it and of each image.
        mc_samples: Draws of z per image for `log_px`.
        samples: Draws K of z per image for the importance-weighted bound; 0 leaves it out.

    Returns:
        `Evaluation`: `bound`, `log_px`, `kl` in nats per image, `squared_error` per value,
        each with `.mean` and `.standard_error` over the images; `psnr` in dB, and more.

    Raises:
        ImageSizeError: the images do not fit the model.
        CorruptDataError: the array is none of images, see `load_images`.

    Examples:
        >>> found = evaluate(_tiny(), np.zeros((5, 8, 8), np.uint8))
        >>> abs(found.log_px.mean - found.kl.mean - found.bound.mean) < 1e-9
        True
    """
    fitting = _fitting(model, images)
    if isinstance(images, data.ImageSet):
        model = model.observing(images.observed)
    return evaluate_images(model, fitting, seed=seed, mc_samples=mc_samples, samples=samples)


def compare(
    runs: Sequence[str | Path],
    images: Images,
    *,
    seed: int = 0,
    samples: int = 0,
    quality: int = 0,
    features: str = "mnist",
) -> Comparison:
    """Training runs side by side, evaluated on the same images.

    Runs that differ by their seed alone are taken together: a mean, and the standard deviation over
    them. A model of black and white pixels is given a draw of them, as `convvae compare` does.

    Args:
        runs: Two run folders or more, or names of pretrained models.
        images: See `load_images`; of the models' size and channels.
        seed: Of all that is drawn, the same for all.
        samples: Draws K of z per image for the importance-weighted bound; 0 leaves it out.
        quality: Samples to compare with the images as sets; 0 leaves it out.
        features: Feature space of that comparison, mnist or inception.

    Returns:
        `Comparison`: print it for the table; `.csv()` has every run, `.notes` what does not
        compare, `convvae.figures.compared` draws it.

    Raises:
        UsageError: there are fewer than two runs, or one is there twice.
        ModelFileError: one is no run folder, or has no finished epoch.
        ImageSizeError: the images do not fit a model.
        ConfigError: a model was trained with labels, and the images have none.
    """
    check_runs([str(name) for name in runs])
    found, measured = load_images(images), list[Measured]()
    wanted = Wanted(seed, samples, quality, features)
    for run in map(open_run, runs):
        grey, metadata = _fitting(run.vae, images), run.metadata
        once = metadata.binarize != "none"
        seen = binarize_once(grey, found.split, metadata.binarize_seed) if once else grey
        measured.append(measure_run(run, replace(found, images=seen), grey, wanted))
    return compare_runs(measured)


def generate(model: VAE, count: int, *, seed: int = 0) -> NDArray[np.float32]:
    """New images: the means of p(x|z) at draws z ~ p(z).

    Args:
        model: The model.
        count: Number of images N, at least 1.
        seed: Of the draws; the same seed draws the same images.

    Returns:
        float32 in [0, 1], `[N, C, H, W]`.

    Raises:
        ConfigError: `count` is under 1.

    Examples:
        >>> generate(_tiny(), 4, seed=1).shape
        (4, 1, 8, 8)
    """
    if count < 1:
        raise ConfigError(f"count is {count}, but at least 1 image is needed")
    return encoding.generate(model, count, seed=seed).numpy()


def reconstruct(model: VAE, images: Images) -> NDArray[np.float32]:
    """Images from their codes: the means of p(x|z) at the location of q(z|x), without any draw.

    Args:
        model: The model.
        images: See `load_images`; of the model's size and channels.

    Returns:
        float32 in [0, 1], `[N, C, H, W]`.

    Raises:
        ImageSizeError: the images do not fit the model.
        CorruptDataError: the array is none of images, see `load_images`.

    Examples:
        >>> reconstruct(_tiny(), np.zeros((5, 8, 8), np.uint8)).shape
        (5, 1, 8, 8)
    """
    return reconstruction.reconstruct(model, _fitting(model, images)).numpy()


def encode(model: VAE, images: Images) -> NDArray[np.float32]:
    """The codes of images: the location of q(z|x), which is its mean, or f(mu) of a flow.

    Args:
        model: The model.
        images: See `load_images`; of the model's size and channels.

    Returns:
        float32 `[N, D]`.

    Raises:
        ImageSizeError: the images do not fit the model.
        CorruptDataError: the array is none of images, see `load_images`.

    Examples:
        >>> encode(_tiny(), np.zeros((5, 8, 8), np.uint8)).shape
        (5, 2)
    """
    return encoding.posterior_means(model, _fitting(model, images))[0].numpy()


def _fitting(model: VAE, images: Images) -> Tensor:
    """Images as the model takes them, uint8 [N, C, H, W].

    Raises:
        ImageSizeError: they are of another size, or have other channels.
    """
    found = load_images(images)
    channels, (height, width) = model.config.channels, model.config.image_size
    if found.images.shape[1:] != (channels, height, width):
        here = "x".join(str(size) for size in found.images.shape[1:])
        raise ImageSizeError(
            f"images of {here} (channels x height x width) do not fit a model of {channels}x"
            f"{height}x{width}; load_images(images, image_size=({height}, {width}), "
            f"channels={channels}) makes them fit"
        )
    return found.images


def _tiny() -> VAE:
    """A model for the examples above."""
    from convvae.config import ModelConfig

    return VAE(ModelConfig(image_size=(8, 8), channels=1, latent_dims=2, max_filters=4)).eval()
