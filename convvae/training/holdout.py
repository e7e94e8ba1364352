"""The images of a run: those to train on, those that choose the kept weights, and the test images.

The last choose nothing. Which of the training images are held out for validation is drawn by the
seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convvae import data, runtime
from convvae.config import UNLABELLED, TrainConfig, ValidatedOn, beside_labels
from convvae.data.cache.scratch import room
from convvae.data.images import class_name, hide_labels
from convvae.data.pixels import binarize_once
from convvae.errors import ConfigError, in_a_line
from convvae.evaluation.masks import MARKED, masked
from convvae.model.conditions import needed

MOST_HELD_OUT = 5000
"""Validation images, at most: a bound of so many is known well enough to compare epochs by."""
FEWEST_HELD_OUT = 2
"""Images to train on, at least: batch normalisation needs two."""


LABELLED_SHARE = 0.1
"""Of an epoch's images, those that have a label in the objective semi-supervised, at least."""


@dataclass(frozen=True)
class RunImages:
    """The images of a run, of its size and channels, binarised as it asks for."""

    source: data.ImageSet
    """The training images, with those held out among them."""
    rows: Tensor
    """Places in `source` of the images to train on, int64 [N], rising."""
    held_out: data.ImageSet | None
    """Those that are not, which choose the kept weights."""
    test: data.ImageSet

    @property
    def validation(self) -> data.ImageSet:
        """What `val_*` is of: the images held out, or the test images where none are."""
        return self.test if self.held_out is None else self.held_out

    @property
    def validated_on(self) -> ValidatedOn:
        """Which of the two they are."""
        return "test" if self.held_out is None else "validation"

    def missing_in_words(self) -> list[str]:
        """Which share of the training pixels is missing, and what follows; else nothing."""
        if self.source.observed is None:
            return []
        share = 1 - float(self.source.observed[self.rows].float().mean())
        return [
            f"missing: {share:.1%} of the training pixels; every bound is of the observed ones, "
            "and the encoder sees 0 in the place of the others"
        ]

    def in_words(self, share: float) -> str:
        """Which images `val_*` is of, and which weights are kept, when a share was asked for."""
        count, total = f"{len(self.validation):,}", f"{len(self.source):,}"
        if self.held_out is not None:
            return (
                f"validation: {count} of {total} training images are held out by the seed; val_* "
                "are of them, and the weights that do best on them are kept"
            )
        none = f"{total} training images are too few to hold any out" if share else "none held out"
        return (
            f"validation: {none}; val_* are of the {count} test images, which choose nothing, and "
            "the last weights are kept"
        )


def load_run_images(config: TrainConfig) -> RunImages:
    """The images of a run, divided.

    Raises:
        ConvvaeError: they cannot be loaded, each reason with its own class.
    """
    return divide(load_images(config, "train"), load_images(config, "test"), config)


def divide(source: data.ImageSet, test: data.ImageSet, config: TrainConfig) -> RunImages:
    """The images of a run, those held out among the training images by its seed.

    Args:
        source: The training images, binarised if the run does so once.
        test: The test images, binarised if the run does so.
        config: The run.
    """
    held = held_out(len(source), config.validation, config.seed)
    kept = torch.ones(len(source), dtype=torch.bool)
    kept[held] = False
    rows = kept.nonzero().squeeze(1)
    if config.labelled is not None:
        source = hide_labels(source, labelled_rows(source, rows, config.labelled, config.seed))
    if not len(held):
        return RunImages(source, rows, None, test)
    # Names are read for whoever asks for one: nobody does here, and a million of them are many.
    validation = replace(source, names=None).take(held)
    if config.binarize == "dynamic":
        drawn = binarize_once(validation.images, "validation", config.binarize_seed)
        validation = replace(validation, images=drawn)
    return RunImages(source, rows, validation, test)


def with_labels_repeated(images: RunImages) -> Tensor:
    """Places of the images to train on in an epoch, those with a label several times, int64 [N'].

    So often that at least about `LABELLED_SHARE` of the images of an epoch have one: a step that
    sees none learns nothing of them.
    """
    source, rows = images.source, images.rows
    labels = needed(source)[rows]
    numbers = labels.unique().tolist()
    lacking = [n for n in numbers if class_name(source.classes, n) == UNLABELLED]
    has = ~torch.isin(labels, torch.tensor(lacking, dtype=torch.int64))
    count = max(1, int(has.sum()))
    often = round(LABELLED_SHARE / (1 - LABELLED_SHARE) * (len(rows) - count) / count)
    return torch.cat([rows, *[rows[has]] * max(0, often - 1)])


def labelled_rows(source: data.ImageSet, rows: Tensor, count: int, seed: int) -> Tensor:
    """Places of the training images whose labels are kept: as many of each, drawn by the seed.

    Where the number is no multiple of that of the labels, the first ones have one more.

    Args:
        source: The training images, with those held out among them.
        rows: Places of those to train on, int64 [N].
        count: How many labels are kept.
        seed: Of the draw.

    Raises:
        ConfigError: there are no labels, or too few images of one.
    """
    labels = needed(source)[rows]
    order = torch.randperm(len(rows), generator=runtime.generator(seed, "labelled"))
    numbers = [n for n in labels.unique().tolist() if class_name(source.classes, n) != UNLABELLED]
    found = list[Tensor]()
    for place, number in enumerate(numbers):
        wanted = count // len(numbers) + (place < count % len(numbers))
        those = order[labels[order] == number]
        if len(those) < wanted:
            raise ConfigError(
                f"`labelled={count}` are {wanted:,} images of each label, and {source.name} has "
                f"{len(those):,} of {in_a_line(class_name(source.classes, number))} to train on; "
                "ask for fewer"
            )
        found.append(rows[those[:wanted]])
    return torch.cat(found)


def load_images(config: TrainConfig, split: data.Split) -> data.ImageSet:
    """The run's images of a split, of its size and channels.

    `limit` cuts the training images only. Test images are binarised once if the run binarises at
    all, training images if it does so once.
    """
    prepare = data.Preparation(
        image_size=config.image_size,
        channels=config.channels,
        crop=config.crop,
        split=config.split,
        skip_bad=config.skip_bad,
        marked=config.mask == MARKED,
        columns=beside_labels(config.condition or ()),
    )
    limit = config.limit if split == "train" else None
    found = data.load(config.data, split, data_dir=config.data_dir, limit=limit, prepare=prepare)
    return binarized(masked(found, config.mask, config.seed), split, config)


def binarized(found: data.ImageSet, split: data.Split, config: TrainConfig) -> data.ImageSet:
    """The images of a split, black or white where the run asks for it once and for all."""
    if config.binarize == "static" or (config.binarize == "dynamic" and split == "test"):
        out = room(tuple(found.images.shape))
        return replace(found, images=binarize_once(found.images, split, config.binarize_seed, out))
    return found


def held_out(count: int, share: float, seed: int) -> Tensor:
    """Places of the images held out: at least one and at most `MOST_HELD_OUT`, drawn by the seed.

    Args:
        count: Number of images.
        share: Of them that is held out; 0 holds out none.
        seed: Of the draw.

    Returns:
        int64 [n], rising; none where fewer than `FEWEST_HELD_OUT` would be left to train on.
    """
    wanted = min(MOST_HELD_OUT, max(1, round(share * count))) if share else 0
    order = torch.randperm(count, generator=runtime.generator(seed, "validation"))
    return order[: max(0, min(wanted, count - FEWEST_HELD_OUT))].sort().values
