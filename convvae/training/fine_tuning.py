"""Starting from the weights of another model: the setting `init`."""

from __future__ import annotations

from typing import Any

from convvae.config import Architecture, ModelConfig
from convvae.errors import ModelMismatchError, in_a_line
from convvae.model.checkpoint import load_metadata, load_model
from convvae.training.learner import Learner


def settings_like(model: str) -> dict[str, Any]:
    """The settings that make a model like another one, by the names of `TrainConfig`.

    Args:
        model: A run folder, a model file, or the name of a pretrained model.

    Raises:
        ModelFileError: there is no such model.
    """
    config = load_metadata(model).model
    names = (*Architecture.model_fields, "image_size", "channels")
    condition = None if config.condition is None else "label"
    return {**{name: getattr(config, name) for name in names}, "condition": condition}


def labels_of(config: ModelConfig) -> tuple[str, ...]:
    """The labels that a model is told; none of an unconditional one."""
    return () if config.condition is None else config.condition.labels


def start_from(learner: Learner, model: str) -> None:
    """Give a learner, and its average, the weights of a model.

    Args:
        learner: What is to learn.
        model: A run folder, a model file, or the name of a pretrained model.

    Raises:
        ModelFileError: there is no such model.
        ModelMismatchError: it is of another architecture, or of images of another size.
    """
    vae, _ = load_model(model)
    check_same(learner.vae.config, vae.config, model)
    for mine in (learner.vae, learner.average):
        if mine is not None:
            mine.load_state_dict(vae.state_dict())


def _in_words(config: ModelConfig, name: str) -> object:
    """A setting; of the labels that a model is told, how many and the first."""
    if name == "condition" and config.condition is not None:
        labels = config.condition.labels
        return f"{len(labels):,} labels from {in_a_line(labels[0])}"
    return getattr(config, name)


def check_same(wanted: ModelConfig, found: ModelConfig, model: str) -> None:
    """Check that weights of one architecture fit another.

    Raises:
        ModelMismatchError: they do not; every setting that differs is named with both values.
    """
    names = [n for n in ModelConfig.model_fields if n not in ("variance", "condition")]
    differ = [name for name in names if getattr(wanted, name) != getattr(found, name)]
    # How often each label was seen may differ, which labels there are may not.
    if labels_of(wanted) != labels_of(found):
        differ.append("condition")
    if differ:
        said = ", ".join(
            f"`{name}={_in_words(wanted, name)}` where that has {_in_words(found, name)}"
            for name in differ
        )
        raise ModelMismatchError(
            f"the run does not fit the model {model} to start from: {said}; leave these settings "
            "to the model, or start without `init`"
        )
