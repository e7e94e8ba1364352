"""A model as ONNX files: encoder, decoder and vae."""

from __future__ import annotations

from pathlib import Path

import torch

from convvae.anomalies.carried import Carried
from convvae.errors import ModelMismatchError, missing_extra
from convvae.files import make_folder, write_bytes
from convvae.interop.graphs import graphs, quiet, traced
from convvae.interop.judging import terms
from convvae.model.checkpoint import ModelMetadata, shareable
from convvae.model.vae import VAE

MAX_ONNX_BYTES = 2**31 - 2**20
"""Bytes of weights that one ONNX file can hold: protobuf counts in 31 bits."""


def export_onnx(
    vae: VAE, metadata: ModelMetadata, folder: Path, carried: Carried | None = None
) -> list[Path]:
    """Write encoder.onnx, decoder.onnx and vae.onnx, each checked by onnx's own checker.

    With a calibration that draws nothing anomalies.onnx too, its terms in `convvae.anomalies`.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ModelMismatchError: the weights are more than a file can hold.
        OutputError: the folder cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("exporting to ONNX", "onnx") from error
    size = sum(value.nbytes for value in vae.state_dict().values())
    if size > MAX_ONNX_BYTES:
        raise ModelMismatchError(
            f"the weights are {size / 1e9:.1f} GB, and an ONNX file holds 2: use `format='pt2'`"
        )
    written: list[Path] = []
    make_folder(folder)
    for name, graph in graphs(vae, carried).items():
        with quiet():
            program = torch.onnx.export(
                traced(graph),
                input_names=list(graph.inputs),
                output_names=graph.outputs,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        entry = model.metadata_props.add()
        entry.key, entry.value = "convvae", shareable(metadata).model_dump_json()
        if name == "anomalies" and carried is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = "convvae.anomalies", terms(carried)
        onnx.checker.check_model(model, full_check=True)
        written.append(folder / f"{name}.onnx")
        write_bytes(written[-1], model.SerializeToString())
    return written
