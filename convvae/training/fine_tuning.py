"""Starting from the weights of another model: the setting `init`."""

from __future__ import annotations

from typing import Any

from convvae.config import (
    LABEL,
    SEMI_SUPERVISED,
    Architecture,
    Category,
    Condition,
    ModelConfig,
    Number,
    TrainConfig,
)
from convvae.data import ImageSet
from convvae.errors import ModelMismatchError, in_a_line
from convvae.model.checkpoint import load_metadata, load_model
from convvae.model.conditions import condition_of
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
    condition = None if config.condition is None else config.condition.words
    learns = {"objective": SEMI_SUPERVISED} if config.classifier else {}
    return {**{name: getattr(config, name) for name in names}, "condition": condition, **learns}


def columns_of(config: ModelConfig) -> tuple[Category | Number, ...]:
    """What a model is told; nothing of an unconditional one."""
    return () if config.condition is None else config.condition.columns


def condition_for(config: TrainConfig, source: ImageSet) -> Condition | None:
    """What a run's model is told of its training images; None of an unconditional one.

    Numbers are standardised as those of the model that it starts from, if there is one.

    Args:
        config: The run.
        source: The training images.

    Raises:
        ConfigError: an image lacks what is to be told of it.
        ModelFileError: there is no model to start from.
    """
    if config.condition is None:
        return None
    semi = config.objective == SEMI_SUPERVISED
    condition = condition_of(source, config.condition, some_lack=semi)
    if config.init is None:
        return condition
    theirs = {column.name: column for column in columns_of(load_metadata(config.init).model)}
    columns = [
        theirs[column.name]
        if isinstance(column, Number) and isinstance(theirs.get(column.name), Number)
        else column
        for column in condition.columns
    ]
    return condition.model_copy(update={"columns": tuple(columns)})


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
    """A setting; of the columns that a model is told, their names, and of labels the first."""
    if name == "condition" and config.condition is not None:
        return " and ".join(map(_column_in_words, config.condition.columns))
    return getattr(config, name)


def _column_in_words(column: Category | Number) -> str:
    if isinstance(column, Number):
        return f"the number {in_a_line(column.name)} of mean {column.mean:g}"
    name = "" if column.name == LABEL else f" of {in_a_line(column.name)}"
    return f"{len(column.labels):,} labels{name} from {in_a_line(column.labels[0])}"


def check_same(wanted: ModelConfig, found: ModelConfig, model: str) -> None:
    """Check that weights of one architecture fit another.

    Raises:
        ModelMismatchError: they do not; every setting that differs is named with both values.
    """
    names = [n for n in ModelConfig.model_fields if n not in ("variance", "condition")]
    differ = [name for name in names if getattr(wanted, name) != getattr(found, name)]
    # How often each label was seen may differ, which labels there are may not.
    if columns_of(wanted) != columns_of(found):
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
