"""How other tools name and order the weights of the networks that convvae shares with them.

| tool | network | differences |
| --- | --- | --- |
| MLX tutorial | `upsample` | convolutions are (out, rows, columns, in) |
| torch-vae | `transposed` | features are flattened (F, h, w), not (h, w, F) |
| 2-D notebook | `pooled` | its own names, in the order of the parts |

A `Slot` is one tensor in both worlds, and both ways are read from it, so that they cannot drift
apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from convvae.config import LikelihoodName, ModelConfig, Network
from convvae.errors import ModelFileError
from convvae.model import VAE

Shape = tuple[int, ...]
SPREAD = ("var", "sigma", "std", "scale")
"""Words that people name a head after that gives the spread of q(z|x)."""


@dataclass(frozen=True)
class Slot:
    """One tensor: its name here and there, and how its axes are ordered there.

    there = here.reshape(view).permute(axes).reshape(there's shape); without `axes` both are equal.
    """

    ours: str
    theirs: str
    shape: Shape
    """Here."""
    shape_there: Shape
    view: Shape = ()
    axes: Shape = ()

    def give(self, tensor: Tensor) -> Tensor:
        """A tensor of ours as they have it."""
        if self.axes:
            tensor = tensor.reshape(self.view).permute(self.axes)
        return tensor.reshape(self.shape_there).contiguous()

    def take(self, tensor: Tensor) -> Tensor:
        """A tensor of theirs as we have it."""
        if self.axes:
            back = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
            tensor = tensor.reshape([self.view[axis] for axis in self.axes]).permute(back)
        return tensor.reshape(self.shape).contiguous()


class Sizes(NamedTuple):
    """What the shapes of foreign weights say of the model."""

    channels: int
    filters: int
    latent_dims: int
    cells: int
    """Cells h * w of the feature map between convolutions and latents."""


class Layout(ABC):
    """The weights of one tool."""

    tool: ClassVar[str]
    """Its name, for people."""
    network: ClassVar[Network]
    likelihood: ClassVar[LikelihoodName]
    """What it trains with."""
    stride: ClassVar[int]
    """Pixels that a cell of the feature map covers, a side."""

    @abstractmethod
    def sizes(self, there: Mapping[str, Tensor]) -> Sizes:
        """The sizes of the network, from the shapes of its weights.

        Raises:
            ModelFileError: a weight is missing, or the shapes fit no such network.
        """

    @abstractmethod
    def slots(self, config: ModelConfig) -> list[Slot]:
        """Every tensor of a model, in the order of its state dict."""

    def cells(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the feature map between convolutions and latents."""
        height, width = image_size
        return -(-height // self.stride), -(-width // self.stride)

    @abstractmethod
    def unused(self, name: str) -> bool:
        """Whether the tool saves a tensor of that name without computing with it."""


@final
class MLX(Layout):
    """The MLX tutorial's `.npz`: channels last; it does not count the batches it has seen."""

    tool = "the MLX tutorial"
    network = "upsample"
    likelihood = "gaussian"
    stride = 8

    def sizes(self, there: Mapping[str, Tensor]) -> Sizes:
        """See `Layout`."""
        return _strided_sizes(there, channel_axis=-1)

    def slots(self, config: ModelConfig) -> list[Slot]:
        """See `Layout`."""
        found: list[Slot] = []
        for name, shape in _shapes(config).items():
            if name.endswith("num_batches_tracked"):
                continue
            theirs = _log_var(name)
            for number in "123":
                theirs = theirs.replace(f"upconv{number}.", f"upconv{number}.conv.")
            if len(shape) == 4:
                there = (shape[0], *shape[2:], shape[1])
                found.append(Slot(name, theirs, shape, there, shape, (0, 2, 3, 1)))
            else:
                found.append(Slot(name, theirs, shape, shape))
        return found

    def unused(self, name: str) -> bool:
        """See `Layout`."""
        return False


@final
class TorchVAE(Layout):
    """torch-vae's state dict: features flattened (F, h, w); it saves shortcuts that it never uses.

    Source: https://github.com/menzHSE/torch-vae
    """

    tool = "torch-vae"
    network = "transposed"
    likelihood = "gaussian"
    stride = 8

    def sizes(self, there: Mapping[str, Tensor]) -> Sizes:
        """See `Layout`."""
        return _strided_sizes(there, channel_axis=1)

    def slots(self, config: ModelConfig) -> list[Slot]:
        """See `Layout`."""
        filters, dims = config.max_filters, config.latent_dims
        h, w = self.cells(config.image_size)
        moves: dict[str, tuple[Shape, Shape]] = {
            "encoder.proj_mu.weight": ((dims, h, w, filters), (0, 3, 1, 2)),
            "encoder.proj_logvar.weight": ((dims, h, w, filters), (0, 3, 1, 2)),
            "decoder.lin1.weight": ((h, w, filters, dims), (2, 0, 1, 3)),
            "decoder.lin1.bias": ((h, w, filters), (2, 0, 1)),
        }
        return [
            Slot(name, _log_var(name), shape, shape, *moves.get(name, ()))
            for name, shape in _shapes(config).items()
        ]

    def unused(self, name: str) -> bool:
        """See `Layout`."""
        return ".shortcut" in name

    def shortcuts(self, config: ModelConfig) -> dict[str, Shape]:
        """The tensors that its own `load_state_dict` asks for and that compute nothing."""
        large, middle, small = (config.max_filters // part for part in (1, 2, 4))
        pairs = {
            "encoder.shortcut2": (middle, small, middle),
            "encoder.shortcut3": (large, middle, large),
            "decoder.shortcut1": (large, middle, middle),
            "decoder.shortcut2": (middle, small, small),
        }
        found: dict[str, Shape] = {}
        for name, (rows, columns, outputs) in pairs.items():
            found |= {f"{name}.weight": (rows, columns, 1, 1), f"{name}.bias": (outputs,)}
        return found


@final
class Notebook(Layout):
    """The notebook's state dict: whatever it calls its parts, they come in one order.

    Encoder before decoder, inputs before outputs, the two heads one after the other. Which head is
    the log-variance is in its name, else it is the second.

    Arguments:
        names: The names in the file, in its order.
    """

    tool = "the 2-D notebook"
    network = "pooled"
    likelihood = "bernoulli"
    stride = 4

    def __init__(self, names: list[str]) -> None:
        self.names = names

    @property
    def heads_are_named(self) -> bool:
        """Whether exactly one head is named after a variance."""
        first, second = self._spreads()
        return first != second

    def sizes(self, there: Mapping[str, Tensor]) -> Sizes:
        """See `Layout`."""
        shapes = [tuple(tensor.shape) for tensor in there.values()]
        expected = len(_shapes(_smallest(self.network)))
        if len(shapes) != expected:
            raise ModelFileError(
                f"expected the {expected} tensors of {self.tool}, found {len(shapes)}: "
                f"{', '.join(list(there)[:3])}, ..."
            )
        first, features = shapes[0], shapes[14]
        if len(first) != 4 or len(features) != 2 or len(shapes[21]) != 2:
            raise ModelFileError(
                f"expected the tensors of {self.tool} in its order, a convolution first; found "
                f"{self.names[0]} of shape {first}"
            )
        return Sizes(first[1], first[0], shapes[21][0], _whole(features[1], first[0]))

    def slots(self, config: ModelConfig) -> list[Slot]:
        """See `Layout`."""
        shapes, theirs = _shapes(config), list(self.names)
        if self._spreads() == (True, False):
            theirs[14:32] = theirs[23:32] + theirs[14:23]
        return [
            Slot(ours, name, shape, shape)
            for (ours, shape), name in zip(shapes.items(), theirs, strict=True)
        ]

    def unused(self, name: str) -> bool:
        """See `Layout`."""
        return False

    def _spreads(self) -> tuple[bool, bool]:
        """Whether the names of each head, nine tensors after fourteen, speak of a variance."""
        parts = [set(name.lower().split(".")[:-1]) for name in self.names]
        heads = set().union(*parts[14:23]), set().union(*parts[23:32])
        first, second = (
            any(word in part for part in own - other for word in SPREAD)
            for own, other in (heads, heads[::-1])
        )
        return first, second


def _shapes(config: ModelConfig) -> dict[str, Shape]:
    """Names and shapes of a model's tensors; nothing is allocated."""
    with torch.device("meta"):
        state = VAE(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _smallest(network: Network) -> ModelConfig:
    return ModelConfig(network=network, image_size=(8, 8), channels=1, latent_dims=1, max_filters=4)


def _strided_sizes(there: Mapping[str, Tensor], channel_axis: int) -> Sizes:
    """The sizes of a network of three strided convolutions."""
    first, last, head = (
        _shape(there, name, axes)
        for name, axes in (
            ("encoder.conv1.weight", 4),
            ("encoder.conv3.weight", 4),
            ("encoder.proj_mu.weight", 2),
        )
    )
    return Sizes(first[channel_axis], last[0], head[0], _whole(head[1], last[0]))


def _shape(there: Mapping[str, Tensor], name: str, axes: int) -> Shape:
    if name not in there:
        raise ModelFileError(
            f"no {name} in it; found {', '.join(list(there)[:3]) or 'nothing'}, ..."
        )
    shape = tuple(there[name].shape)
    if len(shape) != axes:
        raise ModelFileError(f"{name}: expected {axes} axes, found shape {shape}")
    return shape


def _whole(features: int, filters: int) -> int:
    if filters < 1 or features % filters:
        raise ModelFileError(f"{features} features are not whole cells of {filters} filters")
    return features // filters


def _log_var(name: str) -> str:
    return name.replace("proj_logvar", "proj_log_var")
