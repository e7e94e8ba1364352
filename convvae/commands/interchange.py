"""`convvae import` and `convvae export`: weights and models of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from convvae.config import Frozen, ImageSize, UserPath
from convvae.errors import OutputError
from convvae.flags import parse


class ImportOptions(Frozen):
    """Make a model of another tool's weights: of the MLX tutorial, torch-vae, or the notebook."""

    file: Positional[UserPath]
    """The tutorial's .npz or .safetensors, or a PyTorch state dict (.pth)."""
    out: UserPath
    """Model file to write, NAME.safetensors."""
    image_size: ImageSize = None
    """Height and width of its images, which no such file holds; else taken to be square."""
    likelihood: Literal["gaussian", "laplace", "bernoulli"] | None = None
    """p(x|z), which no such file holds; else what the tool trains with."""
    variance: float = Field(default=0.5, gt=0)
    """Variance of a gaussian or laplace likelihood."""
    data: str = "unknown"
    """Images that it was trained on; other commands take them where none are named."""


class ExportOptions(Frozen):
    """Write a model for other tools."""

    model: Positional[str]
    """Run folder, .safetensors file, or name of a pretrained model."""
    form: Annotated[Literal["onnx", "npz", "pth", "pt2", "torch-vae"], arg(name="format")]
    """onnx, pt2: graphs; npz: the MLX tutorial's; pth: plain state dict; torch-vae: its own."""
    out: UserPath
    """File to write; for onnx and pt2 the folder of encoder, decoder and vae."""


def import_(args: list[str]) -> None:
    """Make a model of the weights of the MLX tutorial, torch-vae or the notebook."""
    options = parse(ImportOptions, args, "convvae import")
    if options.out.suffix != ".safetensors":
        raise OutputError(f"{options.out} would be a model file: name it NAME.safetensors")
    from convvae.checkpoint import save_model
    from convvae.interop.weights import import_weights

    vae, facts, notes = import_weights(
        options.file,
        image_size=options.image_size,
        likelihood=options.likelihood,
        variance=options.variance,
        data=options.data,
    )
    save_model(options.out, vae, facts)
    model = facts.model
    height, width = model.image_size
    print(
        f"wrote {options.out}: network {model.network}, {model.latent_dims} latents, "
        f"{model.max_filters} filters, {height}x{width}x{model.channels}, from {facts.source}"
    )
    _say(notes)


def export(args: list[str]) -> None:
    """Write a model as ONNX, torch.export, a state dict, or for the MLX tutorial or torch-vae."""
    options = parse(ExportOptions, args, "convvae export")
    if options.form in ("onnx", "pt2") and options.out.suffix == f".{options.form}":
        raise OutputError(
            f"{options.out} would be one file, and encoder, decoder and vae are three: name a "
            "folder for them"
        )
    from convvae.checkpoint import load_model
    from convvae.interop import graphs, weights

    vae, facts = load_model(options.model)
    written, notes = [options.out], []
    match options.form:
        case "onnx":
            written = graphs.export_onnx(vae, facts, options.out)
        case "pt2":
            written = graphs.export_programs(vae, facts, options.out)
        case "npz":
            notes = weights.export_npz(vae, options.out)
        case "torch-vae":
            notes = weights.export_torch_vae(vae, options.out)
        case "pth":
            notes = weights.export_state_dict(vae, options.out)
    for path in written:
        print(f"wrote {path}: {_size(path)}")
    _say(notes)


def _say(notes: list[str]) -> None:
    for note in notes:
        print(f"  {note}")


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
