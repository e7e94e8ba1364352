"""Model files and run folders: safetensors beside readable JSON, every write atomic.

A model file is one safetensors file whose metadata rebuilds the model: nothing is retyped, and
nothing in it can execute. A run folder holds

    config.json          the resolved settings, versions and device
    metrics.jsonl        one line an epoch, and the running loss between
    model.safetensors    the weights to use (the averaged ones where the run averages)
    resume.safetensors   what continuing needs: raw weights, optimiser state, position
    pictures/            previews and final pictures
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convvae.config import Frozen, ModelConfig
from convvae.errors import ConfigError, ModelFileError, OutputError, RunExistsError, did_you_mean
from convvae.files import atomic, make_folder, write_text
from convvae.model import VAE

FORMAT = 1
"""Version of the metadata; a reader refuses a newer one."""
MODEL_FILE = "model.safetensors"


class Facts(Frozen):
    """What a model file says of itself, beside the weights."""

    model: ModelConfig
    """The architecture."""
    data: str
    """Images that it was trained on."""
    recipe: str | None = None
    """Recipe that it was trained by."""
    epochs: int
    """Epochs finished."""
    images: int
    """Images seen in training."""
    bound: float | None = None
    """Validation bound at the end, nats per image (evaluation mode, one draw of z)."""
    versions: dict[str, str]
    """Versions of convvae and of what it ran on."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header to a safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata={"convvae": json.dumps({"format": FORMAT, **header})})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by `save_tensors`: its tensors (on the CPU) and its header.

    Raises:
        ModelFileError: the file is absent, truncated, not safetensors, not ours or too new.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("convvae")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"cannot read {path}: {error}; the file is damaged or not a safetensors file, "
            "use another copy or train again"
        ) from error
    if text is None:
        raise ModelFileError(
            f"{path} is a safetensors file, but not one of convvae's: it does not say which model "
            "its weights belong to; use a file that `convvae train` wrote"
        )
    try:
        header = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"{path}: the metadata is not JSON ({error})") from error
    if header.pop("format", None) != FORMAT:
        raise ModelFileError(f"{path} was written by another version of convvae; upgrade convvae")
    return tensors, header


def save_model(path: Path, vae: VAE, facts: Facts) -> None:
    """Write a model file, whole or not at all."""
    save_tensors(path, vae.state_dict(), facts.model_dump(mode="json"))


def load_facts(model: str | Path) -> Facts:
    """What a model says of itself: the metadata of its file.

    Arguments:
        model: A run folder, a `.safetensors` file, or the name of a pretrained model.

    Raises:
        ModelFileError: there is no such model, or its file is not whole.
    """
    return _load(find_model(model))[1]


def load_model(model: str | Path) -> tuple[VAE, Facts]:
    """Rebuild a model in evaluation mode on the CPU, and read its facts.

    Arguments:
        model: A run folder, a `.safetensors` file, or the name of a pretrained model.

    Raises:
        ModelFileError: there is no such model, or its file is not whole.
    """
    path = find_model(model)
    tensors, facts = _load(path)
    vae = VAE(facts.model)
    try:
        vae.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(f"the weights in {path} do not fit its settings: {reason}") from error
    return vae.eval(), facts


def find_model(model: str | Path) -> Path:
    """The model file that a user means by a run folder, a file or a pretrained name.

    Raises:
        ModelFileError: it is none of them.
    """
    path = Path(model)
    if path.is_dir():
        path = path / MODEL_FILE
        if not path.exists():
            raise ModelFileError(f"{path} does not exist: the folder holds no finished epoch yet")
        return path
    if path.is_file():
        return path
    name = str(model)
    known = pretrained_models()
    if name in known:
        return known[name]
    raise ModelFileError(
        f"no model {name!r}: give a run folder, a .safetensors file, or one of the pretrained "
        f"models: {', '.join(known) or 'none'}{did_you_mean(name, known)}"
    )


def pretrained_models() -> dict[str, Path]:
    """The models shipped with the package, name -> model file."""
    folder = Path(str(resources.files("convvae"))) / "pretrained"
    return {path.parent.name: path for path in sorted(folder.glob(f"*/{MODEL_FILE}"))}


class RunFolder:
    """The files of one training run.

    Arguments:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.model = path / MODEL_FILE
        self.resume = path / "resume.safetensors"
        self.pictures = path / "pictures"

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make a new run folder.

        Raises:
            RunExistsError: the folder already holds a run.
            OutputError: the folder cannot be made.
        """
        run = cls(path)
        if run.config.exists():
            raise RunExistsError(
                f"{path} already holds a run; continue it with `convvae train --resume {path}`, "
                "or choose another folder with --out"
            )
        make_folder(run.pictures)
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder to continue it.

        Raises:
            ModelFileError: the folder holds no run that can be continued.
        """
        run = cls(path)
        if not run.config.exists() or not run.resume.exists():
            raise ModelFileError(
                f"{path} holds no run to resume (config.json and resume.safetensors are needed); "
                "give the folder that `convvae train` made"
            )
        return run

    def read_config(self) -> dict[str, Any]:
        """The content of `config.json`.

        Raises:
            ConfigError: it is not JSON.
        """
        try:
            return json.loads(self.config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{self.config} is not valid JSON: {error}") from error

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.metrics}: {error.strerror}") from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`; a last line cut short by a kill is left out."""
        rows: list[dict[str, Any]] = []
        if self.metrics.exists():
            for line in self.metrics.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    break
        return rows

    def rewind_metrics(self, images: int) -> None:
        """Drop the lines written after the run had seen `images` images."""
        rows = [row for row in self.read_metrics() if row["images"] <= images]
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def next_run_folder(name: str, root: Path = Path("runs")) -> Path:
    """The first of runs/NAME, runs/NAME-2, runs/NAME-3, ... that holds no run."""
    path, number = root / name, 1
    while path.exists():
        number += 1
        path = root / f"{name}-{number}"
    return path


def _load(path: Path) -> tuple[dict[str, Tensor], Facts]:
    tensors, header = load_tensors(path)
    try:
        return tensors, Facts.checked(header, str(path))
    except ConfigError as error:
        raise ModelFileError(f"{error}; the file's metadata is not a model's") from error
