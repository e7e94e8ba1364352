"""From the labels of images to what a conditional model is given: y, a one among zeros."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convvae import runtime
from convvae.config import Condition, ModelConfig
from convvae.data import Images, ImageSet
from convvae.data.images import class_name
from convvae.errors import ConfigError
from convvae.model.vae import VAE


def condition_of(images: ImageSet) -> Condition:
    """The labels of training images, as a model is to know them: in rising order of their numbers.

    Raises:
        ConfigError: the images have no labels, or two of them are called the same.
    """
    labels = needed(images)
    numbers, counts = labels.unique(return_counts=True)
    return Condition.checked(
        {
            "labels": tuple(class_name(images.classes, number) for number in numbers.tolist()),
            "counts": tuple(counts.tolist()),
        },
        f"the labels of {images.name}",
    )


def needed(images: Images) -> Tensor:
    """The labels of images, int64 [N].

    Raises:
        ConfigError: there are none, or not of all of them.
    """
    if images.labels is None:
        raise ConfigError(
            f"a conditional model needs the label of every image, and those of {images.name} have "
            "none, or only some of them have one; lay the images into folders named as their "
            "labels, or list them in a table with a column label"
        )
    return images.labels


def label_places(condition: Condition, images: Images) -> Tensor:
    """Where the labels of images are in y, int64 [N].

    Raises:
        ConfigError: an image has no label, or one that the model does not know.
    """
    numbers, inverse = needed(images).unique(return_inverse=True)
    names = (class_name(images.classes, number) for number in numbers.tolist())
    return torch.tensor([condition.place(name) for name in names])[inverse]


def one_hot(condition: Condition, places: Tensor) -> Tensor:
    """y of labels by their places, int64 [N] -> float32 [N, C]."""
    return F.one_hot(places, len(condition.labels)).float()


def conditions(model: ModelConfig, images: Images) -> Tensor | None:
    """y of images by their labels, shape [N, C]; None for an unconditional model.

    Raises:
        ConfigError: an image has no label, or one that the model does not know.
    """
    if model.condition is None:
        return None
    return one_hot(model.condition, label_places(model.condition, images))


def given_labels_of(vae: VAE, images: Images) -> VAE:
    """The model of images whose labels are known, and which of their pixels are missing.

    Raises:
        ConfigError: an image has no label, or one that the model does not know.
    """
    y = conditions(vae.config, images)
    return (vae if y is None else vae.given(y)).observing(images.observed)


def given_labels(vae: VAE, labels: Sequence[str]) -> VAE:
    """The model of images of these labels: one for all, or one for each of N images.

    Raises:
        ConfigError: the model knows no labels, or not these.
    """
    condition = vae.config.condition
    if condition is None:
        raise ConfigError(
            "the model was trained without labels, and none can be asked for; leave out `label`, "
            "or train with `condition='label'`"
        )
    places = torch.tensor([condition.place(label) for label in labels])
    return vae.given(one_hot(condition, places))


def with_labels(vae: VAE, count: int, *, seed: int) -> VAE:
    """The model of so many images to come: labels that are not given are drawn from p(y).

    Args:
        vae: The model; one that is unconditional, or has its labels, is returned.
        count: Number of images.
        seed: Of the draw.
    """
    condition = vae.config.condition
    if condition is None or vae.y is not None:
        return vae
    weights, generator = log_prior(condition).exp(), runtime.generator(seed, "labels")
    places = torch.multinomial(weights, count, replacement=True, generator=generator)
    return vae.given(one_hot(condition, places))


def log_prior(condition: Condition) -> Tensor:
    """log p(y) by the counts of the training images, nats, shape [C], float64."""
    counts = torch.tensor(condition.counts, dtype=torch.float64)
    return (counts / counts.sum()).log()
