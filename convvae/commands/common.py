"""What commands that open a model share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from convvae.config import DeviceName, Frozen
from convvae.errors import ModelMismatchError

if TYPE_CHECKING:
    from convvae.checkpoint import Facts
    from convvae.model import VAE


class ModelOptions(Frozen):
    """Which model; and the tutorials' flags that repeat what the model file knows."""

    model: Positional[str]
    """Run folder, .safetensors file, or name of a pretrained model."""
    latent_dims: int | None = None
    """Not needed; refused if the model has another number."""
    max_filters: int | None = None
    """Not needed; refused if the model has another number."""
    channels: Annotated[int | None, arg(aliases=["--nimg-channels"])] = None
    """Not needed; refused if the model has another number."""
    device: DeviceName = "auto"
    """Where to compute (--cpu is short for --device cpu)."""


def open_model(options: ModelOptions) -> tuple[VAE, Facts]:
    """The model of a command on its device.

    Raises:
        ModelFileError: there is no such model.
        ModelMismatchError: a flag contradicts the model file.
    """
    from convvae.checkpoint import load_model
    from convvae.runtime import pick_device

    vae, facts = load_model(options.model)
    for name in ("latent_dims", "max_filters", "channels"):
        asked, actual = getattr(options, name), getattr(facts.model, name)
        if asked not in (None, actual):
            raise ModelMismatchError(
                f"--{name} {asked} contradicts the model {options.model}, which has {actual}; "
                "leave the flag out, the model file knows"
            )
    return vae.to(pick_device(options.device)), facts
