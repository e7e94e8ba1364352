"""Model files and run folders: safetensors beside readable JSON, every write atomic.

A model file is one safetensors file whose metadata rebuilds the model: nothing is retyped, and
nothing in it can execute. A run folder holds

    config.json          the resolved settings, versions and device
    metrics.jsonl        one line an epoch, and the running loss between
    model.safetensors    the weights to use (the averaged ones where the run averages): the best on
                         the validation images, or the last where none are held out
    last.safetensors     the last weights, where the best are kept
    resume.safetensors   what continuing needs: raw weights, optimiser state, position
    pictures/            previews and final pictures
    report.html          a page about the model
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convvae.config import Binarize, Frozen, ModelConfig, ValidatedOn
from convvae.errors import (
    ConfigError,
    ImageSizeError,
    ModelFileError,
    OutputError,
    RunExistsError,
    did_you_mean,
)
from convvae.files import atomic, make_folder, write_text
from convvae.model import VAE

FORMAT = 1
"""Version of the metadata; a reader refuses a newer one."""
MODEL_FILE, LAST_FILE = "model.safetensors", "last.safetensors"


class Facts(Frozen):
    """What a model file says of itself, beside the weights."""

    model: ModelConfig
    """The architecture."""
    data: str
    """Images that it was trained on."""
    crop: bool = False
    """Whether images of another aspect were cut, not padded."""
    split: str = "auto"
    """How images without test images of their own were divided."""
    skip_bad: bool = False
    """Whether files that cannot be read were left out."""
    recipe: str | None = None
    """Recipe that it was trained by."""
    binarize: Binarize = "none"
    """Whether its images were binarised, and how often."""
    binarize_seed: int = 0
    """Seed of the test images' draw."""
    epochs: int
    """Epochs that led to these weights."""
    images: int
    """Images seen in training until then."""
    kept: Literal["last", "best"] = "last"
    """Whether these are the last weights of a run, or those that did best on validation images."""
    run_epochs: int | None = None
    """Epochs of the whole run, where it is finished and its best weights were kept."""
    bound: float | None = None
    """Bound of these weights, nats per image (evaluation mode, K draws as in training); None where
    there was none."""
    validated_on: ValidatedOn = "test"
    """Images that the bound is of: training images held out, or the test images."""
    source: str | None = None
    """Tool and file that the weights came from, where convvae did not train them."""
    versions: dict[str, str]
    """Versions of convvae and of what it ran on."""


def shareable(facts: Facts) -> Facts:
    """The same for others: of the images, the name and not the folders of this machine."""
    path = Path(facts.data)
    return facts.model_copy(update={"data": path.name}) if path.is_absolute() else facts


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header to a safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **header}, allow_nan=False)
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, metadata={"convvae": text})
        except SafetensorError as error:
            raise OutputError(f"cannot write {path}: {error}; is the disk full?") from error


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
            "its weights belong to; use a file that `convvae train` wrote, or `convvae import` it"
        )
    try:
        header = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"{path}: the metadata is not JSON ({error})") from error
    if not isinstance(header, dict) or header.pop("format", None) != FORMAT:
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
    name, known = str(model), pretrained_models()
    for path in (Path(model), Path(model) / MODEL_FILE) if name else ():
        if _is_file(path):
            return path
    if name in known:
        return known[name]
    raise ModelFileError(
        f"no model {name!r}: give a run folder with a finished epoch, a .safetensors file, or one "
        "of the pretrained "
        f"models: {', '.join(known) or 'none'}{did_you_mean(name, known)}"
    )


def run_of(model: str | Path) -> RunFolder | None:
    """The run folder, or the folder of a pretrained model, that a model's file lies in.

    Returns:
        None for a model file that lies alone: what is beside it need not be its own.

    Raises:
        ModelFileError: there is no such model.
    """
    path = find_model(model)
    return RunFolder(path.parent) if path.name in (MODEL_FILE, LAST_FILE) else None


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
        self.last = path / LAST_FILE
        self.resume = path / "resume.safetensors"
        self.pictures = path / "pictures"
        self.report = path / "report.html"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make a new run folder.

        Raises:
            RunExistsError: the folder already holds a run.
            OutputError: the folder cannot be made.
        """
        run = cls(path)
        run.check_free()
        make_folder(run.pictures)
        return run

    def check_free(self) -> None:
        """Check that the folder holds nothing that a run would write.

        Raises:
            RunExistsError: it does.
        """
        for file in (self.config, self.metrics, self.model, self.last, self.resume):
            if _is_file(file):
                raise RunExistsError(
                    f"{self.path} already holds a run ({file.name} is there); continue it with "
                    f"`convvae train --resume {self.path}`, or choose another folder with --out"
                )

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder to continue it.

        Raises:
            ModelFileError: the folder holds no run that can be continued.
        """
        run = cls(path)
        if not _is_file(run.config) or not _is_file(run.resume):
            raise ModelFileError(
                f"{path} holds no run to resume (config.json and resume.safetensors are needed); "
                "give the folder that `convvae train` made"
            )
        return run

    def read_config(self) -> dict[str, Any]:
        """The content of `config.json`; a run of before `validation` was a setting held none out.

        Raises:
            ConfigError: it cannot be read, or is not what `convvae train` wrote.
        """
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.config} cannot be read as JSON: {error}") from error
        if not isinstance(content, dict) or not {"settings", "ran_on"} <= content.keys():
            raise ConfigError(f"{self.config} is not what `convvae train` wrote; was it edited?")
        if isinstance(content["settings"], dict):
            content["settings"] = {"validation": 0.0, **content["settings"]}
        return content

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.metrics}: {error.strerror}") from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`; a last line cut short by a kill is left out.

        Raises:
            ConfigError: the file cannot be read.
        """
        if not self.metrics.exists():
            return []
        try:
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.metrics} cannot be read: {error}") from error
        rows: list[dict[str, Any]] = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def rewind_metrics(self, epochs: int, images: int) -> None:
        """Drop the lines written after a position: `epochs` finished, `images` seen."""
        rows = [
            row
            for row in self.read_metrics()
            if row["images"] <= images and (row["event"] != "epoch" or row["epoch"] <= epochs)
        ]
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def next_run_folder(name: str, root: Path = Path("runs")) -> Path:
    """The first of runs/NAME, runs/NAME-2, runs/NAME-3, ... that holds no run."""
    path, number = root / name, 1
    while path.exists():
        number += 1
        path = root / f"{name}-{number}"
    return path


def _is_file(path: Path) -> bool:
    """Whether a file is there and its folder may be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def _load(path: Path) -> tuple[dict[str, Tensor], Facts]:
    tensors, header = load_tensors(path)
    try:
        return tensors, Facts.checked(header, str(path))
    except (ConfigError, ImageSizeError) as error:
        raise ModelFileError(f"{error}; the file's metadata is not a model's") from error
