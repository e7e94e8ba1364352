"""What `convvae anomalies` prints and writes: every score, its threshold, the worst images."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from convvae.anomalies.calibration import Judgement, judge
from convvae.anomalies.scores import NEIGHBOUR_RANK, SCORES, Measured, measure
from convvae.data import Images
from convvae.data.images import class_name
from convvae.data.progress import counting
from convvae.errors import UsageError, printable
from convvae.evaluation.encode import batches
from convvae.evaluation.reconstruction import reconstruct
from convvae.figures import extremes, save_figure
from convvae.files import atomic, make_folder, write_text
from convvae.model.vae import VAE

FILES = ("scores.csv", "report.json", "worst.png")
"""What is written."""
PICTURE_COLUMNS = 8
"""Images side by side in the picture of the worst."""
FLAGGED_NAMED = 20
"""Flagged images that are printed by name."""
NAME_LENGTH = 11
"""Characters of a line above a picture."""


@dataclass(frozen=True)
class AnomalySettings:
    """How images are judged."""

    model: str
    score: str
    """The score that flags and ranks."""
    false_alarms: float
    """Share of normal images that may be flagged."""
    abnormal: tuple[str, ...]
    """Labels to be found."""
    samples: int
    """Draws of z for the importance-weighted bound."""
    seed: int
    binarize_seed: int | None


@dataclass(frozen=True)
class Request:
    """Images to judge, and the normal ones that they are held against."""

    source: Images
    """The images that are judged; and after them, if need be, some that only calibrate."""
    judged: int
    """How many of `source`, from the first, are judged."""
    normal: Images | Tensor
    """The normal images; or which of `source` are normal, bool [N], where they are among them."""
    same_source: bool
    """Whether the normal images are of the source of those that are judged."""
    trained_on: bool
    """Whether the normal images are those that the model learnt from."""


class Chosen(NamedTuple):
    """Some of the images of a source."""

    source: Images
    which: Tensor | None
    """Which of them, bool [N]; None where all."""


@dataclass(frozen=True)
class Measurement:
    """What is to be measured for a request."""

    abnormal: Tensor | None
    """Which of the images are to be found, bool [N]; None without such labels."""
    normal: Tensor
    """Which of the normal images, or of those that are judged, calibrate: bool [M] or [N]."""
    measured: Mapping[str, Chosen]
    """The images to pass through the model: `judged`, and `normal` where those are others."""


def plan(request: Request, settings: AnomalySettings) -> Measurement:
    """What is to be measured.

    Raises:
        UsageError: a label does not exist, no normal image is left, or the score is not defined.
    """
    source, normal = request.source, request.normal
    abnormal = is_abnormal(source, settings.abnormal) if settings.abnormal else None
    among = isinstance(normal, Tensor)
    chosen = normal if among else torch.ones(len(normal), dtype=torch.bool)
    if abnormal is not None and request.same_source:
        chosen = chosen & ~(abnormal if among else is_abnormal(normal, settings.abnormal))
    count = int(chosen.sum())
    if count == 0:
        raise UsageError(
            "no normal image is left to calibrate the scores: name others with `normal`"
        )
    if settings.score == "latent_distance" and count <= NEIGHBOUR_RANK:
        raise UsageError(
            f"`score={settings.score!r}` is not defined: it needs more than {NEIGHBOUR_RANK} "
            f"normal images and there are {count}; name more with `normal`"
        )
    measured = {"judged": Chosen(source, None)}
    if not among:
        measured["normal"] = Chosen(normal, chosen)
    return Measurement(abnormal, chosen, measured)


def run(
    vae: VAE,
    request: Request,
    settings: AnomalySettings,
    folder: Path,
    worst: int,
    known: Mapping[str, Measured] | None = None,
) -> None:
    """Judge images, print what was found, and write scores.csv, report.json and worst.png.

    Args:
        vae: The model.
        request: The images.
        settings: How.
        folder: Where to write.
        worst: Images in the picture.
        known: What the images of the plan were measured to be, where that was done before.

    Raises:
        UsageError: a label does not exist, no normal image is left, or the score is not defined.
        ImageSizeError: the images do not fit the model.
        OutputError: a file cannot be written.
    """
    source, planned = request.source, plan(request, settings)
    make_folder(folder)  # a place that cannot be written to is said before the work
    if known is None:
        known = {name: _measured(vae, some, settings) for name, some in planned.measured.items()}
    found, chosen, abnormal = known["judged"], planned.normal, planned.abnormal
    theirs = known.get("normal", chosen)
    judgements = judge(found, theirs, abnormal, settings.false_alarms, request.judged)
    found = found.first(request.judged)
    abnormal = None if abnormal is None else abnormal[: request.judged]
    normal, count = planned.measured.get("normal", Chosen(source, None)).source, int(chosen.sum())
    report = {
        **asdict(settings),
        "data": _title(source),
        "images": request.judged,
        "normal": _title(normal, chosen),
        "normal_images": count,
        "scores": {name: as_record(name, judgements.get(name)) for name in SCORES},
        "notes": notes(request, count, settings, abnormal, judgements),
    }
    order = judgements[settings.score].score.argsort(descending=True, stable=True)
    write_scores(folder / FILES[0], source, abnormal, found, judgements)
    write_text(folder / FILES[1], json.dumps(report, indent=2, allow_nan=False) + "\n")
    _draw(vae, source, order[:worst], judgements[settings.score], settings, folder / FILES[2])
    _say(report)
    _say_flagged(source, judgements[settings.score], settings.score)
    Console().print(
        f"wrote {', '.join(FILES[:-1])} and {FILES[-1]} in {folder}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def is_abnormal(source: Images, chosen: tuple[str, ...]) -> Tensor:
    """Which images have one of the chosen labels, by the labels' names or numbers: bool [N].

    Raises:
        UsageError: the images have no labels, or none of that name.
    """
    if source.labels is None:
        raise UsageError(f"{source.name} has no labels; leave out `abnormal`")
    numbers = range(len(source.classes)) if source.classes else source.labels.unique().tolist()
    known = {class_name(source.classes, n): n for n in numbers}
    for label in chosen:
        if label not in known:
            raise UsageError(
                f"`abnormal={label!r}` is no label of {source.name}; there are {', '.join(known)}"
            )
    wanted = torch.tensor([known[label] for label in chosen])
    return torch.isin(source.labels, wanted)


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
            f"latent_distance is not defined: it needs more than {NEIGHBOUR_RANK} normal images"
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
    with counting(_title(some.source), len(some.source)) as progress:
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


def _title(source: Images, chosen: Tensor | None = None) -> str:
    """A source and its part; of some of its images, the part in which they are."""
    if chosen is None:
        return f"{source.name} ({source.split})"
    parts = {split for split, one in zip(source.splits, chosen.tolist(), strict=True) if one}
    return f"{source.name} ({parts.pop() if len(parts) == 1 else source.split})"


def _say(report: Mapping[str, Any]) -> None:
    """Print how it was done, a line per score, and the notes."""
    console = Console()
    said = [
        printable(f"{name}: {', '.join(value) if isinstance(value, tuple) else value}")
        for name, value in report.items()
        if name not in ("scores", "notes") and value not in (None, ())
    ]
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
        said.append(
            f"  {printable(_name(source, place))}: {value}, p {judgement.p[place]:.2g}{trained}"
        )
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


def _draw(
    vae: VAE,
    source: Images,
    chosen: Tensor,
    judgement: Judgement,
    settings: AnomalySettings,
    path: Path,
) -> None:
    """Draw the chosen images beside their reconstructions and errors."""
    images = _pick(batches(vae, source, settings.binarize_seed), chosen)
    sign = SCORES[settings.score].sign
    titles = [
        f"{_caption(source, i)}\n{sign * judgement.score[i]:.4g}\np {judgement.p[i]:.2g}"
        for i in chosen.tolist()
    ]
    heading = (
        f"{_title(source)[-60:]}\nmost abnormal by {settings.score}, {SCORES[settings.score].unit}"
    )
    blocks = [heading, *[""] * (-(-len(images) // PICTURE_COLUMNS) - 1)]
    save_figure(path, extremes(images, reconstruct(vae, images), titles, blocks))


def _pick(parts: Iterator[Tensor], chosen: Tensor) -> Tensor:
    """The chosen images of a set that comes in parts."""
    found: dict[int, Tensor] = {}
    start, wanted = 0, set(chosen.tolist())
    for part in parts:
        for place in range(start, start + len(part)):
            if place in wanted:
                found[place] = part[place - start].clone()
        start += len(part)
        if len(found) == len(wanted):
            break
    return torch.stack([found[place] for place in chosen.tolist()])


def _name(source: Images, place: int) -> str:
    """What an image is called: its name, or its number and its label."""
    if source.names is not None:
        return source.names[place]
    label = _label(source, place)
    return f"#{place}" if label is None else f"#{place} ({label})"


def _caption(source: Images, place: int) -> str:
    """What it is called in the picture, and its label: the end of a file's name tells it apart."""
    label = _label(source, place)
    if source.names is None:
        name = _name(source, place)
        return name if label is None or len(name) <= NAME_LENGTH else f"#{place}\n{label}"
    name = Path(source.names[place]).name
    short = name if len(name) <= NAME_LENGTH else f"…{name[1 - NAME_LENGTH :]}"
    return short if label is None else f"{short}\n{label}"


def _label(source: Images, place: int) -> str | None:
    """What the label of an image is called; None where there are no labels."""
    if source.labels is None:
        return None
    return class_name(source.classes, int(source.labels[place]))
