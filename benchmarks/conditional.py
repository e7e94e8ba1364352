"""What labels are worth to a model of MNIST: one that is told them beside one that is not.

    CONVVAE_DATA=FOLDER python -m benchmarks.conditional [--epochs 6] [--limit 10000]

Both are the recipe mnist-bernoulli with a smaller network, the first with `--condition label
--prior conditional`. Three numbers of the test images, binarised once, and of samples: the
difference of the two bounds, image by image with the same noise; how often the label of the largest
p(x|y) p(y) is the image's own, by one draw of black and white pixels from a grey image and by
several, whose log p(x|y) add up; and how often scikit-learn's support vector machine, which learnt
from real digits, names the label that a sample was asked for.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from sklearn.svm import SVC
from torch import Tensor

from benchmarks import report
from benchmarks.workers.common import available_cores
from convvae import data
from convvae.config import TrainConfig
from convvae.data.images import ImageSet
from convvae.data.pixels import binarize_once, to_unit
from convvae.evaluation.bounds import importance_bounds
from convvae.evaluation.encode import generate
from convvae.evaluation.estimates import Estimate
from convvae.evaluation.label_evidence import label_bounds, label_evidence
from convvae.model.checkpoint import load_model
from convvae.model.conditions import (
    combination_places,
    given_labels,
    given_labels_of,
    log_prior,
)
from convvae.model.vae import VAE
from convvae.runtime import versions
from convvae.training.recipes import load_recipe
from convvae.training.run import train

RECIPE = "mnist-bernoulli"
SMALLER: dict[str, Any] = {
    **{"network": "upsample", "latent_dims": 8, "max_filters": 32},
    "likelihood": "bernoulli-interleaved",
    **{"kl_warmup": 60_000, "ema_images": 120_000},
}
"""Settings that let a core train the recipe in minutes; the fewer latents, the more y must say."""
TOLD: dict[str, Any] = {"condition": "label", "prior": "conditional"}
"""Settings that make the recipe's model conditional."""
PENALTY = 10.0
"""C of the support vector machine, with the radial kernel and scikit-learn's width."""
HEADER = ["quantity", "value"]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    epochs: int
    limit: int | None
    test_images: int
    samples: int
    draws: int
    generated: int
    outside: int
    seed: int
    threads: int
    data_dir: Path | None
    out: Path

    def command(self) -> str:
        """The command that repeats the measurement; the data folder is the reader's own."""
        words = f"--epochs {self.epochs}" + (f" --limit {self.limit}" if self.limit else "")
        words += f" --test-images {self.test_images} --samples {self.samples}"
        words += f" --draws {self.draws}"
        words += f" --generated {self.generated} --outside {self.outside} --seed {self.seed}"
        return f"python -m benchmarks.conditional {words} --threads {self.threads}"


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conditional", description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit", type=int, help="the first so many training images")
    parser.add_argument("--test-images", type=int, default=10_000, help="drawn by the seed")
    parser.add_argument("--samples", type=int, default=10, help="of the importance-weighted bound")
    parser.add_argument("--draws", type=int, default=10, help="of the pixels of a grey image")
    parser.add_argument("--generated", type=int, default=1000, help="samples, as many of each")
    parser.add_argument("--outside", type=int, default=20_000, help="images that the SVM learns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=report.RESULTS / "conditional.json")
    return Options(**vars(parser.parse_args(arguments)))


def trained(options: Options, folder: Path, told: dict[str, Any]) -> VAE:
    """Train the recipe, told labels or not."""
    settings = {
        **load_recipe(RECIPE),
        **{"data": "mnist", "data_dir": options.data_dir, "limit": options.limit},
        **{"epochs": options.epochs, "seed": options.seed, "out": folder, "device": "cpu"},
        **{"preview": False, "report": False},
        **SMALLER,
        **told,
    }
    run = train(TrainConfig.checked(settings, RECIPE), Console(quiet=True))
    return load_model(run.path)[0]


def outside_classifier(options: Options) -> SVC:
    """A support vector machine that learnt real digits, grey as they are published."""
    real = data.load("mnist", "train", data_dir=options.data_dir).some(options.outside, 0)
    assert real.labels is not None
    machine = SVC(C=PENALTY, gamma="scale")
    machine.fit(flat(to_unit(real.images)), real.labels.numpy())
    return machine


def flat(images: Tensor) -> Any:  # noqa: ANN401
    """Images in [0, 1] as rows of numbers."""
    return images.flatten(1).numpy()


def named(machine: SVC, vae: VAE, options: Options) -> Estimate:
    """How often the classifier names the label that samples were asked for."""
    assert vae.config.condition is not None
    labels = vae.config.condition.labels
    right: list[Tensor] = []
    for place, label in enumerate(labels):
        model, seed = given_labels(vae, [label]), options.seed + place
        made = generate(model, options.generated // len(labels), seed=seed)
        right.append(torch.from_numpy(machine.predict(flat(made)) == int(label)))
    return Estimate.of(torch.cat(right).double())


def by_several_draws(vae: VAE, grey: ImageSet, options: Options) -> Estimate:
    """How often the own label has the largest sum_r log p(x_r|y) + log p(y), by the ELBO.

    x_r are draws of black and white pixels, each of the same grey image.
    """
    assert grey.labels is not None
    assert vae.config.condition is not None
    found = log_prior(vae.config.condition)
    for draw in range(options.draws):
        x = binarize_once(grey.images, "test", draw)
        found = found + label_bounds(vae, x, samples=0, seed=draw)
    places = combination_places(vae.config.condition, grey)
    return Estimate.of((found.argmax(1) == places).double())


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Train both models, and hold one against the other."""
    result = report.begin("conditional", options.command(), console)
    torch.set_num_threads(options.threads)
    grey = data.load("mnist", "test", data_dir=options.data_dir)
    drawn = ImageSet(binarize_once(grey.images, "test", 0), grey.labels, grey.name, "test")
    test = drawn.some(options.test_images, options.seed)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told = trained(options, Path(folder) / "told", TOLD)
        report.say(console, f"told the labels: {time.perf_counter() - began:.0f} s")
        plain = trained(options, Path(folder) / "plain", {})
    report.say(console, f"both trained: {time.perf_counter() - began:.0f} s")
    samples, seed = options.samples, options.seed
    bounds = [
        importance_bounds(model, test.images, samples=samples, seed=seed)
        for model in (given_labels_of(told, test), plain)
    ]
    evidence = label_evidence(told, test, samples=samples, seed=seed)
    machine = outside_classifier(options)
    real = grey.some(options.test_images, options.seed)
    assert real.labels is not None
    right = torch.from_numpy(machine.predict(flat(to_unit(real.images)))) == real.labels
    found = {
        "bound_told": Estimate.of(bounds[0]),
        "bound_plain": Estimate.of(bounds[1]),
        "difference": Estimate.of(bounds[0] - bounds[1]),
        "bound_without_label": evidence.without_label,
        "classifier_accuracy": evidence.accuracy,
        "accuracy_of_draws": by_several_draws(told, real, options),
        "outside_accuracy": Estimate.of(right.double()),
        "samples_named": named(machine, told, options),
    }
    return {
        **result,
        "versions": versions(),
        "threads": options.threads,
        "recipe": RECIPE,
        "settings": SMALLER,
        "epochs": options.epochs,
        "limit": options.limit,
        "test_images": len(test),
        "samples": samples,
        "draws": options.draws,
        "generated": options.generated,
        "seconds": time.perf_counter() - began,
        "numbers": {name: value._asdict() for name, value in found.items()},
    }


WORDS = {
    "bound_told": ("log p(x|y), bound, nats", 1),
    "bound_plain": ("log p(x) of the model without labels, bound, nats", 1),
    "difference": ("difference, paired, nats", 1),
    "bound_without_label": ("log p(x) by the sum over labels, bound, nats", 1),
    "classifier_accuracy": ("label of the largest p(x|y) p(y) is right, %", 100),
    "accuracy_of_draws": ("the same by several draws of each grey image, %", 100),
    "outside_accuracy": ("outside classifier on real digits, %", 100),
    "samples_named": ("outside classifier names the sample's label, %", 100),
}


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The table."""
    table: list[list[str]] = []
    for name, (words, scale) in WORDS.items():
        mean, error = (scale * result["numbers"][name][key] for key in ("mean", "standard_error"))
        table.append([words, f"{mean:.2f} ± {error:.2f}"])
    return table


def main() -> None:
    """Measure, print and write."""
    options = parse()
    console = report.console()
    result = measure(options, console)
    report.show(console, result, HEADER, rows(result))
    report.write(console, result, options.out)


if __name__ == "__main__":
    main()
