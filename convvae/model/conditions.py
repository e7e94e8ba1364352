"""From what is known of images to what a conditional model is given: y, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convvae import runtime
from convvae.config import (
    CATEGORY,
    LABEL,
    UNLABELLED,
    Category,
    Condition,
    ModelConfig,
    Number,
)
from convvae.config.condition import QUANTILES
from convvae.data import Images, ImageSet
from convvae.data.images import class_name
from convvae.data.pixels import to_unit
from convvae.errors import ConfigError, in_a_line
from convvae.model.vae import VAE

CLASSIFIED = 500
"""Images that are classified at a time."""


def condition_of(
    images: ImageSet, columns: Sequence[str] = (LABEL,), *, some_lack: bool = False
) -> Condition:
    """What is told of training images, as a model is to know it.

    Labels are in rising order of their numbers, other names sorted. A column is one of numbers if
    each of its values is one; `label` never is, nor is a column that is written `NAME:category`.

    Args:
        images: The training images.
        columns: The columns, as the setting `condition` names them.
        some_lack: Whether images may have no label; they do not count.

    Raises:
        ConfigError: an image lacks a value, a number is the same in all images, or two labels are
            called the same.
    """
    told, places = list[Category | Number](), list[Tensor]()
    for word in columns:
        name = word.removesuffix(CATEGORY)
        values, which = _values(images, name)
        if name == LABEL and UNLABELLED in values:
            _check_lacking(images, int((which == values.index(UNLABELLED)).sum()), some_lack)
        numbers = None if name == LABEL or name != word else _numbers(values)
        if numbers is None:
            labels = [value for value in values if value != UNLABELLED or name != LABEL]
            labels = labels if name == LABEL else sorted(labels)
            rank = {UNLABELLED: -1} | {label: place for place, label in enumerate(labels)}
            order = torch.tensor([rank[value] for value in values])
            told.append(Category.checked({"name": name, "labels": labels}, _where(images)))
            places.append(order[which])
        else:
            told.append(_number(images, name, numbers[which]))
    combinations, counts = [()], [len(images)]
    if places:
        rows = torch.stack(places, 1)
        rows, times = rows[(rows >= 0).all(1)].unique(dim=0, return_counts=True)
        combinations, counts = rows.tolist(), times.tolist()
    return Condition.checked(
        {"columns": told, "combinations": combinations, "counts": counts}, _where(images)
    )


def _check_lacking(images: ImageSet, count: int, some_lack: bool) -> None:
    """Refuse images of which some have no label where all need one, or all where some do.

    Raises:
        ConfigError: they are such.
    """
    said = f"{count:,} of {len(images):,} images of {images.name} have no label"
    if not some_lack:
        raise ConfigError(
            f"{said} (they are labelled '{UNLABELLED}'), and a conditional model needs that of "
            "every image; leave them out, or learn from them too with `objective='semi-supervised'`"
        )
    if count == len(images):
        raise ConfigError(f"{said}, and the labels are learnt from those that have one")


def _where(images: Images) -> str:
    return f"what is known of {images.name}"


def _values(images: Images, name: str) -> tuple[list[str], Tensor]:
    """The different values of a column, as words, and which each image has, int64 [N].

    Raises:
        ConfigError: the images have no such column, or not a value for all of them.
    """
    if name == LABEL:
        numbers, which = needed(images).unique(return_inverse=True)
        return [class_name(images.classes, number) for number in numbers.tolist()], which
    if name not in images.columns:
        raise ConfigError(
            f"the model is told the column {in_a_line(name)} of each image, and {images.name} has "
            "none; columns are those of a CSV or Parquet table, or of the data set sprites"
        )
    words = images.columns[name]
    places = {word: place for place, word in enumerate(dict.fromkeys(words))}
    return list(places), torch.tensor([places[word] for word in words])


def _numbers(values: Sequence[str]) -> Tensor | None:
    """Words as finite numbers, float64 [n]; None where one is no number."""
    try:
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float64)
    except ValueError:
        return None
    return numbers if bool(numbers.isfinite().all()) else None


def _number(images: Images, name: str, numbers: Tensor) -> Number:
    """A column of numbers, by those of the training images.

    Raises:
        ConfigError: they are all the same.
    """
    if not float(numbers.std(correction=0)) > 0:
        raise ConfigError(
            f"{in_a_line(name)} is {float(numbers[0]):g} of all training images of {images.name}: "
            "it tells nothing; leave it out of `condition`"
        )
    shares = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
    # By sorting: torch's own takes at most 16 million numbers.
    places = (shares * (len(numbers) - 1)).round().long()
    facts = {
        "name": name,
        "mean": float(numbers.mean()),
        "std": float(numbers.std(correction=0)),
        "quantiles": numbers.sort().values[places].tolist(),
    }
    return Number.checked(facts, _where(images))


def needed(images: Images) -> Tensor:
    """The labels of images, int64 [N].

    Raises:
        ConfigError: there are none, or not of all of them.
    """
    if images.labels is None:
        raise ConfigError(
            f"a conditional model needs the label of every image, and those of {images.name} have "
            "none, or only some of them have one; lay the images into folders named as their "
            "labels, or list them in a table with a column label (and those without one as "
            f"'{UNLABELLED}', for `objective='semi-supervised'`)"
        )
    return images.labels


def _places(column: Category, images: Images, *, some_lack: bool = False) -> Tensor:
    """Where the labels of images are in a column, int64 [N]; -1 of one without, if some may lack.

    Raises:
        ConfigError: an image has no label, or one that the model does not know.
    """
    values, which = _values(images, column.name)
    return torch.tensor(
        [-1 if some_lack and value == UNLABELLED else column.place(value) for value in values]
    )[which]


def combination_places(condition: Condition, images: Images) -> Tensor:
    """Which combination of labels each image has, int64 [N]; -1 for one of no training image.

    Raises:
        ConfigError: an image has no label, or one that the model does not know.
    """
    together = torch.stack([_places(column, images) for column in condition.categories], 1)
    known = {places: number for number, places in enumerate(condition.combinations)}
    rows, which = together.unique(dim=0, return_inverse=True)
    return torch.tensor([known.get(tuple(row), -1) for row in rows.tolist()])[which]


def combination_rows(condition: Condition) -> Tensor:
    """y of every combination of labels of a model without columns of numbers, float32 [M, C]."""
    places = torch.tensor(condition.combinations)
    return torch.cat(
        [one_hot(column, places[:, number]) for number, column in enumerate(condition.categories)],
        1,
    )


def one_hot(column: Category, places: Tensor) -> Tensor:
    """Labels by their places, int64 [N], as numbers of y, float32 [N, C]; zeros at place -1."""
    return F.one_hot(places + 1, column.size + 1)[:, 1:].float()


def conditions(model: ModelConfig, images: Images) -> Tensor | None:
    """y of images by what is known of them, shape [N, C]; None for an unconditional model.

    Of a model with a classifier an image may have no label: its row is zeros.

    Raises:
        ConfigError: an image lacks a value, or has a label that the model does not know.
    """
    if model.condition is None:
        return None
    parts = list[Tensor]()
    for column in model.condition.columns:
        if isinstance(column, Category):
            places = _places(column, images, some_lack=model.classifier)
            parts.append(one_hot(column, places))
        else:
            values, which = _values(images, column.name)
            parts.append(torch.tensor([column.encoded(value) for value in values])[which])
    return torch.cat(parts, 1)


def given_labels_of(vae: VAE, images: Images) -> VAE:
    """The model of images of which all is known that it is told, and which pixels are missing.

    Of a model with a classifier, an image without a label has the one of the largest q(y|x).

    Raises:
        ConfigError: an image lacks a value, or has a label that the model does not know.
    """
    y = conditions(vae.config, images)
    if y is not None:
        vae = completed(vae, y, (part for _, part in images.batches(CLASSIFIED)))
    return vae.observing(images.observed)


def completed(vae: VAE, y: Tensor, batches: Iterable[Tensor]) -> VAE:
    """The model of images whose y is known, or the one of the largest q(y|x) where a row is zeros.

    Args:
        vae: A conditional model.
        y: Shape [N, C].
        batches: The images, uint8, shape [n, C, H, W] each; looked at where a label lacks.
    """
    lacking = y.sum(1) == 0
    if vae.config.classifier and bool(lacking.any()):
        found = torch.cat([predicted(vae, images) for images in batches])
        y = torch.where(lacking[:, None], F.one_hot(found, y.shape[1]).float(), y)
    return vae.given(y)


@torch.no_grad()
def predicted(vae: VAE, images: Tensor) -> Tensor:
    """The label of the largest q(y|x) of images uint8 [N, C, H, W], by its place, int64 [N]."""
    return vae.classify(to_unit(images.to(vae.device))).argmax(1).cpu()


def told(vae: VAE) -> Condition:
    """What a model is told.

    Raises:
        ConfigError: it is told nothing.
    """
    if vae.config.condition is None:
        raise ConfigError(
            "the model was trained without labels, and none can be asked for; leave out `label`, "
            "or train with `condition='label'`"
        )
    return vae.config.condition


def given_labels(vae: VAE, labels: Sequence[str | Mapping[str, str]]) -> VAE:
    """The model of images of which this is known: one for all, or one for each of N images.

    Args:
        vae: A conditional model.
        labels: Of a model that is told one column its value; else the value of each by its name.

    Raises:
        ConfigError: the model knows no labels, or not these.
    """
    condition = told(vae)
    rows = [
        condition.row(condition.read([label]) if isinstance(label, str) else label)
        for label in labels
    ]
    return vae.given(torch.tensor(rows))


def with_labels(vae: VAE, count: int, *, seed: int, known: Mapping[str, str] | None = None) -> VAE:
    """The model of so many images to come: what is not known of them is drawn from p(y).

    Labels that belong together in training images are drawn together, given those that are known;
    numbers are drawn by themselves, each from the quantiles of the training images, in between in
    even shares.

    Args:
        vae: The model; one that is unconditional, or has its labels, is returned.
        count: Number of images.
        seed: Of the draw.
        known: What is known of all of them, by column.

    Raises:
        ConfigError: a column or a label is not known, or no training image has such labels.
    """
    condition, known = vae.config.condition, known or {}
    if condition is None or vae.y is not None:
        return vae
    condition.check(known)
    if len(known) == len(condition.columns):
        return given_labels(vae, [known])
    generator = runtime.generator(seed, "labels")
    labels = torch.multinomial(
        _matching(condition, known), count, replacement=True, generator=generator
    )
    places, parts = torch.tensor(condition.combinations)[labels], list[Tensor]()
    for column in condition.columns:
        if isinstance(column, Category):
            parts.append(one_hot(column, places[:, condition.categories.index(column)]))
        elif column.name in known:
            parts.append(torch.tensor([column.encoded(known[column.name])]).expand(count, 1))
        else:
            parts.append(_drawn(column, torch.rand(count, generator=generator)))
    return vae.given(torch.cat(parts, 1))


def _matching(condition: Condition, known: Mapping[str, str]) -> Tensor:
    """Shares of the combinations that have the labels that are known, float64 [M].

    Raises:
        ConfigError: there is none.
    """
    places = torch.tensor(condition.combinations)
    fits = torch.ones(len(places), dtype=torch.bool)
    for number, column in enumerate(condition.categories):
        if column.name in known:
            fits &= places[:, number] == column.place(known[column.name])
    if not bool(fits.any()):
        raise ConfigError(
            f"no training image has {condition.said(known)} together, and the other columns cannot "
            "be drawn as they are in training; give a value of each"
        )
    return log_prior(condition).exp() * fits


def _drawn(column: Number, shares: Tensor) -> Tensor:
    """Numbers at shares [N] of the training images, as those of y, float32 [N, 1]."""
    quantiles = torch.tensor(column.quantiles, dtype=torch.float64)
    place = shares.double() * (QUANTILES - 1)
    low = place.long().clamp(0, QUANTILES - 2)
    values = torch.lerp(quantiles[low], quantiles[low + 1], place - low)
    return ((values - column.mean) / column.std).float()[:, None]


def log_prior(condition: Condition) -> Tensor:
    """log p(y) of combinations of labels by the counts of training images, float64 [M]."""
    counts = torch.tensor(condition.counts, dtype=torch.float64)
    return (counts / counts.sum()).log()
