"""Weights of other tools as a model, and a model as their weights."""

from __future__ import annotations

import io
import math
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from convvae.config import ModelConfig
from convvae.errors import ConfigError, ImageSizeError, ModelFileError, ModelMismatchError
from convvae.files import write_bytes
from convvae.interop.layout import Layout, Slot
from convvae.interop.mlx import MLX
from convvae.interop.notebook import Notebook
from convvae.interop.reading import Kind, Weights, read_weights
from convvae.interop.torch_vae import TorchVAE
from convvae.model.checkpoint import ModelMetadata
from convvae.model.vae import VAE
from convvae.parts import LikelihoodName

UNKNOWN = "unknown"
"""The data of a model whose file does not say what it was trained on."""
PlainLikelihood = Literal["gaussian", "laplace", "bernoulli"]
"""Likelihoods that hold no weight and whose mean is the sigmoid of the network's output."""
SIGMOID_MEANS = ("gaussian", "gaussian-learned", "gaussian-optimal", "laplace", "bernoulli")


class Imported(NamedTuple):
    """A model made from foreign weights."""

    vae: VAE
    metadata: ModelMetadata
    notes: list[str]
    """What the file did not say and was taken, and what it held and was left out: a line each."""


def import_weights(
    path: Path,
    *,
    image_size: tuple[int, int] | None = None,
    likelihood: PlainLikelihood | None = None,
    variance: float = 0.5,
    data: str = UNKNOWN,
) -> Imported:
    """Make a model from the weights of the MLX tutorial, of torch-vae, or of the 2-D notebook.

    The file's names and shapes say which tool it is of, and the sizes of the model; it is read
    without running anything in it.

    Args:
        path: `.npz` archive, safetensors or PyTorch state dict.
        image_size: Height and width; else the images are taken to be square.
        likelihood: p(x|z), which no such file holds; else what the tool trains with.
        variance: Of a gaussian or laplace likelihood.
        data: What it was trained on.

    Raises:
        ModelFileError: the file is damaged, holds something else than arrays, or its names or
            shapes are not those of a known tool: expected and found are named.
        ImageSizeError: the image size does not fit the weights.
    """
    kind, there = read_weights(path)
    if "encoder.proj_logvar.weight" in there:
        raise ModelFileError(
            f"{path} is a state dict that convvae exported, without the settings that it belongs "
            "to; use the model file that it was exported from"
        )
    try:
        layout = _layout(kind, there)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    try:
        config, notes = _config(layout, there, image_size, likelihood, variance)
        slots = layout.slots(config)
        notes += _check(layout, slots, there)
    except ModelFileError as error:
        raise ModelFileError(f"{path}, read as a file of {layout.tool}: {error}") from error
    vae = VAE(config)
    state = vae.state_dict() | {slot.ours: slot.take(there[slot.theirs]) for slot in slots}
    vae.load_state_dict(state)
    metadata = ModelMetadata(
        model=config,
        data=data,
        source=f"{layout.tool}: {path.name}",
        epochs=0,
        images=0,
        versions={"convvae": version("convvae"), "torch": torch.__version__},
    )
    return Imported(vae.eval(), metadata, notes)


def export_npz(vae: VAE, path: Path) -> list[str]:
    """Write a model as the MLX tutorial's `.npz`; returns what the format cannot hold.

    Raises:
        ModelMismatchError: the model is not one that the tutorial has.
        OutputError: the file cannot be written.
    """
    layout = MLX()
    notes = _check_exportable(vae.config, layout, "npz")
    arrays = {name: tensor.numpy() for name, tensor in _given(vae, layout).items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, file.getbuffer())
    return notes


def export_torch_vae(vae: VAE, path: Path) -> list[str]:
    """Write a model as torch-vae's state dict; returns what the format cannot hold.

    Raises:
        ModelMismatchError: the model is not one that torch-vae has.
        OutputError: the file cannot be written.
    """
    layout = TorchVAE()
    notes = _check_exportable(vae.config, layout, "torch-vae")
    if vae.config.image_size != (64, 64):
        notes.append("torch-vae's own class takes 64x64 images only")
    unused = {name: torch.zeros(shape) for name, shape in layout.shortcuts(vae.config).items()}
    _save(path, _given(vae, layout) | unused)
    return notes


def export_state_dict(vae: VAE, path: Path) -> list[str]:
    """Write a model's state dict, for `torch.load(..., weights_only=True)`; returns what it lacks.

    Raises:
        OutputError: the file cannot be written.
    """
    _save(path, {name: tensor.cpu().contiguous() for name, tensor in vae.state_dict().items()})
    return ["the settings are not in it: rebuild the model by VAE(metadata.model)"]


def _save(path: Path, tensors: Weights) -> None:
    file = io.BytesIO()
    torch.save(tensors, file)
    write_bytes(path, file.getbuffer())


def _given(vae: VAE, layout: Layout) -> Weights:
    state = vae.state_dict()
    return {slot.theirs: slot.give(state[slot.ours].cpu()) for slot in layout.slots(vae.config)}


def _layout(kind: Kind, there: Weights) -> Layout:
    """The tool that a file is of."""
    if kind == "npz" or any(name.startswith("decoder.upconv1.conv.") for name in there):
        return MLX()
    if {"encoder.conv1.weight", "encoder.proj_mu.weight"} & there.keys():
        return TorchVAE()
    if kind == "safetensors":
        raise ModelFileError(
            "its names are those of neither the MLX tutorial nor torch-vae, and the notebook's "
            "weights are known by their order, which safetensors do not keep: save "
            "model.state_dict() with torch.save"
        )
    return Notebook(list(there))


def _config(
    layout: Layout,
    there: Weights,
    image_size: tuple[int, int] | None,
    likelihood: LikelihoodName | None,
    variance: float,
) -> tuple[ModelConfig, list[str]]:
    """The model that fits the weights, and what was taken for granted."""
    sizes, notes = layout.sizes(there), []
    if image_size is None:
        image_size = _square(layout, sizes.cells)
        notes.append(
            f"{sizes.cells} cells of features: images taken to be {image_size[0]}x{image_size[1]}; "
            "`image_size` says otherwise"
        )
    elif math.prod(layout.cells(image_size)) != sizes.cells:
        h, w = layout.cells(image_size)
        raise ImageSizeError(
            f"images of {image_size[0]}x{image_size[1]} have {h}x{w} = {h * w} cells of features, "
            f"the weights have {sizes.cells}; give another `image_size`"
        )
    if likelihood is None:
        likelihood = layout.likelihood
        notes.append(
            f"likelihood taken to be {likelihood}, as {layout.tool} trains; `likelihood` says "
            "otherwise"
        )
    if isinstance(layout, Notebook) and not layout.heads_are_named:
        notes.append("no name says which head is the log-variance: taken to be the second")
    values = {
        "network": layout.network,
        "latent_dims": sizes.latent_dims,
        "max_filters": sizes.filters,
        "likelihood": likelihood,
        "variance": variance,
        "image_size": image_size,
        "channels": sizes.channels,
    }
    try:
        return ModelConfig.checked(values, "its sizes"), notes
    except ConfigError as error:
        raise ModelFileError(str(error)) from error


def _square(layout: Layout, cells: int) -> tuple[int, int]:
    """The square image of so many cells."""
    side = math.isqrt(cells)
    if side * side != cells:
        sizes = [
            f"{h * layout.stride}x{cells // h * layout.stride}"
            for h in range(1, cells + 1)
            if cells % h == 0
        ]
        raise ModelFileError(
            f"{cells} cells of features are not square; give `image_size`, one of "
            f"{', '.join(sizes)}"
        )
    return side * layout.stride, side * layout.stride


def _check(layout: Layout, slots: list[Slot], there: Weights) -> list[str]:
    """Compare names and shapes with those of the layout; say what is left out."""
    for slot in slots:
        if slot.theirs not in there:
            raise ModelFileError(f"expected {slot.theirs} of shape {slot.shape_there}, found none")
        found = tuple(there[slot.theirs].shape)
        if found != slot.shape_there:
            raise ModelFileError(f"{slot.theirs}: expected shape {slot.shape_there}, found {found}")
    names = {slot.theirs for slot in slots}
    rest = [name for name in there if name not in names]
    strange = [name for name in rest if not layout.unused(name)]
    if strange:
        raise ModelFileError(f"expected no {', '.join(strange)}: {layout.tool} has none")
    return [f"left out, unused by {layout.tool}: {', '.join(rest)}"] if rest else []


def _check_exportable(config: ModelConfig, layout: Layout, name: str) -> list[str]:
    """Refuse a model that a tool does not have; say what its format cannot hold."""
    for setting, found, fitting in (
        ("network", config.network, (layout.network,)),
        ("posterior", config.posterior, ("diagonal",)),
        ("prior", config.prior, ("normal",)),
        ("likelihood", config.likelihood, SIGMOID_MEANS),
        ("condition", "label" if config.condition else "none", ("none",)),
    ):
        if found not in fitting:
            raise ModelMismatchError(
                f"`format={name!r}` is for models of {layout.tool}, whose {setting} is "
                f"{' or '.join(fitting)}; this model's is {found}: `format='pth'` or onnx take any"
            )
    if any(side % layout.stride for side in config.image_size):
        height, width = config.image_size
        raise ModelMismatchError(
            f"`format={name!r}` is for sides that {layout.stride} divides, and the images of this "
            f"model are {height}x{width}; `format='pth'` or onnx take any"
        )
    return ["not in the file: image size, likelihood, and the clamp of the log-variance"]
