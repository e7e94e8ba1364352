"""What `convvae anomalies` prints and writes: every score, its threshold, the worst images."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from convvae.anomaly import NEIGHBOURS, SCORES, Judgement, Measured, judge, measure
from convvae.data import ImageSet
from convvae.encodings import batches
from convvae.errors import UsageError
from convvae.evaluate import reconstruct
from convvae.figures import extremes, save_figure
from convvae.files import atomic, make_folder, write_text
from convvae.model import VAE
from convvae.progress import counting

COLUMNS = 8
"""Images side by side in the picture of the worst."""


@dataclass(frozen=True)
class Protocol:
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


def run(
    vae: VAE,
    source: ImageSet,
    normal: ImageSet | None,
    protocol: Protocol,
    folder: Path,
    worst: int,
) -> None:
    """Judge images, print a line a score, and write scores.csv, report.json and worst.png.

    Arguments:
        vae: The model.
        source: The images to judge.
        normal: Normal images; None if they are those of `source` that are not abnormal.
        protocol: How.
        folder: Where to write.
        worst: Images in the picture.

    Raises:
        UsageError: a label does not exist, no normal image is left, or the score is not defined.
        ImageSizeError: the images do not fit the model.
        OutputError: a file cannot be written.
    """
    make_folder(folder)  # a place that cannot be written to is said before the work
    abnormal = is_abnormal(source, protocol.abnormal) if protocol.abnormal else None
    if normal is not None and normal.name == source.name and abnormal is not None:
        normal = _only(normal, ~is_abnormal(normal, protocol.abnormal))
    normal_count = len(source) if normal is None else len(normal)
    if normal is None and abnormal is not None:
        normal_count = int((~abnormal).sum())
    if normal_count == 0:
        raise UsageError(
            "no normal image is left to calibrate the scores: name others with --normal"
        )
    found = _measured(vae, source, protocol)
    theirs = None if normal is None else _measured(vae, normal, protocol)
    judgements = judge(found, theirs, abnormal, protocol.false_alarms)
    if protocol.score not in judgements:
        raise UsageError(
            f"--score {protocol.score} is not defined: it needs more than {NEIGHBOURS} normal "
            f"images and there are {normal_count}; name more with --normal"
        )
    report = {
        **asdict(protocol),
        "data": _title(source),
        "images": len(source),
        "normal": _title(normal or source),
        "normal_images": normal_count,
        "scores": {name: as_record(name, judgements.get(name)) for name in SCORES},
        "notes": notes(normal, normal_count, protocol, abnormal, judgements),
    }
    _say(report)
    order = judgements[protocol.score].score.argsort(descending=True, stable=True)
    write_scores(folder / "scores.csv", source, abnormal, found, judgements)
    write_text(folder / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    _draw(vae, source, order[:worst], judgements[protocol.score], protocol, folder / "worst.png")
    names = "scores.csv, report.json and worst.png"
    Console().print(f"wrote {names} in {folder}", highlight=False, soft_wrap=True, markup=False)


def is_abnormal(source: ImageSet, chosen: tuple[str, ...]) -> Tensor:
    """Which images have one of the chosen labels, by the labels' names or numbers: bool [N].

    Raises:
        UsageError: the images have no labels, or none of that name.
    """
    if source.labels is None:
        raise UsageError(f"{source.name} has no labels; leave out --abnormal")
    numbers = range(len(source.classes)) if source.classes else source.labels.unique().tolist()
    known = {source.classes[n] if source.classes else str(n): n for n in numbers}
    for label in chosen:
        if label not in known:
            raise UsageError(
                f"--abnormal {label} is no label of {source.name}; there are {', '.join(known)}"
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
    normal: ImageSet | None,
    normal_count: int,
    protocol: Protocol,
    abnormal: Tensor | None,
    judgements: Mapping[str, Judgement],
) -> list[str]:
    """What a reader of the numbers must know."""
    said: list[str] = []
    if normal is None:
        said.append(
            "the normal images are among those that are judged, each against the others: about "
            f"{protocol.false_alarms:g} of them are flagged by construction"
        )
    if next(iter(judgements.values())).threshold is None:
        least = math.ceil(1 / protocol.false_alarms - 1e-9) - 1
        said.append(
            f"a threshold is not defined: a false-alarm rate of {protocol.false_alarms:g} needs "
            f"{least} normal images at least, and there are {normal_count}"
        )
    if "latent_distance" not in judgements:
        said.append(
            f"latent_distance is not defined: it needs more than {NEIGHBOURS} normal images"
        )
    if abnormal is not None and next(iter(judgements.values())).detection is None:
        kind = "abnormal" if bool(abnormal.all()) else "normal"
        said.append(f"AUROC and average precision are not defined: every image is {kind}")
    return said


def write_scores(
    path: Path,
    source: ImageSet,
    abnormal: Tensor | None,
    found: Measured,
    judgements: Mapping[str, Judgement],
) -> None:
    """Write a line an image: what it is, each quantity with its p-value, and whether it is flagged.

    Raises:
        OutputError: the file cannot be written.
    """
    columns: dict[str, list[Any]] = {"index": list(range(len(source)))}
    if source.names is not None:
        columns["name"] = list(source.names)
    if source.labels is not None:
        labels = source.labels.tolist()
        columns["label"] = [source.classes[n] for n in labels] if source.classes else labels
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


def _measured(vae: VAE, source: ImageSet, protocol: Protocol) -> Measured:
    with counting(_title(source), len(source)) as progress:
        return measure(
            vae,
            source,
            seed=protocol.seed,
            samples=protocol.samples,
            binarize_seed=protocol.binarize_seed,
            progress=progress,
        )


def _only(source: ImageSet, chosen: Tensor) -> ImageSet:
    """The chosen images of a set, without names and labels."""
    return ImageSet(source.images[chosen], None, source.name, source.split)


def _title(source: ImageSet) -> str:
    return f"{source.name} ({source.split})"


def _say(report: Mapping[str, Any]) -> None:
    """Print how it was done, a line a score, and the notes."""
    console = Console()
    said = [
        f"{name}: {', '.join(value) if isinstance(value, tuple) else value}"
        for name, value in report.items()
        if name not in ("scores", "notes") and value not in (None, ())
    ]
    said += [_line(name, row, report["images"]) for name, row in report["scores"].items() if row]
    said += [f"note: {note}" for note in report["notes"]]
    console.print("\n".join(said), highlight=False, markup=False, soft_wrap=True)


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
    source: ImageSet,
    chosen: Tensor,
    judgement: Judgement,
    protocol: Protocol,
    path: Path,
) -> None:
    """Draw the chosen images beside their reconstructions and errors."""
    images = _pick(batches(vae, source, protocol.binarize_seed), chosen)
    sign = SCORES[protocol.score].sign
    titles = [
        f"{_name(source, i)}\n{sign * judgement.score[i]:.4g}, p {judgement.p[i]:.2g}"
        for i in chosen.tolist()
    ]
    heading = (
        f"{_title(source)[-60:]}\nmost abnormal by {protocol.score}, {SCORES[protocol.score].unit}"
    )
    blocks = [heading, *[""] * (-(-len(images) // COLUMNS) - 1)]
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
    return torch.stack([found[place] for place in chosen.tolist()])


def _name(source: ImageSet, place: int) -> str:
    """What an image is called in the picture: the end of its name, or its number, and its label."""
    name = f"#{place}" if source.names is None else Path(source.names[place]).name[-18:]
    if source.labels is None:
        return name
    label = int(source.labels[place])
    return f"{name} ({source.classes[label] if source.classes else label})"
