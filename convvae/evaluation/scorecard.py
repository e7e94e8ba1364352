"""What `convvae evaluate` prints and writes: every number with its unit and its protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from convvae.errors import in_a_line, printable
from convvae.evaluation import doctor
from convvae.evaluation.disentanglement import Disentanglement
from convvae.evaluation.estimates import Estimate, Undefined
from convvae.evaluation.evaluate import Evaluation, measure, summary
from convvae.evaluation.label_evidence import LabelEvidence
from convvae.evaluation.probes import PROBE_NEIGHBOURS, Probes
from convvae.evaluation.sample_quality import Comparison, SampleQuality
from convvae.evaluation.sample_quality.measures import BALL_NEIGHBOUR, MANIFOLD_NEIGHBOUR
from convvae.files import make_folder, write_text
from convvae.model.checkpoint import ModelMetadata
from convvae.model.vae import VAE

Part = Probes | SampleQuality | Disentanglement | LabelEvidence | Undefined
"""What a section comes to."""


class Section(NamedTuple):
    """A part of the scorecard that is measured when it is asked for."""

    name: str
    """Key in the JSON file, and title of its progress."""
    total: int
    """Images to go through."""
    measure: Callable[[Callable[[int], None]], Part]
    """Given a function to call with the number of images done since its last call."""


def run(
    vae: VAE,
    metadata: ModelMetadata,
    images: Tensor,
    protocol: dict[str, Any],
    path: Path | None,
    sections: Sequence[Section],
    console: Console,
    measured: Mapping[str, Tensor] | None = None,
) -> None:
    """Evaluate a model, print the table, and write the numbers if a file is named.

    Args:
        vae: The model.
        metadata: What its file says of it.
        images: uint8, shape [N, C, H, W].
        protocol: How it is done: model, data, images, samples, seeds.
        path: JSON file to write.
        sections: What is measured beside the bounds, in this order.
        console: Where the table is printed.
        measured: The numbers of the images, where `evaluate.measure` has been there before.

    Raises:
        OutputError: the file cannot be written.
    """
    if path is not None:
        make_folder(path.parent)  # a place that cannot be written to is said before the work
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("importance weights", total=len(images))
        if measured is None:
            measured = measure(
                vae,
                images,
                seed=protocol["seed"],
                samples=protocol["samples"],
                progress=lambda count: bar.advance(task, count),
            )
        found = summary(vae, images, measured, protocol["samples"])
        more = {section.name: _measured(section, bar) for section in sections}
    if path is not None:  # before anything is printed, which a closed pipe ends
        write_text(
            path,
            json.dumps({"protocol": protocol, **as_json(found), **as_json(more)}, indent=2) + "\n",
        )
    for name, value in protocol.items():
        if value is not None:
            said = printable(f"{name}: {value}")
            console.print(said, highlight=False, markup=False, soft_wrap=True)
    console.print("\n".join(lines(found)), highlight=False, markup=False, soft_wrap=True)
    for part in more.values():
        console.print("\n".join(part_lines(part)), highlight=False, markup=False, soft_wrap=True)
    for remark in remarks(vae, metadata, images):
        console.print(remark, highlight=False, markup=False, soft_wrap=True)
    if path is not None:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


def lines(found: Evaluation) -> list[str]:
    """The numbers, a line each, with units."""
    return [f"  {name:<22} {value}  ({unit})" for name, value, unit in rows(found)]


def rows(found: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value and unit of every number."""
    of = "nats per image" if found.observed is None else "nats per image, of observed pixels"
    table = [
        ("bound (ELBO)", in_words(found.bound), of),
        ("  log p(x|z)", in_words(found.log_px), of),
        ("  KL(q || p)", in_words(found.kl), "nats per image"),
    ]
    if found.importance_weighted is not None:
        name = f"bound of {found.samples} weights"
        table.append((name, in_words(found.importance_weighted), of))
    if found.bits_per_dim is not None:
        table.append(("bits/dim", f"{found.bits_per_dim:.4f}", "of the tighter bound"))
    units = f"{found.active_units} of {found.latents}"
    table.append(("active units", units, "variance of the mean over 0.01"))
    if found.kl_per_latent is not None:
        ordered = " ".join(f"{kl:.2f}" for kl in sorted(found.kl_per_latent, reverse=True))
        table.append(("KL per latent", ordered, "nats, largest first"))
    for name, kl in (found.kl_per_group or {}).items():
        table.append((f"  KL of {name}", in_words(kl), "nats per image"))
    error = in_words(found.squared_error, 6)
    table.append(("squared error", error, "per value, of the mean's decoding"))
    if found.psnr is not None:
        table.append(("PSNR", f"{found.psnr:.2f}", "dB"))
    table.append(("SSIM", in_words(found.ssim, 4), "of the mean's decoding; 1 is best"))
    return table


def remarks(vae: VAE, metadata: ModelMetadata, images: Tensor) -> list[str]:
    """What a reader of the numbers must know, and what the doctor finds."""
    found = doctor.of_images(images, vae.config) + doctor.of_model(vae, images, metadata)
    said = [str(remark) for remark in found]
    if vae.config.condition is not None:
        said.append("note: the bounds above are of log p(x|y), each image's label y being given")
        if numbers := vae.config.condition.numbers:
            names = in_a_line(", ".join(number.name for number in numbers))
            said.append(
                f"note: log p(x) would be an integral over {names}; it is given, with the label "
                "accuracy, where all columns are of labels"
            )
    if vae.observed is not None:
        said.append(
            f"note: {1 - float(vae.observed.double().mean()):.1%} of the pixels are missing; "
            "bounds and errors are of the others, log p(x_observed); the encoder sees 0 there"
        )
    if len(images) == 1:
        said.append("note: standard errors and active units are not defined for one image")
    return said


def part_lines(part: Part) -> list[str]:
    """The numbers of a section, a line each."""
    match part:
        case Probes():
            return probe_lines(part)
        case SampleQuality():
            return quality_lines(part)
        case Disentanglement():
            return disentanglement_lines(part)
        case LabelEvidence():
            return label_lines(part)
        case Undefined():
            return [f"label accuracy of the latents is {in_words(part)}"]


def probe_lines(found: Probes) -> list[str]:
    """The accuracies with their protocol."""
    learnt = f"learnt from {found.train_images:,} training images, {found.classes} labels"
    said = [
        f"label accuracy of the latents on {found.test_images:,} test images, {learnt}",
        f"  {'linear probe':<22} {_percent(found.linear)}  (logistic regression, C = 1)",
        f"  {'nearest neighbours':<22} {_percent(found.neighbours)}  "
        f"(vote of {PROBE_NEIGHBOURS}, Euclidean)",
    ]
    if not found.converged:
        said.append("note: the logistic regression stopped before its optimum")
    return said


def label_lines(found: LabelEvidence) -> list[str]:
    """What the labels are worth in nats, and how well the model tells them."""
    how = f"bounds of {found.samples} weights" if found.samples else "ELBO"
    labels = f"{found.labels} labels"
    said = [
        f"all labels in turn, by the {how} of log p(x|y) and the shares of training images",
        f"  {'bound of log p(x)':<22} {in_words(found.without_label)}  (nats per image, log of the "
        f"sum over {labels})",
        f"  {'gain by the label':<22} {in_words(found.gain)}  (nats per image, log p(x|y) - "
        "log p(x))",
        f"  {'label accuracy':<22} {_percent(found.accuracy)}  (by the largest p(x|y) p(y))",
    ]
    if found.classifier is not None:
        accuracy = _percent(found.classifier)
        said.append(f"  {'classifier accuracy':<22} {accuracy}  (by the largest q(y|x))")
    return said


def quality_lines(found: SampleQuality) -> list[str]:
    """The samples' numbers beside those of training images in their place."""
    said = [
        f"sample quality against {found.real_images:,} test images in {found.feature_space} "
        f"({found.what})"
    ]
    columns = [found.training_images]
    if isinstance(found.samples, Undefined):
        said.append(f"  of the samples {in_words(found.samples)}")
    else:
        columns.insert(0, found.samples)
    titles = [f"{'training' if c is columns[-1] else 'samples'} {c.images:,}" for c in columns]
    said.append(_columns("", titles))
    for (name, unit), *cells in zip(QUALITY_ROWS, *map(_cells, columns), strict=True):
        said.append(f"{_columns(name, cells)}  ({unit})")
    undefined = [value for c in columns for value in _values(c) if isinstance(value, Undefined)]
    said += [f"  - {reason}" for reason in dict.fromkeys(map(in_words, undefined))]
    said.append(
        "note: a sample is the mean of p(x|z) at a draw of the prior; training images show what as "
        "many images of the data itself come to; compare only with equal numbers of images"
    )
    return said


def disentanglement_lines(found: Disentanglement) -> list[str]:
    """The scores; 1 is best of each."""
    rows = (
        ("MIG", found.mig, "gap of the mutual information, of the factor's entropy"),
        ("SAP", found.sap, "gap of the accuracy from a single latent"),
        ("modularity", found.modularity, "whether a latent tells of one factor only"),
        ("DCI disentanglement", found.dci_disentanglement, "the same, by boosted trees"),
        ("DCI completeness", found.dci_completeness, "whether one latent tells of a factor"),
        ("DCI informativeness", found.dci_informativeness, "accuracy of the trees"),
        ("FactorVAE score", found.factor_vae, "accuracy of the vote of the least variance"),
    )
    names = ", ".join(found.names)
    return [
        f"disentanglement on {found.images:,} test images, factors {names}; 1 is best",
        *(f"  {name:<22} {value:.4f}  ({what})" for name, value, what in rows),
    ]


QUALITY_ROWS = (
    ("Frechet distance", "squared; 0 is best, biased upwards, more so of few images"),
    ("kernel distance", "MMD^2, cubic kernel, unbiased; 0 is best"),
    ("precision", f"samples among the test images, k = {MANIFOLD_NEIGHBOUR}"),
    ("recall", f"test images among the samples, k = {MANIFOLD_NEIGHBOUR}"),
    ("density", f"near 1 is best, may be above, k = {BALL_NEIGHBOUR}"),
    ("coverage", f"test images near a sample, k = {BALL_NEIGHBOUR}"),
)


def _values(found: Comparison) -> list[Any]:
    return [found.frechet_distance, found.kernel_distance, *found.neighbourhoods]


def _cells(found: Comparison) -> list[str]:
    """The numbers of a column, a dash where one is not defined."""
    return [
        "-" if isinstance(value, Undefined) else in_words(value, digits)
        for value, digits in zip(_values(found), (2, 4, 4, 4, 4, 4), strict=True)
    ]


def _columns(name: str, cells: Sequence[str]) -> str:
    return f"  {name:<22} " + "".join(f"{cell:<20}" for cell in cells).rstrip()


def _percent(estimate: Estimate) -> str:
    error = estimate.standard_error
    return f"{in_words(Estimate(100 * estimate.mean, None if error is None else 100 * error))} %"


def in_words(value: Estimate | Undefined | float, digits: int = 2) -> str:
    """`mean ± standard error`, a number, or why there is none."""
    match value:
        case Undefined():
            return f"not defined: {value.not_defined}"
        case Estimate(mean, error):
            return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
        case _:
            return f"{value:.{digits}f}"


def as_json(value: Any) -> Any:  # noqa: ANN401
    """Named tuples by name, an estimate as its mean and standard error."""
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return as_json(value._asdict()) if hasattr(value, "_asdict") else value


def _measured(section: Section, bar: Progress) -> Part:
    task = bar.add_task(section.name, total=section.total)
    return section.measure(lambda count: bar.advance(task, count))
