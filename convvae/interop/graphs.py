"""A model as a graph that runs without convvae: ONNX, and programs of torch.export.

Three graphs, each for any number of images B:

- encoder: x [B, C, H, W] in [0, 1] -> mu [B, D] and logvar [B, D]; of a full covariance, mu and
  its Cholesky factor [B, D, D]; of a flow, its location f(mu) [B, D], which is not its mean; of a
  ladder, the path of its means [B, D]
- decoder: z [B, D] -> mean of p(x|z) [B, C, H, W]
- vae: x -> its reconstruction, the decoder of the posterior's location

Of a model whose file carries a calibration, a fourth, see `judging`:

- anomalies: x -> score [B], p [B] and flagged [B]

Of a conditional model each has a second input, y [B, C'], one column after the other: of names a
one at the place of the image's label and zeros elsewhere, of numbers (value - mean) / std; labels,
means and deviations are in the metadata.

Evaluation mode, float32, no random numbers. A file holds the weights that its graph computes with,
the axis of the images is called `batch`, and no path of the machine that wrote it is inside.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from convvae.anomalies.carried import Carried
from convvae.distributions import DiagonalGaussian, FullGaussian
from convvae.interop.judging import DRAWING, JudgingGraph
from convvae.model.vae import VAE

RECONSTRUCTING = ("encoder", "flow", "decoder", "head")
"""The parts of a model that take an image to its reconstruction."""


class Graph(NamedTuple):
    """A graph before it is written: a module, and names for the outside."""

    module: nn.Module
    inputs: dict[str, tuple[int, ...]]
    """Names and shapes, the batch left out."""
    outputs: list[str]


def graphs(vae: VAE, carried: Carried | None = None) -> dict[str, Graph]:
    """The three graphs of a model by their names, and that of a calibration which draws nothing."""
    config = vae.config
    image = (config.channels, *config.image_size)
    spread = {"diagonal": ["mu", "logvar"], "full": ["mu", "scale_tril"], "flow": ["location"]}
    outputs = ["location"] if config.plan else spread[config.posterior]
    y = {} if config.condition is None else {"y": (config.condition.size,)}
    found = {
        "encoder": Graph(EncoderGraph(vae), {"x": image, **y}, outputs),
        "decoder": Graph(DecoderGraph(vae), {"z": (config.latent_dims,), **y}, ["mean"]),
        "vae": Graph(ReconstructionGraph(vae), {"x": image, **y}, ["mean"]),
    }
    if carried is not None and carried.terms.score not in DRAWING:
        parts = _with(vae, *RECONSTRUCTING)
        judging = JudgingGraph(parts, carried)
        found["anomalies"] = Graph(judging, {"x": image}, ["score", "p", "flagged"])
    return found


def traced(graph: Graph) -> ExportedProgram:
    """The program of a graph, for any batch."""
    examples = tuple(torch.zeros(2, *shape) for shape in graph.inputs.values())
    batch = Dim("batch", min=1)
    free = {name: {0: batch} for name in graph.inputs}
    with torch.no_grad():
        program = export(graph.module.eval(), examples, dynamic_shapes=free)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return _named(program)


def _named(program: ExportedProgram) -> ExportedProgram:
    """The same program, the first axis of its inputs called `batch`.

    torch numbers free axes (`s77`) whatever they were called, and a program in memory cannot be
    given other names: it is renamed in its saved form.
    """
    name, *_ = program.graph_signature.user_inputs
    (given,) = (node for node in program.graph.nodes if node.name == name)
    symbol = given.meta["val"].shape[0]
    saved, renamed = io.BytesIO(), io.BytesIO()
    torch.export.save(program, saved)
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(renamed, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("models/model.json"):
                content = re.sub(rf"\b{symbol}\b", "batch", content.decode()).encode()
            new.writestr(member, content)
    renamed.seek(0)
    return torch.export.load(renamed)


def _with(vae: VAE, *parts: str) -> VAE:
    """The model with some of its parts only, which it shares: the others would be saved unused."""
    some = VAE.__new__(VAE)
    nn.Module.__init__(some)
    some.config, some.y, some.observed = vae.config, None, None
    for part in ("planes", *parts):
        setattr(some, part, getattr(vae, part))
    return some


def _of(vae: VAE, y: Tensor | None) -> VAE:
    """The model of images whose y is known, shape [B, C']; an unconditional one as it is."""
    return vae if y is None else vae.given(y)


@final
class EncoderGraph(nn.Module):
    """x -> the parameters of q(z|x)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        # A ladder's posterior is a function of the way down too.
        self.vae = _with(vae, "encoder", "flow", *(["decoder"] if vae.config.plan else []))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        """x [B, C, H, W] -> location [B, D], and logvar [B, D] or scale_tril [B, D, D]."""
        q = _of(self.vae, y).encode(x)
        if isinstance(q, DiagonalGaussian):
            return q.mu, q.logvar
        return (q.mu, q.scale_tril) if isinstance(q, FullGaussian) else (q.location,)


@final
class DecoderGraph(nn.Module):
    """z -> the mean of p(x|z)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = _with(vae, "decoder", "head")

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """z [B, D] -> mean [B, C, H, W]."""
        return _of(self.vae, y).decode(z).mean


@final
class ReconstructionGraph(nn.Module):
    """x -> the mean of p(x|z) at the location of q(z|x)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = _with(vae, *RECONSTRUCTING)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """x [B, C, H, W] -> mean [B, C, H, W]."""
        vae = _of(self.vae, y)
        return vae.decode(vae.encode(x).location).mean


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of itself: of torchvision, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`")
            yield
    finally:
        logger.setLevel(before)
