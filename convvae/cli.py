"""The command line: thin commands over the library, their flags made from configurations.

Heavy imports are inside the commands, so that `convvae --help` answers at once. An error that the
user can mend is one line on stderr and the exit code of its class; `--debug` adds the traceback.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from tyro.conf import FlagCreatePairsOff, Positional, arg

from convvae.config import DeviceName, Frozen, TrainConfig, UserPath, load_recipe
from convvae.errors import (
    ConvvaeError,
    ModelMismatchError,
    OutOfMemoryError,
    StoppedError,
    UsageError,
    did_you_mean,
)
from convvae.flags import parse, take_option

if TYPE_CHECKING:
    from convvae.checkpoint import Facts
    from convvae.model import VAE

RESUMABLE = frozenset({"data_dir", "device", "epochs", "log_every", "preview"})
"""Settings that a resumed run may change; all others decide its result."""


class ModelOptions(Frozen):
    """Which model; and the tutorials' flags that repeat what the model file knows."""

    model: Positional[str]
    """Run folder, .safetensors file, or name of a pretrained model."""
    latent_dims: int | None = None
    """Not needed; refused if the model has another number."""
    max_filters: int | None = None
    """Not needed; refused if the model has another number."""
    channels: Annotated[int | None, arg(aliases=["--nimg-channels"])] = None
    """Not needed; refused if the model has another number."""
    device: DeviceName = "auto"
    """Where to compute (--cpu is short for --device cpu)."""


class GenerateOptions(ModelOptions):
    """Write a grid of images decoded from draws of the prior."""

    outfile: UserPath = Path("samples.png")
    """PNG file to write."""
    count: int = Field(default=128, ge=1, le=100_000)
    """Number of images."""
    rows: int = Field(default=8, ge=1)
    """Rows of the grid."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""


class ReconstructOptions(ModelOptions):
    """Write a grid of images, each with its reconstruction at its right."""

    data: Positional[str | None] = None
    """Images: digits, mnist, fashion-mnist or kmnist; else those of the training."""
    rec_testdata: FlagCreatePairsOff[bool] = False
    """Take test images instead of training images."""
    data_dir: UserPath | None = None
    """Folder with the data files (else $CONVVAE_DATA, else downloaded)."""
    outdir: UserPath = Path("reconstructions")
    """Folder for reconstructions-train.png or reconstructions-test.png."""
    count: int = Field(default=64, ge=1, le=100_000)
    """Number of images, the first of the set."""
    rows: int = Field(default=8, ge=1)
    """Rows of the grid."""


class EvaluateOptions(ModelOptions):
    """Measure a model on test images: bounds, their parts and errors, latents, reconstructions."""

    data: Positional[str | None] = None
    """Images: digits, mnist, fashion-mnist or kmnist; else those of the training."""
    data_dir: UserPath | None = None
    """Folder with the data files (else $CONVVAE_DATA, else downloaded)."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate on the first so many images."""
    samples: int = Field(default=0, ge=0, le=1_000_000)
    """Draws K of z an image for the importance-weighted bound; 0 leaves it out."""
    binarize: Literal["auto", "none", "once"] = "auto"
    """Draw black or white pixels by the grey values; auto does what the training did."""
    binarize_seed: int | None = Field(default=None, ge=0)
    """Seed of that draw (else that of the training)."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws of z."""
    json_file: Annotated[UserPath | None, arg(name="json")] = None
    """Write the numbers to this file as well."""


class InfoOptions(Frozen):
    """Say what a model is, from its own file."""

    model: Positional[str]
    """Run folder, .safetensors file, or name of a pretrained model."""
    as_json: Annotated[FlagCreatePairsOff[bool], arg(name="json")] = False
    """Print JSON."""


class ModelsOptions(Frozen):
    """List the pretrained models."""


def train(args: list[str]) -> None:
    """Train a model on images and write a run folder (--resume RUN continues one)."""
    folder = take_option(args, "--resume")
    if folder is None:
        recipe = take_option(list(args), "--recipe")
        config = parse(TrainConfig, args, "convvae train", load_recipe(recipe) if recipe else {})
    else:
        config = _resumed_config(Path(folder), args)
    from rich.console import Console

    from convvae.train import train as run_training

    run_training(config, Console(), resume=None if folder is None else Path(folder))


def reconstruct(args: list[str]) -> None:
    """Write images beside their reconstructions."""
    options = parse(ReconstructOptions, args, "convvae reconstruct")
    vae, facts = _open_model(options)
    from convvae import data, evaluate, figures

    split = "test" if options.rec_testdata else "train"
    source = data.load(options.data or facts.data, split, data_dir=options.data_dir)
    some = replace(source, images=source.images[: options.count], labels=None)
    images = data.fit(some, facts.model.image_size, facts.model.channels)
    sheet = figures.paired_grid(images, evaluate.reconstruct(vae, images), options.rows)
    path = options.outdir / f"reconstructions-{split}.png"
    figures.save_png(path, sheet)
    print(f"wrote {path}: {len(images)} {split} images of {source.name}, each beside its own")


def generate(args: list[str]) -> None:
    """Write a grid of images decoded from draws of the prior."""
    options = parse(GenerateOptions, args, "convvae generate")
    vae, _ = _open_model(options)
    from convvae import evaluate, figures

    images = evaluate.generate(vae, options.count, seed=options.seed)
    figures.save_png(options.outfile, figures.grid(images, options.rows))
    print(f"wrote {options.outfile}: {options.count} samples of {options.model}")


def evaluate(args: list[str]) -> None:
    """Measure a model on test images: bounds with errors, latents, reconstructions."""
    options = parse(EvaluateOptions, args, "convvae evaluate")
    vae, facts = _open_model(options)
    from convvae import data, scorecard
    from convvae.data.pixels import binarize_once

    name = options.data or facts.data
    source = data.load(name, "test", data_dir=options.data_dir, limit=options.limit)
    images = data.fit(source, facts.model.image_size, facts.model.channels)
    seed = facts.binarize_seed if options.binarize_seed is None else options.binarize_seed
    as_trained = options.binarize == "auto" and facts.binarize != "none"
    drawn = as_trained or options.binarize == "once"
    if drawn:
        images = binarize_once(images, "test", seed)
    protocol = {
        "model": options.model,
        "data": f"{name} (test)",
        "images": len(images),
        "binarize_seed": seed if drawn else None,
        "samples": options.samples,
        "seed": options.seed,
    }
    scorecard.run(vae, images, protocol, options.json_file)


def info(args: list[str]) -> None:
    """Say what a model is and how it was trained."""
    options = parse(InfoOptions, args, "convvae info")
    from convvae.checkpoint import find_model, load_model

    vae, facts = load_model(options.model)
    content = {**facts.model_dump(mode="json"), "parameters": vae.num_parameters()}
    if options.as_json:
        print(json.dumps(content, indent=2))
        return
    print(find_model(options.model))
    for name, value in {**content.pop("model"), **content}.items():
        print(f"  {name:<13} {_in_words(value)}")


def models(args: list[str]) -> None:
    """List the pretrained models."""
    parse(ModelsOptions, args, "convvae models")
    from convvae.checkpoint import load_model, pretrained_models

    for name in pretrained_models():
        vae, facts = load_model(name)
        height, width = facts.model.image_size
        print(
            f"{name:<12} {facts.data} {height}x{width}x{facts.model.channels}, "
            f"{facts.model.latent_dims} latents, {facts.model.likelihood}, "
            f"{vae.num_parameters():,} parameters, {facts.epochs} epochs, "
            f"bound {facts.bound:.2f} nats/image"
        )


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    command.__name__: command for command in (train, reconstruct, generate, evaluate, info, models)
}


def main(words: list[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Arguments:
        words: The words after `convvae`; those of the process if absent.
    """
    args = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in args
    try:
        _dispatch([word for word in args if word != "--debug"])
    except (ConvvaeError, RuntimeError, MemoryError) as error:
        known = error if isinstance(error, ConvvaeError) else _memory_error(error)
        if known is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"convvae: {known}", file=sys.stderr)
        return known.exit_code
    except KeyboardInterrupt:
        print("convvae: interrupted", file=sys.stderr)
        return StoppedError.exit_code
    except BrokenPipeError:
        # The reader of a pipe is gone: be as quiet about it as other commands.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


def _memory_error(error: Exception) -> OutOfMemoryError | None:
    """The error to show for a failed allocation of PyTorch or Python; None for any other error."""
    words = str(error)
    if not isinstance(error, MemoryError) and not any(
        sign in words for sign in ("can't allocate memory", "out of memory")
    ):
        return None
    return OutOfMemoryError(
        "not enough memory; lower --batch-size, --mc-samples, --max-filters, --image-size "
        "or --count"
    )


def _dispatch(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help"):
        print(overview())
    elif args[0] == "--version":
        print(f"convvae {version('convvae')}")
    elif args[0] in COMMANDS:
        COMMANDS[args[0]](args[1:])
    else:
        hint = did_you_mean(args[0], COMMANDS)
        raise UsageError(f"no command {args[0]!r}{hint}; see convvae --help")


def overview() -> str:
    """What `convvae --help` prints."""
    lines = [
        "usage: convvae COMMAND ...",
        "",
        "Train convolutional variational autoencoders on images, look inside them, ship them.",
        "",
    ]
    lines += [f"  {name:<12} {command.__doc__}" for name, command in COMMANDS.items()]
    lines += [
        "",
        "convvae COMMAND --help lists the flags; --debug shows the traceback of an error.",
        "A first run, in under a minute: convvae train digits --image-size 32",
    ]
    return "\n".join(lines)


def _resumed_config(folder: Path, args: list[str]) -> TrainConfig:
    """The settings of a run folder with the few that a resumed run may change.

    Raises:
        UsageError: a flag would change the run's result.
    """
    from convvae.checkpoint import RunFolder

    saved = RunFolder.open(folder).read_config()["settings"]
    original = TrainConfig.checked(saved, str(folder / "config.json"))
    config = parse(TrainConfig, args, "convvae train", dict(original))
    for name in TrainConfig.model_fields:
        was, now = getattr(original, name), getattr(config, name)
        fixed = name not in RESUMABLE or (name == "epochs" and config.schedule != "constant")
        if was != now and fixed:
            raise UsageError(
                f"--{name.replace('_', '-')} {now} contradicts the run in {folder}, which has "
                f"{was}; resume without it, or start a new run"
            )
    return config


def _open_model(options: ModelOptions) -> tuple[VAE, Facts]:
    """The model of a command on its device.

    Raises:
        ModelFileError: there is no such model.
        ModelMismatchError: a flag contradicts the model file.
    """
    from convvae.checkpoint import load_model
    from convvae.runtime import pick_device

    vae, facts = load_model(options.model)
    for name in ("latent_dims", "max_filters", "channels"):
        asked, actual = getattr(options, name), getattr(facts.model, name)
        if asked not in (None, actual):
            raise ModelMismatchError(
                f"--{name} {asked} contradicts the model {options.model}, which has {actual}; "
                "leave the flag out, the model file knows"
            )
    return vae.to(pick_device(options.device)), facts


def _in_words(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return "x".join(str(item) for item in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)
