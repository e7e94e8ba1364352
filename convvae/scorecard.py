"""What `convvae evaluate` prints and writes: every number with its unit and its protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from convvae.evaluate import Estimate, Evaluation, evaluation, is_binary
from convvae.files import make_folder, write_text
from convvae.model import VAE


def run(vae: VAE, images: Tensor, protocol: dict[str, Any], path: Path | None) -> None:
    """Evaluate a model, print the table, and write the numbers if a file is named.

    Arguments:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        protocol: How it is done: model, data, images, samples, seeds.
        path: JSON file to write.

    Raises:
        OutputError: the file cannot be written.
    """
    if path is not None:
        make_folder(path.parent)  # a place that cannot be written to is said before the work
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("importance weights", total=len(images))
        found = evaluation(
            vae,
            images,
            seed=protocol["seed"],
            samples=protocol["samples"],
            progress=lambda count: bar.advance(task, count),
        )
    for name, value in protocol.items():
        if value is not None:
            console.print(f"{name}: {value}", highlight=False, markup=False, soft_wrap=True)
    console.print("\n".join(lines(found)), highlight=False, markup=False, soft_wrap=True)
    for remark in remarks(vae, images, found):
        console.print(remark, highlight=False, markup=False, soft_wrap=True)
    if path is not None:
        write_text(path, json.dumps({"protocol": protocol, **as_json(found)}, indent=2) + "\n")
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


def lines(found: Evaluation) -> list[str]:
    """The numbers, a line each, with units."""
    return [f"  {name:<22} {value}  ({unit})" for name, value, unit in rows(found)]


def rows(found: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value and unit of every number."""
    table = [
        ("bound (ELBO)", in_words(found.bound), "nats per image"),
        ("  log p(x|z)", in_words(found.log_px), "nats per image"),
        ("  KL(q || p)", in_words(found.kl), "nats per image"),
    ]
    if found.importance_weighted is not None:
        name = f"bound of {found.samples} weights"
        table.append((name, in_words(found.importance_weighted), "nats per image"))
    if found.bits_per_dim is not None:
        table.append(("bits/dim", f"{found.bits_per_dim:.4f}", "of the tighter bound"))
    units = f"{found.active_units} of {found.latents}"
    table.append(("active units", units, "variance of the mean over 0.01"))
    if found.kl_per_latent is not None:
        ordered = " ".join(f"{kl:.2f}" for kl in sorted(found.kl_per_latent, reverse=True))
        table.append(("KL per latent", ordered, "nats, largest first"))
    error = in_words(found.squared_error, 6)
    table.append(("squared error", error, "per value, of the mean's decoding"))
    if found.psnr is not None:
        table.append(("PSNR", f"{found.psnr:.2f}", "dB"))
    return table


def remarks(vae: VAE, images: Tensor, found: Evaluation) -> list[str]:
    """What a reader of the numbers must know."""
    said: list[str] = []
    if vae.config.likelihood == "bernoulli" and not is_binary(images):
        said.append(
            "note: the pixels are grey, so that the Bernoulli bound is a cross-entropy and not "
            "log p(x); binarise them with --binarize once to compare it with published figures"
        )
    if len(images) == 1:
        said.append("note: standard errors and active units are not defined for one image")
    dead = found.latents - found.active_units
    if dead and len(images) > 1:
        said.append(
            f"note: {dead} latents are not used; fewer latents, --beta below 1 or "
            "--kl-schedule linear keep more of them"
        )
    return said


def in_words(estimate: Estimate, digits: int = 2) -> str:
    """`mean ± standard error`."""
    mean = f"{estimate.mean:.{digits}f}"
    error = estimate.standard_error
    return mean if error is None else f"{mean} ± {error:.{digits}f}"


def as_json(found: Evaluation) -> dict[str, Any]:
    """The numbers by name; an estimate as its mean and standard error."""
    return {
        name: value._asdict() if isinstance(value, Estimate) else value
        for name, value in found._asdict().items()
    }
