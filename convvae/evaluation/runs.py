"""Training runs side by side: settings that differ, and what each is worth on the same images.

Runs that differ in nothing but their seed are runs of one recipe, and share a column: the mean over
the runs, and the standard deviation over them. A run that is alone has the standard error over the
images. Where numbers of two runs are not of the same thing, a note says so.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from convvae.config import TrainConfig
from convvae.data import ImageSet
from convvae.data.pixels import is_binary
from convvae.errors import ModelFileError, UsageError
from convvae.evaluation.estimates import Estimate, Undefined
from convvae.evaluation.evaluate import Evaluation, measure, summary
from convvae.evaluation.sample_quality import feature_space, samples_against
from convvae.model.checkpoint import ModelMetadata, load_model
from convvae.model.conditions import given_labels_of
from convvae.model.run_folder import run_of
from convvae.model.vae import VAE
from convvae.parts import OF_BINARY_IMAGES

NO_RECIPE = frozenset(
    {
        *("seed", "out", "data_dir", "preview", "report", "tensorboard", "log_every"),
        *("save_every", "rollbacks"),
    }
)
"""Settings that may differ between runs of one recipe."""


class Run(NamedTuple):
    """A training run with its model."""

    name: str
    """As it was named."""
    vae: VAE
    metadata: ModelMetadata
    seed: int
    recipe: dict[str, Any]
    """Every setting that decides the result, but the seed."""
    trained_on: str | None
    """Fingerprint of its training images; None of runs of before it was recorded."""
    epochs: int
    """Epochs that it has finished."""
    seconds: float
    """Of training, without validation and pictures."""
    images_per_second: float
    device: str
    """What it ran on, last."""


def open_run(name: str | Path, note: Callable[[str], object] | None = None) -> Run:
    """A training run by its folder, or by the name of a pretrained model.

    Args:
        name: The folder or the name.
        note: Told of damaged lines of `metrics.jsonl`, which are left out.

    Raises:
        ModelFileError: there is no such run, or it has no finished epoch.
        ConfigError: its `config.json` or `metrics.jsonl` cannot be read.
    """
    folder = run_of(name)
    if folder is None or not folder.config.is_file():
        raise ModelFileError(
            f"{name} is a model without a run: nothing says how it was trained; give the folder "
            "that `convvae train` made"
        )
    epochs = [row for row in folder.read_metrics(note) if row["event"] == "epoch"]
    if not epochs:
        raise ModelFileError(
            f"{name} has no finished epoch in {folder.metrics}, and so no time and no speed; "
            "leave it out, or continue it with `resume`"
        )
    content = folder.read_config()
    config = TrainConfig.checked(content["settings"], str(folder.config))
    vae, metadata = load_model(name)
    settings = {key: getattr(config, key) for key in TrainConfig.model_fields}
    # What the images decided is as much a setting as what was chosen.
    settings |= {key: getattr(metadata.model, key) for key in ("image_size", "channels")}
    seconds = math.fsum(row["seconds"] for row in epochs)
    return Run(
        name=str(name),
        vae=vae,
        metadata=metadata,
        seed=config.seed,
        recipe={key: value for key, value in settings.items() if key not in NO_RECIPE},
        trained_on=content.get("images", {}).get("fingerprint"),
        epochs=epochs[-1]["epoch"],
        seconds=seconds,
        images_per_second=math.fsum(row["seconds"] * row["images_per_second"] for row in epochs)
        / seconds,
        device=content["ran_on"][-1]["device"],
    )


class Measured(NamedTuple):
    """A run with what it is worth on images."""

    run: Run
    found: Evaluation
    images: int
    """Images that it was evaluated on."""
    pixels: str
    """What was made of the images: their shape, and whether grey values became black or white."""
    of: str
    """What the bound is the logarithm of."""
    sampled: Sampled | None
    """How near its samples are to the images; None where that was not asked for."""


class Sampled(NamedTuple):
    """Samples of a model against real images."""

    how: str
    """How many, and in which feature space."""
    frechet_distance: float | Undefined
    kernel_distance: Estimate | Undefined


class Wanted(NamedTuple):
    """What is measured of every run."""

    seed: int = 0
    """Of all that is drawn; the same for all runs."""
    samples: int = 0
    """Draws K of z per image for the importance-weighted bound; 0 leaves it out."""
    quality: int = 0
    """Samples to compare with the images as sets; 0 leaves it out."""
    features: str = "mnist"
    """Feature space of that comparison."""


def measure_run(run: Run, images: ImageSet, grey: Tensor, wanted: Wanted) -> Measured:
    """Evaluate a run on images.

    Args:
        run: The run.
        images: As its model takes them, uint8, shape [N, C, H, W].
        grey: The same before they became black and white, which samples are compared with.
        wanted: What is measured.

    Raises:
        ConfigError: the model needs labels that the images do not have.
        UsageError: the feature space takes no images of that kind, or pixels are missing.
    """
    seed, samples = wanted.seed, wanted.samples
    pixels, vae = images.images, given_labels_of(run.vae, images)
    numbers = measure(vae, pixels, seed=seed, samples=samples)
    once, size = run.metadata.binarize != "none", " x ".join(map(str, pixels.shape[1:]))
    colours = f"black and white by seed {run.metadata.binarize_seed}" if once else "as they are"
    if images.observed is not None:
        if wanted.quality:
            raise UsageError(
                "`quality` compares whole images, and pixels of these are missing; leave it out"
            )
        colours += f", {1 - images.observed.double().mean():.1%} of the pixels missing"
    return Measured(
        run,
        summary(vae, pixels, numbers, samples),
        len(pixels),
        f"{size}, {colours}",
        _quantity(vae, pixels),
        _sampled(run.vae, grey, wanted) if wanted.quality else None,
    )


def _sampled(vae: VAE, real: Tensor, wanted: Wanted) -> Sampled:
    """How near a model's samples are to real images."""
    space = feature_space(wanted.features, vae.config.channels, vae.device)
    found = samples_against(vae, real, space, count=wanted.quality, seed=wanted.seed)
    how = f"{wanted.quality:,} samples, {space.name}"
    if isinstance(found, Undefined):
        return Sampled(how, found, found)
    return Sampled(how, found.frechet_distance, found.kernel_distance)


def _quantity(vae: VAE, pixels: Tensor) -> str:
    """What the bound of a model is the logarithm of."""
    told = vae.config.condition
    names = [] if told is None else [f"the {column.name}" for column in told.columns]
    given = f" given {' and '.join(names)}" if names else ""
    if vae.head.is_mass:
        return f"probabilities of 256 values{given}"
    if vae.config.likelihood not in OF_BINARY_IMAGES:
        return f"densities{given}"
    if is_binary(pixels):
        return f"probabilities of black and white{given}"
    return f"a Bernoulli at grey values, which is no density{given}"


def _of(one: Measured) -> Sampled:
    assert one.sampled is not None
    return one.sampled


class Cell(NamedTuple):
    """A number of a recipe."""

    mean: float
    error: float | None
    """Standard error over images of one run, standard deviation over several; None of neither."""


class Quantity(NamedTuple):
    """A row of the table."""

    name: str
    unit: str
    form: str
    """Of `format`."""
    of: Callable[[Measured], Estimate | Undefined | float | None]


def quantities(one: Measured) -> list[Quantity]:
    """What runs are compared by that were measured as this one."""
    nats, samples, sampled = "nats per image", one.found.samples, one.sampled
    found = [Quantity("bound (ELBO)", nats, ".2f", lambda one: one.found.bound)]
    if samples:
        name = f"bound of {samples} weights"
        found.append(Quantity(name, nats, ".2f", lambda one: one.found.importance_weighted))
    found += [
        Quantity("bits/dim", "tighter bound", ".4f", lambda one: one.found.bits_per_dim),
        Quantity("squared error", "per value", ".6f", lambda one: one.found.squared_error),
        Quantity("PSNR", "dB", ".2f", lambda one: one.found.psnr),
        Quantity("SSIM", "1 is best", ".4f", lambda one: one.found.ssim),
    ]
    if sampled:
        how = sampled.how
        found += [
            Quantity("Frechet distance", how, ".2f", lambda one: _of(one).frechet_distance),
            Quantity("kernel distance", how, ".4f", lambda one: _of(one).kernel_distance),
        ]
    return [
        *found,
        Quantity("active units", "latents", ".1f", lambda one: one.found.active_units),
        Quantity("parameters", "trainable", ",.0f", lambda one: one.run.vae.num_parameters()),
        Quantity("images seen", "in training", ",.0f", lambda one: one.run.metadata.images),
        Quantity("time", "s of training", ",.1f", lambda one: one.run.seconds),
        Quantity("speed", "images/s", ",.0f", lambda one: one.run.images_per_second),
    ]


class Recipe(NamedTuple):
    """Runs that differ in nothing but their seed."""

    letter: str
    runs: list[Measured]
    each: dict[str, list[Cell | None]]
    """The name of a quantity -> the number of each run; None where it is not defined."""

    @property
    def cells(self) -> dict[str, Cell | None]:
        """The name of a quantity -> its number; None where it is not defined for every run."""
        return {name: _together(cells) for name, cells in self.each.items()}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    recipes: list[Recipe]
    settings: dict[str, list[Any]]
    """The settings that differ -> the value of each recipe."""
    quantities: list[Quantity]
    notes: list[str]
    """What a reader of the numbers must know."""
    images: int
    """Images that all were evaluated on."""

    def lines(self) -> list[str]:
        """The table, a line each: a column for each recipe."""
        said = [
            f"{recipe.letter}  {', '.join(one.run.name for one in recipe.runs)} ({_seeds(recipe)})"
            for recipe in self.recipes
        ]
        table = [["", *(recipe.letter for recipe in self.recipes), ""]]
        table += [[name, *map(in_a_cell, values), ""] for name, values in self.settings.items()]
        for quantity in self.quantities:
            cells = [recipe.cells[quantity.name] for recipe in self.recipes]
            if any(cells):
                words = [_said(cell, quantity.form) for cell in cells]
                table.append([quantity.name, *words, f"({quantity.unit})"])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        said += ["", *(_aligned(row, widths) for row in table), ""]
        return [*said, f"evaluated on {self.images:,} images; {self.meaning}", *self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    @property
    def meaning(self) -> str:
        """What stands behind ± in the table and in the figure."""
        several = {len(recipe.runs) > 1 for recipe in self.recipes}
        alone, together = (
            "the standard error over the images",
            "the standard deviation over the runs",
        )
        if several == {False}:
            return f"± is {alone}"
        if several == {True}:
            return f"± is {together}"
        return f"± is {alone} of one run, and {together} of several"

    def csv(self) -> str:
        """A line for each run, then a line for the mean of each recipe of several runs."""
        file = io.StringIO()
        columns = ["recipe", "run", "seed", *self.settings]
        for quantity in self.quantities:
            columns += [f"{quantity.name} [{quantity.unit}]", f"{quantity.name}: ±"]
        write = csv.writer(file, lineterminator="\n").writerow
        write(columns)
        for place, recipe in enumerate(self.recipes):
            chosen = [in_a_cell(values[place]) for values in self.settings.values()]
            start = [recipe.letter]
            each = zip(*recipe.each.values(), strict=True)
            for one, cells in zip(recipe.runs, each, strict=True):
                write([*start, one.run.name, one.run.seed, *chosen, *_numbers(cells)])
            if len(recipe.runs) > 1:
                name = f"mean of {len(recipe.runs)} runs"
                write([*start, name, "", *chosen, *_numbers(recipe.cells.values())])
        return file.getvalue()


def compare(measured: Sequence[Measured]) -> Comparison:
    """Put runs side by side.

    Args:
        measured: Two runs or more, of which the same was measured on the same images.

    Raises:
        UsageError: fewer than two runs, one of them twice, or numbers of images that differ.
    """
    check_runs([one.run.name for one in measured])
    counts = {one.images for one in measured}
    if len(counts) > 1:
        said = ", ".join(f"{one.run.name} on {one.images:,}" for one in measured)
        raise UsageError(f"runs were evaluated on different images: {said}; choose the same")
    groups: list[list[Measured]] = []
    for one in measured:
        same = (group for group in groups if group[0].run.recipe == one.run.recipe)
        if (group := next(same, None)) is None:
            groups.append(group := [])
        group.append(one)
    rows = quantities(measured[0])
    recipes = [
        Recipe(
            _letter(place),
            group,
            {row.name: [_cell(row.of(one)) for one in group] for row in rows},
        )
        for place, group in enumerate(groups)
    ]
    settings = {
        name: [group[0].run.recipe[name] for group in groups] for name in groups[0][0].run.recipe
    }
    differing = {name: values for name, values in settings.items() if _differ(values)}
    return Comparison(recipes, differing, rows, _notes(recipes), counts.pop())


def check_runs(names: Sequence[str]) -> None:
    """Check that there is something to compare.

    Raises:
        UsageError: there are fewer than two runs, or one is there twice.
    """
    if len(names) < 2:
        raise UsageError("one run alone compares with nothing; name two runs or more")
    folders = [folder.path.resolve() if (folder := run_of(name)) else name for name in names]
    for place, name in enumerate(names):
        if folders[place] in folders[:place]:
            raise UsageError(f"{name} is named twice; give each run once")


def _notes(recipes: Sequence[Recipe]) -> list[str]:
    """What does not compare, and why; a line each."""
    every = [one for recipe in recipes for one in recipe.runs]
    notes: list[str] = []
    if _differ([one.pixels for one in every]):
        said = _by_kind(recipes, lambda one: one.pixels)
        notes.append(
            f"note: the images became different ones, and no bound or error compares: {said}"
        )
    if _differ([one.of for one in every]):
        said = _by_kind(recipes, lambda one: one.of)
        notes.append(f"note: the bounds are of different things and do not compare: {said}")
    if _differ([one.run.device for one in every]):
        said = _by_kind(recipes, lambda one: one.run.device)
        notes.append(f"note: time and speed are of different machines: {said}")
    for recipe in recipes:
        seeds = [one.run.seed for one in recipe.runs]
        if len(set(seeds)) < len(seeds):
            notes.append(
                f"note: runs of {recipe.letter} have the same seed: their spread is not that of "
                "seeds"
            )
        if _differ([one.run.trained_on for one in recipe.runs]):
            notes.append(f"note: the runs of {recipe.letter} were trained on different images")
    for one in every:
        wanted = one.run.recipe["epochs"]
        if one.run.epochs < wanted:
            notes.append(f"note: {one.run.name} ended after epoch {one.run.epochs} of {wanted}")
    return notes


def _by_kind(recipes: Sequence[Recipe], kind: Callable[[Measured], str]) -> str:
    """Which recipes are of which kind: `A, B of this; C of that`."""
    found: dict[str, list[str]] = {}
    for recipe in recipes:
        for one in recipe.runs:
            letters = found.setdefault(kind(one), [])
            letters += [recipe.letter] if recipe.letter not in letters else []
    return "; ".join(f"{', '.join(letters)}: {what}" for what, letters in found.items())


def _cell(value: Estimate | Undefined | float | None) -> Cell | None:
    match value:
        case Estimate(mean, error):
            return Cell(mean, error)
        case None | Undefined():
            return None
        case _:
            return Cell(float(value), None)


def _together(cells: Sequence[Cell | None]) -> Cell | None:
    """The number of runs of one recipe, from those of each."""
    known = [cell for cell in cells if cell is not None]
    if len(known) < len(cells):
        return None
    if len(known) == 1:
        return known[0]
    means = [cell.mean for cell in known]
    return Cell(statistics.fmean(means), statistics.stdev(means))


def _numbers(cells: Iterable[Cell | None]) -> list[float | str]:
    """Numbers and errors for a line of CSV, with nothing where there is none."""
    found: list[float | str] = []
    for cell in cells:
        mean, error = (None, None) if cell is None else cell
        found += ["" if mean is None else mean, "" if error is None else error]
    return found


def _said(cell: Cell | None, form: str) -> str:
    if cell is None:
        return "-"
    same = cell.error is None or (cell.error == 0 and form == ",.0f")
    return format(cell.mean, form) + ("" if same else f" ± {format(cell.error, form)}")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def in_a_cell(value: Any) -> str:  # noqa: ANN401
    """The value of a setting as a table shows it."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "none" if value is None else str(value)


def _seeds(recipe: Recipe) -> str:
    seeds = ", ".join(str(one.run.seed) for one in recipe.runs)
    return f"seed {seeds}" if len(recipe.runs) == 1 else f"{len(recipe.runs)} runs, seeds {seeds}"


def _letter(place: int) -> str:
    """A to Z, then AA, AB and on."""
    before = _letter(place // 26 - 1) if place >= 26 else ""
    return before + chr(ord("A") + place % 26)


def _differ(values: Sequence[object]) -> bool:
    return any(value != values[0] for value in values)
