"""Models on the Hugging Face Hub: a model file, its settings as JSON, and a model card.

What is fetched is a safetensors file that says itself what it is: nothing in it can run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from convvae.config import ModelConfig
from convvae.errors import DownloadError, OutputError, missing_extra
from convvae.files import atomic, make_folder, write_text
from convvae.model.checkpoint import (
    MODEL_FILE,
    ModelMetadata,
    find_model,
    load_metadata,
    load_model,
    save_model,
    shareable,
)
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE

CARD_PICTURES = {
    "samples.png": "Samples of the prior, decoded",
    "reconstructions-test.png": "Test images, each with its reconstruction at its right",
}
"""Pictures of a run folder that a model card shows, and what they are."""


def save_pretrained(model: str | Path, folder: Path, name: str = "OWNER/NAME") -> None:
    """Write a model as a folder for the Hub: weights, `config.json`, and a model card.

    A run folder's pictures of samples and of test images are shown on the card.

    Args:
        model: A run folder, a `.safetensors` file, or the name of a pretrained model.
        folder: The folder to write.
        name: What the card's example calls the model.

    Raises:
        ModelFileError: there is no such model, or its file is not whole.
        OutputError: the folder cannot be written.
    """
    path, (vae, metadata) = find_model(model), load_model(model)
    metadata = shareable(metadata)
    make_folder(folder)
    pictures = RunFolder(path.parent).pictures
    shown = [picture for picture in CARD_PICTURES if (pictures / picture).is_file()]
    save_model(folder / MODEL_FILE, vae, metadata)
    for picture in shown:
        with atomic(folder / picture) as temporary:
            shutil.copyfile(pictures / picture, temporary)
    write_text(
        folder / "config.json", json.dumps(metadata.model_dump(mode="json"), indent=2) + "\n"
    )
    write_text(folder / "README.md", model_card(metadata, vae.num_parameters(), shown, name))


def from_pretrained(
    model: str | Path, *, revision: str | None = None, token: str | None = None
) -> tuple[VAE, ModelMetadata]:
    """Open a model of the Hub, or of a folder that `save_pretrained` wrote.

    Args:
        model: A folder, or `owner/name` on the Hub.
        revision: Branch, tag or commit on the Hub.
        token: For private models; else the one that `hf auth login` stored.

    Raises:
        ModelFileError: the folder holds no model, or the file is not one of convvae's.
        MissingExtraError: huggingface-hub is not installed.
        DownloadError: it cannot be fetched.
    """
    if Path(model).is_dir():
        return load_model(model)
    hub = _huggingface_hub()
    try:
        path = hub.hf_hub_download(str(model), MODEL_FILE, revision=revision, token=token)
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        raise DownloadError(
            f"cannot fetch {MODEL_FILE} of {model} from the Hugging Face Hub: {_line(error)}; "
            "check the name and the network, and for a private model `hf auth login`"
        ) from error
    return load_model(path)


def push_to_hub(
    model: str | Path, name: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload a model to the Hub in one commit, making the repository if it is not there.

    Args:
        model: A run folder, a `.safetensors` file, or the name of a pretrained model.
        name: `owner/name` on the Hub.
        private: Whether a new repository is private.
        token: Else the one that `hf auth login` stored.

    Returns:
        The address of the model.

    Raises:
        ModelFileError: there is no such model, or its file is not whole.
        MissingExtraError: huggingface-hub is not installed.
        OutputError: it cannot be uploaded.
    """
    hub = _huggingface_hub()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, Path(folder), name)
        metadata = load_metadata(folder)
        api = hub.HfApi(token=token)
        try:
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=f"convvae {metadata.versions.get('convvae', '')} model".strip(),
            )
        except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
            raise OutputError(
                f"cannot upload to {name} on the Hugging Face Hub: {_line(error)}; check the name, "
                "the network, and `hf auth login`"
            ) from error
    return str(address)


def model_card(metadata: ModelMetadata, parameters: int, pictures: list[str], name: str) -> str:
    """The model card: what the model is, how it was made, how it is used; Markdown after YAML."""
    model = metadata.model
    height, width = model.image_size
    rows = {
        "images": f"{height}x{width}, {model.channels} channel{'s' * (model.channels > 1)}",
        "trained on": metadata.data,
        "network": f"{model.network}, {model.max_filters} filters, {parameters:,} parameters",
        "latents": str(model.latent_dims),
        "likelihood p(x\\|z)": model.likelihood
        + (f" of variance {model.variance}" if model.likelihood in ("gaussian", "laplace") else ""),
        "posterior q(z\\|x)": model.posterior,
        "prior p(z)": model.prior,
        "recipe": metadata.recipe,
        "epochs": f"{metadata.epochs} ({metadata.images:,} images seen)"
        if metadata.epochs
        else None,
        "bound": None
        if metadata.bound is None
        else f"{metadata.bound:.2f} nats per image ({metadata.validated_on} images)",
        "weights from": metadata.source,
        "versions": ", ".join(
            f"{library} {number}" for library, number in metadata.versions.items()
        ),
    }
    table = "\n".join(f"| {key} | {_cell(value)} |" for key, value in rows.items() if value)
    images = "".join(
        f"\n![{CARD_PICTURES[key]}]({key})\n\n{CARD_PICTURES[key]}.\n" for key in pictures
    )
    return f"""---
library_name: convvae
pipeline_tag: unconditional-image-generation
tags:
- convvae
- variational-autoencoder
- image-generation
---

# A convolutional variational autoencoder

| | |
| --- | --- |
{table}
{images}
## Use

```python
from convvae.interop.hub import from_pretrained

vae, metadata = from_pretrained("{name}"){_told(model)}
x = vae.decode(vae.prior.sample(16)).mean  # [16, {model.channels}, {height}, {width}] in [0, 1]
```

The bound is a lower bound of log p(x) in evaluation mode: higher is better, and numbers
of different likelihoods do not compare.
"""


def _told(model: ModelConfig) -> str:
    """Lines by which a conditional model is told a label; none of another."""
    if model.condition is None:
        return ""
    values = model.condition.examples(1)[0]
    label = json.dumps(next(iter(values.values())) if len(values) == 1 else values)
    return (
        "\nfrom convvae.model.conditions import given_labels\n\n"
        f"vae = given_labels(vae, [{label}])  # one for all images, or one for each"
    )


def _cell(text: str) -> str:
    """A value as a cell of a Markdown table: one line, no column ends in it."""
    return " ".join(text.split()).replace("|", "\\|")


def _huggingface_hub() -> Any:  # noqa: ANN401
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise missing_extra("the Hugging Face Hub", "hub") from error
    return huggingface_hub


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).partition(". ")[0][:160] or type(error).__name__
