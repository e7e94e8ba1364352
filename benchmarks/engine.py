"""Time variants of convvae's own training step: what each part of the engine is worth.

    CONVVAE_DATA=FOLDER python -m benchmarks.engine [--recipe photos] [--rounds 7] [--steps 20]

Every variant takes some steps in turn, in one process, so that whatever else slows the machine
slows every variant. See docs/performance.md for what is timed and what is counted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine, report
from benchmarks.plain import upsample_plainly, use_nchw
from benchmarks.summary import ENGINE_HEADER, PLAIN, summarise_engine
from benchmarks.workers.common import SIDE, WARM_UP, available_cores, use_cores
from benchmarks.workers.convvae import RECIPE
from convvae import data, runtime
from convvae.config import ModelConfig, TrainConfig
from convvae.data.pixels import to_unit
from convvae.errors import ConvvaeError
from convvae.model.objectives import elbo, loss
from convvae.model.vae import VAE
from convvae.training.learner import Learner
from convvae.training.loop import BatchPlan
from convvae.training.recipes import load_recipe
from convvae.training.schedules import StepSettings

CPU = torch.device("cpu")
SHAPES = {
    RECIPE: (1, SIDE, SIDE),
    "mnist-ladder": (1, 28, 28),
    "photos": (3, 32, 32),
    "photos-64": (3, 64, 64),
}
"""Recipe -> channels, height and width of the images that it is timed on."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class SkippedError(Exception):
    """A variant that this machine cannot run; the message is the reason, one line."""


@dataclass(frozen=True)
class Variant:
    """A way to compute the same training step."""

    name: str
    what: str
    precision: str = "float32"
    by_phases: bool = True
    """Whether up-convolutions go by phases, or upsample and then convolve."""
    channels_last: bool = True
    compiled: bool = False
    """Whether the forward pass, likelihood and loss too, goes through torch.compile."""

    def check(self) -> None:
        """Check that this machine can run it.

        Raises:
            SkippedError: it cannot.
        """
        if self.precision == "bfloat16" and runtime.pick_precision("auto", CPU) != "bfloat16":
            raise SkippedError("this processor does not compute in bfloat16 natively")
        if self.compiled and not shutil.which(runtime.cpp_compiler()):
            raise SkippedError(f"no C++ compiler: {runtime.cpp_compiler()} is not there")


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(PLAIN, "nearest upsampling, then a 3x3 convolution", "float32", False, False),
        Variant("plain-nhwc", "the same, channels-last", "float32", False),
        Variant("float32", "by phases and channels-last: convvae in float32"),
        Variant("bfloat16", "the same under autocast: convvae in bfloat16", "bfloat16"),
        Variant("float32-compiled", "`float32` under torch.compile", compiled=True),
        Variant("bfloat16-compiled", "`bfloat16` under torch.compile", "bfloat16", compiled=True),
    )
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    recipe: str
    variants: list[str]
    rounds: int
    steps: int
    batch_size: int
    images: int
    threads: int
    data_dir: Path | None
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement; the data folder is the reader's own."""
        words = ["--recipe", self.recipe, "--variants", ",".join(self.variants)]
        words += ["--rounds", str(self.rounds), "--steps", str(self.steps)]
        words += ["--batch-size", str(self.batch_size), "--images", str(self.images)]
        words += ["--threads", str(self.threads)]
        return shlex.join(["python", "-m", "benchmarks.engine", *words])


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--recipe", choices=SHAPES, default=RECIPE, help="default: %(default)s")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="of every variant in a round")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=12_800, help="to draw batches from")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all cores")
    parser.add_argument(
        "--data-dir", type=Path, default=os.environ.get("CONVVAE_DATA"), help="else random pixels"
    )
    parser.add_argument("--out", type=Path, default=report.RESULTS / "engine.json")
    given = parser.parse_args(arguments)
    given.variants = given.variants.split(",")
    if unknown := [name for name in given.variants if name not in VARIANTS]:
        parser.error(f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    if min(given.rounds, given.steps, given.threads) < 1:
        parser.error("--rounds, --steps and --threads must be at least 1")
    if not 2 <= given.batch_size <= given.images:
        parser.error("--batch-size must be at least 2, and --images at least a batch")
    return Options(**vars(given))


def settings(recipe: str, precision: str, batch_size: int) -> TrainConfig:
    """A recipe in whole batches, with nothing left to `auto`."""
    asked = {"precision": precision, "device": "cpu", "batch_size": batch_size, "drop_last": True}
    return TrainConfig.checked({"data": "mnist", **load_recipe(recipe), **asked}, recipe)


def model(recipe: str) -> ModelConfig:
    """The model that a recipe makes of images of its shape."""
    channels, *size = SHAPES[recipe]
    return settings(recipe, "float32", 128).model((size[0], size[1]), channels)


def load_images(options: Options) -> Tensor:
    """Resized training images of MNIST, [N, 1, H, W].

    Random bytes, [N, C, H, W], where no folder has any, and for recipes of colour images.
    """
    channels, *size = SHAPES[options.recipe]
    if _is_random(options):
        shape = (options.images, channels, *size)
        return torch.randint(256, shape, generator=runtime.generator(0, "bytes")).to(torch.uint8)
    found = data.load("mnist", "train", data_dir=options.data_dir, limit=options.images)
    return data.resize(found.images, (size[0], size[1]))


def _is_random(options: Options) -> bool:
    return options.data_dir is None or SHAPES[options.recipe][0] > 1


def flops_per_image(recipe: str) -> int:
    """Arithmetic of the network by phases, forward and backward, per image.

    A multiply-add counts as two. Counted: convolutions, transposed convolutions and matrix products
    of encoder and decoder, with the gradients of weights and inputs that are needed. Not counted:
    biases, the tying of weights, normalisation, everything element by element, the optimiser.
    """
    vae, batch = VAE(model(recipe)), 2
    x = torch.zeros(batch, *SHAPES[recipe])
    eps = torch.zeros(1, batch, vae.config.latent_dims)
    with FlopCounterMode(display=False) as counter:
        loss(elbo(vae, x, eps)).backward()
    return counter.get_total_flops() // batch


class Runner:
    """A variant in training: the same weights, batches and noise for every variant.

    Args:
        variant: The variant.
        recipe: Name of the recipe.
        images: uint8 [N, C, H, W].
        batch_size: Images per step.
    """

    def __init__(self, variant: Variant, recipe: str, images: Tensor, batch_size: int) -> None:
        self.config = settings(recipe, variant.precision, batch_size)
        self.learner = learner(variant, self.config, model(recipe))
        self.images = images
        self.batches = BatchPlan(self.config, torch.arange(len(images))).batches(0)
        self.steps = 0

    def step(self) -> float:
        """Gather a batch of bytes, draw noise, take a step; the seconds that it took."""
        config, began = self.config, time.perf_counter()
        seen = self.steps * config.batch_size
        x = to_unit(self.images[self.batches[self.steps % len(self.batches)]])
        shape = (config.mc_samples, len(x), self.learner.vae.config.latent_dims)
        eps = runtime.noise(shape, config.seed, "train", seen)
        self.learner.step(x, eps, StepSettings(config.lr, config.beta, seen))
        self.steps += 1
        return time.perf_counter() - began


def learner(variant: Variant, config: TrainConfig, model: ModelConfig) -> Learner:
    """convvae's own learner, its network turned into that of the variant."""
    made = Learner(config, model, CPU, 60_000)
    if not variant.by_phases:
        upsample_plainly(made.vae)
    if not variant.channels_last:
        use_nchw(made.vae)
    if variant.compiled:
        made.forward_pass.compile()
    return made


def warm_up(variant: Variant, options: Options, images: Tensor) -> tuple[Runner, float]:
    """A runner after its first steps, and the seconds of the very first, which compiles.

    Raises:
        SkippedError: this machine cannot run the variant, or torch.compile fails.
    """
    variant.check()
    runner = Runner(variant, options.recipe, images, options.batch_size)
    try:
        first, *_ = [runner.step() for _ in range(WARM_UP)]
    except RuntimeError as error:
        if not variant.compiled:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise SkippedError(f"torch.compile failed: {reason}") from error
    return runner, first


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Warm every variant up, then time them in turn, round by round."""
    result = report.begin("engine", options.command(), console)
    use_cores(options.threads)
    torch.set_num_threads(options.threads)
    images = load_images(options)
    variants, runners = _start(options, images, console)
    used = {VARIANTS[name].precision for name in runners}
    ceilings: dict[str, list[float]] = {name: [] for name in DTYPES if name in used}
    for number in range(options.rounds):
        for precision, found in ceilings.items():
            found.append(machine.matmul_ceiling(DTYPES[precision]))
        for name, seconds in take_turns(runners, options.steps).items():
            speed = options.steps * options.batch_size / seconds
            variants[name]["rounds"].append({"round": number, "images_per_second": speed})
            report.say(console, f"round {number + 1}  {name}: {speed:,.1f} images/s")
    return {
        **result,
        "versions": runtime.versions(),
        "rounds": options.rounds,
        "steps": options.steps,
        "threads": options.threads,
        "batch_size": options.batch_size,
        "recipe": options.recipe,
        "images": "random bytes" if _is_random(options) else "MNIST",
        "flops_per_image": flops_per_image(options.recipe),
        "ceiling_gflops": ceilings,
        "variants": variants,
    }


def _start(
    options: Options, images: Tensor, console: Console
) -> tuple[dict[str, dict[str, Any]], dict[str, Runner]]:
    """The record of every variant, and the runners of those that can run here."""
    records: dict[str, dict[str, Any]] = {}
    runners: dict[str, Runner] = {}
    for variant in (VARIANTS[name] for name in options.variants):
        record = {"what": variant.what, "precision": variant.precision, "compile_seconds": None}
        records[variant.name] = record | {"rounds": [], "error": None}
        try:
            runners[variant.name], first = warm_up(variant, options, images)
        except SkippedError as error:
            records[variant.name]["error"] = str(error)
            report.say(console, f"{variant.name}: skipped, {error}")
            continue
        if variant.compiled:
            records[variant.name]["compile_seconds"] = first
    return records, runners


def take_turns(runners: dict[str, Runner], steps: int) -> dict[str, float]:
    """Seconds that each runner takes for so many steps, runner after runner.

    A first step of each is not timed: it finds the caches full of its predecessor's tensors.
    """
    seconds: dict[str, float] = {}
    for name, runner in runners.items():
        runner.step()
        seconds[name] = sum(runner.step() for _ in range(steps))
    return seconds


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table."""
    summaries = summarise_engine(result)
    report.show(console, result, ENGINE_HEADER, [[item.name, *item.cells()] for item in summaries])
    for item in summaries:
        if item.error:
            report.say(console, f"{item.name}: skipped, {item.error}")


def main() -> None:
    """Measure, print and write."""
    options = parse()
    console = report.console()
    runtime.keep_freed_memory()
    with tempfile.TemporaryDirectory() as cache:
        # An empty cache, so that compiling takes as long as the first time.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        try:
            result = measure(options, console)
        except ConvvaeError as error:
            raise SystemExit(str(error)) from error
    show(result, console)
    report.write(console, result, options.out)


if __name__ == "__main__":
    main()
