"""What `convvae anomalies` prints and writes: every score, its threshold, the worst images."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from convvae.anomalies import heatmaps
from convvae.anomalies.calibration import Calibration, Judgement, judge
from convvae.anomalies.carried import MOST_CARRIED, Carried, CarriedTerms, carry
from convvae.anomalies.pictures import Shown, draw_worst, picture_name, title, write_heatmaps
from convvae.anomalies.request import (
    AnomalySettings,
    Chosen,
    Request,
    choose,
    is_abnormal,
    normal_ones,
    plan,
)
from convvae.anomalies.scores import FEW_NORMAL, NEIGHBOUR_RANK, SCORES, Measured, measure
from convvae.data import Images
from convvae.data.images import class_name
from convvae.data.progress import counting
from convvae.errors import printable
from convvae.files import atomic, make_folder, write_text
from convvae.model.vae import VAE

FILES = ("scores.csv", "report.json", "worst.png")
"""What is written."""
HEATMAP_FILES = ("heatmaps.npz", "heatmaps.png")
"""What is written of the pixels, where it is asked for."""
FLAGGED_NAMED = 20
"""Flagged images that are printed by name."""


@dataclass(frozen=True)
class Output:
    """What is written, and where."""

    folder: Path
    worst: int
    """Images in the picture of the worst."""
    heatmaps: bool = False
    """Whether to say of every pixel how abnormal it is."""
    carry_in: str | None = None
    """The model into whose file the calibration is written; None for no file."""


def run(
    vae: VAE,
    request: Request,
    settings: AnomalySettings,
    output: Output,
    known: Mapping[str, Measured] | None = None,
) -> None:
    """Judge images, print what was found, and write scores.csv, report.json and worst.png.

    Args:
        vae: The model.
        request: The images.
        settings: How.
        output: Where to write, and what else.
        known: What the images of the plan were measured to be, where that was done before.

    Raises:
        UsageError: a label does not exist, no normal image is left, the score is not defined, or
            there are too many pixels for an array of heat maps.
        ImageSizeError: the images do not fit the model.
        OutputError: a file cannot be written.
    """
    source, folder, planned = request.source, output.folder, plan(request, settings)
    chosen, abnormal, count = planned.normal, planned.abnormal, int(planned.normal.sum())
    if output.heatmaps:
        heatmaps.check_size(vae, request.judged)
    make_folder(folder)  # a place that cannot be written to is said before the work
    if known is None:
        known = {name: _measured(vae, some, settings) for name, some in planned.measured.items()}
    found, theirs = known["judged"], _of_normal(request, chosen, known)
    settings, chosen_by = choose(vae, request, settings, chosen)
    calibration = Calibration.of(theirs) if theirs else _carried(request).calibration
    held = chosen if isinstance(request.normal, Tensor) else calibration
    judgements = judge(found, held, abnormal, settings.false_alarms, request.judged)
    found = found.first(request.judged)
    abnormal = None if abnormal is None else abnormal[: request.judged]
    report = {
        **asdict(settings),
        "data": title(source),
        "images": request.judged,
        "normal": _normal_title(request, chosen),
        "normal_images": count,
        "chosen_by": chosen_by or None,
        "scores": {name: as_record(name, judgements.get(name)) for name in SCORES},
        "notes": notes(request, count, settings, abnormal, judgements),
    }
    write_scores(folder / FILES[0], source, abnormal, found, judgements)
    write_text(folder / FILES[1], json.dumps(report, indent=2, allow_nan=False) + "\n")
    shown = Shown(source, judgements[settings.score], settings.score, output.worst)
    draw_worst(vae, shown, settings.binarize_seed, folder / FILES[2])
    _say(report)
    _say_flagged(source, judgements[settings.score], settings.score)
    _rest(vae, request, output, report, theirs, shown)


def _rest(
    vae: VAE,
    request: Request,
    output: Output,
    report: Mapping[str, Any],
    theirs: Measured | None,
    shown: Shown,
) -> None:
    """Write heat maps and the calibration where they are asked for; say what was written."""
    seed = report["binarize_seed"]
    written = [*FILES, *(HEATMAP_FILES if output.heatmaps else ())]
    pixels = None
    if output.heatmaps or output.carry_in is not None:
        pixels = _pixels(vae, request, report)
    if pixels is not None and output.heatmaps:
        p = heatmaps.p_values(vae, request.source, request.judged, pixels, seed)
        write_heatmaps(vae, shown, p, seed, *(output.folder / name for name in HEATMAP_FILES))
    _print(f"wrote {', '.join(written[:-1])} and {written[-1]} in {output.folder}")
    if pixels is not None and theirs is not None and output.carry_in is not None:
        _carry(output.carry_in, report, theirs, pixels)


def _carried(request: Request) -> Carried:
    assert isinstance(request.normal, Carried)
    return request.normal


def _of_normal(request: Request, chosen: Tensor, known: Mapping[str, Measured]) -> Measured | None:
    """The normal images, measured; None where the model's file says what they are."""
    if isinstance(request.normal, Tensor):
        return known["judged"].take(chosen)
    return known.get("normal")


def _pixels(vae: VAE, request: Request, report: Mapping[str, Any]) -> heatmaps.PixelCalibration:
    if isinstance(request.normal, Carried):
        return request.normal.pixels
    normal = request.source if isinstance(request.normal, Tensor) else request.normal
    abnormal = is_abnormal(request.source, report["abnormal"]) if report["abnormal"] else None
    chosen = normal_ones(request, tuple(report["abnormal"]), abnormal)
    return heatmaps.calibrate(vae, normal, chosen, report["binarize_seed"])


def _carry(
    model: str, report: Mapping[str, Any], theirs: Measured, pixels: heatmaps.PixelCalibration
) -> None:
    """Write the calibration into the model's file, and say so."""
    count = min(len(theirs.complexity), MOST_CARRIED)
    calibration = Calibration.of(theirs.first(count))
    terms = CarriedTerms(
        data=report["normal"],
        images=count,
        score=report["score"],
        false_alarms=report["false_alarms"],
        samples=report["samples"],
        names=tuple(calibration.normal),
    )
    path = carry(model, Carried(terms, calibration, pixels))
    _print(f"wrote the calibration by {count} normal images into {path}")


def _print(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True, markup=False)


def as_record(name: str, judgement: Judgement | None) -> dict[str, Any] | None:
    """A score as it is written: its own sign and unit, None where something is not defined."""
    if judgement is None:
        return None
    score, limit = SCORES[name], judgement.threshold
    return {
        "what": score.what,
        "unit": score.unit,
        "abnormal_where": "above" if score.sign > 0 else "below",
        "threshold": None if limit is None else score.sign * limit,
        "flagged": int(judgement.flagged.sum()),
        "detection": None if judgement.detection is None else judgement.detection._asdict(),
    }


def notes(
    request: Request,
    normal_count: int,
    settings: AnomalySettings,
    abnormal: Tensor | None,
    judgements: Mapping[str, Judgement],
) -> list[str]:
    """What a reader of the numbers must know."""
    said: list[str] = []
    if isinstance(request.normal, Tensor):
        said.append(
            "the normal images are among those that are judged, each against the others: about "
            f"{settings.false_alarms:g} of them are flagged by construction"
        )
    if request.trained_on:
        said.append(
            "the model has learnt from the normal images: new ones score as more abnormal, and a "
            "larger share of them is flagged than was asked for"
        )
    splits = request.source.splits[: request.judged]
    if len(set(splits)) > 1:
        said.append(
            f"{splits.count('train')} of the images are training images (part train): the model "
            "has learnt from them, so that they score as more normal than new ones"
        )
    if next(iter(judgements.values())).threshold is None:
        least = math.ceil(1 / settings.false_alarms - 1e-9) - 1
        said.append(
            f"a threshold is not defined: a false-alarm rate of {settings.false_alarms:g} needs "
            f"{least} normal images at least, and there are {normal_count}"
        )
    if "latent_distance" not in judgements:
        said.append(
            f"{', '.join(FEW_NORMAL[:-1])} and {FEW_NORMAL[-1]} are not defined: they need more "
            f"than {NEIGHBOUR_RANK} normal images"
        )
    if abnormal is not None and next(iter(judgements.values())).detection is None:
        kind = "abnormal" if bool(abnormal.all()) else "normal"
        said.append(f"AUROC and average precision are not defined: every image is {kind}")
    return said


def write_scores(
    path: Path,
    source: Images,
    abnormal: Tensor | None,
    found: Measured,
    judgements: Mapping[str, Judgement],
) -> None:
    """Write a line per image: what it is, each quantity with its p-value, whether it is flagged.

    Raises:
        OutputError: the file cannot be written.
    """
    count = len(found.importance_bound)
    columns: dict[str, list[Any]] = {"index": list(range(count)), "part": [*source.splits[:count]]}
    if source.names is not None:
        columns["name"] = list(source.names[:count])
    if source.labels is not None:
        labels = source.labels[:count].tolist()
        columns["label"] = [class_name(source.classes, n) for n in labels]
    if abnormal is not None:
        columns["abnormal"] = abnormal.int().tolist()
    columns["kl"] = found.encodings.kl.tolist()
    for name, judgement in judgements.items():
        columns[name] = (SCORES[name].sign * judgement.score).tolist()
        columns[f"{name}_p"] = judgement.p.tolist()
        columns[f"{name}_flagged"] = judgement.flagged.int().tolist()
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _measured(vae: VAE, some: Chosen, settings: AnomalySettings) -> Measured:
    with counting(title(some.source), len(some.source)) as progress:
        return measure(
            vae,
            some.source,
            seed=settings.seed,
            samples=settings.samples,
            binarize_seed=settings.binarize_seed,
            chosen=some.which,
            progress=progress,
        )


def measured_part(
    vae: VAE, some: Chosen, settings: AnomalySettings, start: int, stop: int
) -> dict[str, Tensor]:
    """The numbers of the images from one place to another; none where none of them is chosen.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    if some.which is not None and not bool(some.which[start:stop].any()):
        return {}
    found = measure(
        vae,
        some.source,
        seed=settings.seed,
        samples=settings.samples,
        binarize_seed=settings.binarize_seed,
        chosen=some.which,
        start=start,
        stop=stop,
    )
    return found.numbers()


def _normal_title(request: Request, chosen: Tensor) -> str:
    """Which normal images the scores are held against."""
    match request.normal:
        case Carried(terms=terms):
            return f"{terms.data}, carried by the model"
        case Tensor():
            return title(request.source, chosen)
        case images:
            return title(images, chosen)


def _say(report: Mapping[str, Any]) -> None:
    """Print how it was done, a line per score, and the notes."""
    console = Console()
    said = [
        printable(f"{name}: {', '.join(value) if isinstance(value, tuple) else value}")
        for name, value in report.items()
        if name not in ("chosen_by", "scores", "notes") and value not in (None, ())
    ]
    if report["chosen_by"]:
        each = ", ".join(f"{name} {auroc:.3f}" for name, auroc in report["chosen_by"].items())
        said.append(f"chosen by normal images made abnormal, AUROC: {each}")
    said += [_line(name, row, report["images"]) for name, row in report["scores"].items() if row]
    said += [f"note: {note}" for note in report["notes"]]
    console.print("\n".join(said), highlight=False, markup=False, soft_wrap=True)


def _say_flagged(source: Images, judgement: Judgement, score: str) -> None:
    """Print the names of what was flagged, the most abnormal first."""
    places = judgement.score.argsort(descending=True, stable=True).tolist()
    flagged = [place for place in places if judgement.flagged[place]]
    if not flagged:
        return
    splits, sign = source.splits, SCORES[score].sign
    said = [f"flagged by {score}:"]
    for place in flagged[:FLAGGED_NAMED]:
        value = f"{sign * judgement.score[place]:.4g}"
        trained = ", a training image" if splits[place] == "train" else ""
        name = printable(picture_name(source, place))
        said.append(f"  {name}: {value}, p {judgement.p[place]:.2g}{trained}")
    if len(flagged) > FLAGGED_NAMED:
        said.append(f"  and {len(flagged) - FLAGGED_NAMED} more in {FILES[0]}")
    Console().print("\n".join(said), highlight=False, markup=False, soft_wrap=True)


def _line(name: str, row: Mapping[str, Any], images: int) -> str:
    limit = "no threshold"
    if row["threshold"] is not None:
        limit = f"{row['abnormal_where']} {row['threshold']:.6g} {row['unit']}"
    text = f"  {name:<16} {limit:<30} {row['flagged']} of {images} flagged"
    if row["detection"] is None:
        return text
    found = row["detection"]
    return (
        f"{text}  AUROC {found['auroc']:.3f}  average precision {found['average_precision']:.3f}"
        f"  flagged: {found['detected']:.1%} of the abnormal, {found['false_alarms']:.1%} of the "
        "normal"
    )
