"""Model files and run folders: safetensors beside readable JSON, every write atomic.

A model file is one safetensors file whose metadata rebuilds the model: nothing is retyped, and
nothing in it can execute. A run folder holds

    config.json          the resolved settings, versions and device
    metrics.jsonl        one line per epoch, and the running loss between
    model.safetensors    the weights to use (the averaged ones where the run averages): the best on
                         the validation images, or the last where none are held out
    last.safetensors     the last weights, where the best are kept
    resume.safetensors   what continuing needs: raw weights, optimiser state, position; and
    resume-1, resume-2   the two states that were saved before it
    pictures/            previews and final pictures
    report.html          a page about the model
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from convvae.config import Binarize, Frozen, ModelConfig, ValidatedOn
from convvae.errors import ConfigError, ImageSizeError, ModelFileError, did_you_mean
from convvae.files import write_bytes
from convvae.model.vae import VAE, misfit, unfilled
from convvae.parts import PARTS_OF_A_MODEL

MODEL_FORMAT = 1
"""Version of the metadata; a reader refuses a newer one."""
CARRIED = "anomalies"
"""Key of the header, and start of the tensors' names, of what a model file carries beside the model
to judge images by: `anomalies/carried.py`."""
MODEL_FILE, LAST_FILE = "model.safetensors", "last.safetensors"
CHECKSUMS = "crc32"
"""Key of a file's metadata with the CRC-32 of each tensor and of the header; files of before it
lack it and are read unchecked."""
SUMMING_THREADS = 4
"""That sum up the tensors of a file while they are copied: nobody waits for them on two cores."""


class ModelMetadata(Frozen):
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
    mask: str | None = None
    """What was missing of its training images; None where nothing was."""
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


def shareable(metadata: ModelMetadata) -> ModelMetadata:
    """The same for others: of the images, the name and not the folders of this machine."""
    path = Path(metadata.data)
    return metadata.model_copy(update={"data": path.name}) if path.is_absolute() else metadata


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header to a safetensors file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": MODEL_FORMAT, **header}, allow_nan=False)
    sums = {name: checksum(name, tensor) for name, tensor in plain.items()}
    metadata = {"convvae": text, CHECKSUMS: json.dumps({"header": _crc(text), "tensors": sums})}
    # Not by `save_file`, whose own file beside the place stays when the process is killed.
    write_bytes(path, save(plain, metadata=metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by `save_tensors`: its tensors (on the CPU) and its header.

    Raises:
        ModelFileError: the file is absent, damaged, not safetensors, not ours or too new.
    """
    with _reading(path) as found:
        return found


@contextmanager
def _reading(path: Path) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """What `load_tensors` gives, while threads sum it up: what is made of it counts at the end.

    The file is mapped: it is read where it is first summed up or copied, whichever comes first.

    Raises:
        ModelFileError: as `load_tensors`; of damage at the end, before any error of the work.
    """
    tensors, metadata = _mapped(path)
    text = metadata.get("convvae")
    if text is None:
        raise ModelFileError(
            f"{path} is a safetensors file, but not one of convvae's: it does not say which model "
            "its weights belong to; use a file that `convvae train` wrote, or `convvae import` it"
        )
    recorded = metadata.get(CHECKSUMS)
    with ThreadPoolExecutor(SUMMING_THREADS) as beside:
        summed = {} if recorded is None else tensors
        sums = {name: beside.submit(checksum, name, tensor) for name, tensor in summed.items()}
        try:
            yield tensors, _header(path, text)
        finally:
            if recorded is not None:
                tensor_sums = {name: found.result() for name, found in sums.items()}
                _check(path, recorded, {"header": _crc(text), "tensors": tensor_sums})


def _mapped(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, not read yet, and its metadata.

    safetensors opens a file twice, for its header and for its tensors: a training may put another
    in its place meanwhile. Then that one is read.

    Raises:
        ModelFileError: it is not one.
    """
    while True:
        before = _identity(path)
        try:
            with safe_open(path, framework="pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
        except (SafetensorError, OSError, RuntimeError) as error:
            if before == _identity(path):
                raise ModelFileError(
                    f"cannot read {path}: {error}; the file is damaged or not a safetensors file, "
                    "use another copy or train again"
                ) from error
        else:
            if before == _identity(path):
                return found, metadata


def _identity(path: Path) -> tuple[int, ...]:
    """What another file in the same place has otherwise; nothing of one that is not there."""
    try:
        about = path.stat()
    except OSError:
        return ()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _header(path: Path, text: str) -> dict[str, Any]:
    """The JSON header of a file.

    Raises:
        ModelFileError: it is none, or one of another version.
    """
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the metadata is not JSON ({error})") from error
    if not isinstance(header, dict) or header.pop("format", None) != MODEL_FORMAT:
        raise ModelFileError(f"{path} was written by another version of convvae; upgrade convvae")
    return header


def checksum(name: str, tensor: Tensor) -> str:
    """CRC-32 of a tensor on the CPU: of its name, type, shape and bytes, in hexadecimal."""
    start = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
    # The types that NumPy has not, such as bfloat16, are read as bytes.
    return f"{zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, start):08x}"


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _check(path: Path, recorded: str, found: dict[str, Any]) -> None:
    """Compare the checksums of a file with those that it was written with.

    Raises:
        ModelFileError: they differ.
    """
    try:
        wanted = json.loads(recorded)
        same = wanted == found
    except (ValueError, RecursionError):
        wanted, same = None, False
    if same:
        return
    tensors = wanted.get("tensors") if isinstance(wanted, dict) else None
    old = tensors if isinstance(tensors, dict) else {}
    changed = [name for name, value in found["tensors"].items() if old.get(name) != value]
    what = f"the tensor {changed[0]!r}" if old and changed else "its description"
    raise ModelFileError(
        f"{path} is damaged: {what} is not what was written (its checksum differs); use another "
        "copy or train again"
    )


def save_model(path: str | Path, vae: VAE, metadata: ModelMetadata) -> None:
    """Write a model file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    save_tensors(Path(path), vae.state_dict(), metadata.model_dump(mode="json"))


def load_metadata(model: str | Path) -> ModelMetadata:
    """What a model says of itself: the metadata of its file.

    Args:
        model: A run folder, a `.safetensors` file, or the name of a pretrained model.

    Raises:
        ModelFileError: there is no such model, or its file is not whole.
    """
    with _reading_model(find_model(model)) as (_, metadata):
        return metadata


def load_model(model: str | Path) -> tuple[VAE, ModelMetadata]:
    """Rebuild a model in evaluation mode on the CPU, and read its metadata.

    Args:
        model: A run folder, a `.safetensors` file, or the name of a pretrained model.

    Raises:
        ModelFileError: there is no such model, its file is not whole, or it names a part of one's
            own that was not registered.

    Examples:
        >>> vae, metadata = load_model("mlx-cvae")
        >>> vae.training, metadata.model.image_size
        (False, (64, 64))
    """
    path = find_model(model)
    with _reading_model(path) as (tensors, metadata):
        if reason := misfit(metadata.model, tensors):
            raise ModelFileError(
                f"the weights in {path} do not fit its settings: {reason}; use another copy or "
                "train again"
            )
        vae = unfilled(metadata.model)
        try:
            vae.load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelFileError(
                f"the weights in {path} do not fit its settings: {reason}"
            ) from error
    return vae.eval(), metadata


def find_model(model: str | Path) -> Path:
    """The model file that a user means by a run folder, a file or a pretrained name.

    Raises:
        ModelFileError: it is none of them.
    """
    name, known = str(model), pretrained_models()
    for path in (Path(model), Path(model) / MODEL_FILE) if name else ():
        if is_file(path):
            return path
    if name in known:
        return known[name]
    raise ModelFileError(
        f"no model {name!r}: give a run folder with a finished epoch, a .safetensors file, or one "
        "of the pretrained "
        f"models: {', '.join(known) or 'none'}{did_you_mean(name, known)}"
    )


def pretrained_models() -> dict[str, Path]:
    """The models shipped with the package, name -> model file."""
    folder = Path(str(resources.files("convvae"))) / "pretrained"
    return {path.parent.name: path for path in sorted(folder.glob(f"*/{MODEL_FILE}"))}


def is_file(path: Path) -> bool:
    """Whether a file is there and its folder may be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


@contextmanager
def _reading_model(path: Path) -> Iterator[tuple[dict[str, Tensor], ModelMetadata]]:
    """The tensors of a model alone, and its metadata; as `_reading`."""
    with _reading(path) as (tensors, header):
        header.pop(CARRIED, None)
        own = {name: t for name, t in tensors.items() if not name.startswith(f"{CARRIED}.")}
        _check_parts(path, header)
        try:
            metadata = ModelMetadata.checked(header, str(path))
        except ConfigError as error:
            raise ModelFileError(f"{error}; the file's metadata is not a model's") from error
        except ImageSizeError as error:
            raise ModelFileError(
                f"{path}: {error}; the file's metadata is not a model's"
            ) from error
        yield own, metadata


def _check_parts(path: Path, header: dict[str, Any]) -> None:
    """Check that the parts that a model file names are known here.

    Raises:
        ModelFileError: one was never registered.
    """
    model = header.get("model")
    for names in PARTS_OF_A_MODEL:
        name = model.get(names.setting) if isinstance(model, dict) else None
        if isinstance(name, str) and name not in names:
            raise ModelFileError(
                f"the model in {path} has the {names.setting} {name!r}, which is none of convvae's "
                f"and not registered here; call {names.register}({name!r}, ...) before loading it"
            )
