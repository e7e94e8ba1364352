"""Starting from the weights of another model: the setting `init`."""

from __future__ import annotations

from typing import Any

from convvae.config import Architecture, ModelConfig
from convvae.errors import ModelMismatchError
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
    return {name: getattr(config, name) for name in names}


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


def check_same(wanted: ModelConfig, found: ModelConfig, model: str) -> None:
    """Check that weights of one architecture fit another.

    Raises:
        ModelMismatchError: they do not; every setting that differs is named with both values.
    """
    names = [name for name in ModelConfig.model_fields if name != "variance"]
    differ = [name for name in names if getattr(wanted, name) != getattr(found, name)]
    if differ:
        said = ", ".join(
            f"`{name}={getattr(wanted, name)}` where that has {getattr(found, name)}"
            for name in differ
        )
        raise ModelMismatchError(
            f"the run does not fit the model {model} to start from: {said}; leave these settings "
            "to the model, or start without `init`"
        )
