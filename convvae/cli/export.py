"""`convvae export`: a model for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from convvae.cli.common import OutputOptions, check_outputs, say_notes
from convvae.cli.flags import parse
from convvae.config import Flag, UserPath
from convvae.errors import OutputError

GRAPHS = ("encoder", "decoder", "vae")
"""What a folder of graphs holds a file of."""


class ExportOptions(OutputOptions):
    """Write a model for other tools."""

    model: Annotated[str, Flag(positional=True)]
    """Run folder, .safetensors file, or name of a pretrained model."""
    form: Annotated[Literal["onnx", "npz", "pth", "pt2", "torch-vae"], Flag(name="format")]
    """onnx, pt2: graphs; npz: the MLX tutorial's; pth: plain state dict; torch-vae: its own."""
    out: UserPath
    """File to write; for onnx and pt2 the folder of encoder, decoder and vae (and anomalies)."""


def export(args: list[str]) -> None:
    """Write a model as ONNX, torch.export, a state dict, or for the MLX tutorial or torch-vae."""
    options = parse(ExportOptions, args, "convvae export")
    folder = options.form in ("onnx", "pt2")
    if folder and options.out.suffix == f".{options.form}":
        raise OutputError(
            f"{options.out} would be one file, and encoder, decoder and vae are three: name a "
            "folder for them"
        )
    names = [f"{name}.{options.form}" for name in GRAPHS] if folder else [""]
    from convvae.anomalies.carried import carried

    judge = carried(options.model) if folder else None
    if judge is not None:
        names.append(f"anomalies.{options.form}")
    check_outputs(options, [options.out / name for name in names], "out", model=options.model)
    from convvae.interop import weights
    from convvae.interop.onnx import export_onnx
    from convvae.interop.torch_export import export_programs
    from convvae.model.checkpoint import load_model

    vae, metadata = load_model(options.model)
    written, notes = [options.out], []
    match options.form:
        case "onnx":
            written = export_onnx(vae, metadata, options.out, judge)
        case "pt2":
            written = export_programs(vae, metadata, options.out, judge)
        case "npz":
            notes = weights.export_npz(vae, options.out)
        case "torch-vae":
            notes = weights.export_torch_vae(vae, options.out)
        case "pth":
            notes = weights.export_state_dict(vae, options.out)
    if judge is not None and len(written) == len(GRAPHS):
        notes.append(
            f"no graph of the calibration: its score {judge.terms.score} draws z, and graphs draw "
            "nothing; calibrate by another"
        )
    for path in written:
        print(f"wrote {path}: {_size(path)}")
    say_notes(notes)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
