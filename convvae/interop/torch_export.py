"""A model as programs of torch.export: encoder, decoder and vae."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from convvae.anomalies.carried import Carried
from convvae.files import make_folder, write_bytes
from convvae.interop.graphs import graphs, quiet, traced
from convvae.interop.judging import terms
from convvae.model.checkpoint import ModelMetadata, shareable
from convvae.model.vae import VAE


def export_programs(
    vae: VAE, metadata: ModelMetadata, folder: Path, carried: Carried | None = None
) -> list[Path]:
    """Write encoder.pt2, decoder.pt2 and vae.pt2, for `torch.export.load`.

    With a calibration that draws nothing anomalies.pt2 too, its terms in `anomalies.json`.

    Raises:
        OutputError: the folder cannot be written.
    """
    written: list[Path] = []
    make_folder(folder)
    for name, graph in graphs(vae, carried).items():
        facts = {"convvae.json": shareable(metadata).model_dump_json()}
        if name == "anomalies" and carried is not None:
            facts["anomalies.json"] = terms(carried)
        with quiet():
            program = traced(graph)
            file = io.BytesIO()
            torch.export.save(program, file, extra_files=facts)
        written.append(folder / f"{name}.pt2")
        write_bytes(written[-1], file.getbuffer())
    return written
