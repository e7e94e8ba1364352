"""What a run leaves beside its model: `config.json`, pictures, and the report."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from convvae import data, figures, runtime
from convvae.config import TrainConfig
from convvae.errors import DataChangedError
from convvae.evaluation.encode import generate
from convvae.evaluation.reconstruction import reconstruct
from convvae.figures import report
from convvae.figures.gallery import Gallery
from convvae.images import sheets
from convvae.model.checkpoint import load_metadata
from convvae.model.conditions import given_labels_of
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE
from convvae.training.learner import TrainingProgress

PREVIEW = 128
"""Reconstructions in a picture, and as many samples."""


def write_config(
    run: RunFolder,
    config: TrainConfig,
    images: data.ImageSet,
    vae: VAE,
    engine: str,
    progress: TrainingProgress,
) -> None:
    """Write `config.json`: the settings, what they resolved to, and what they ran on.

    `ran_on` has an entry for the start and one for every time that the run was resumed.
    """
    before = run.read_config()["ran_on"] if run.config.exists() else []
    ran_on = {
        "from_image": progress.images,
        "device": runtime.describe_device(vae.device),
        "engine": engine,
        "versions": runtime.versions(),
    }
    content = {
        "settings": config.model_dump(mode="json"),
        "model": vae.config.model_dump(mode="json"),
        "images": known_by(images),
        "ran_on": [*before, ran_on],
    }
    run.write_config(content)


def known_by(images: data.ImageSet) -> dict[str, Any]:
    """What tells training images from others, for `config.json`."""
    return {"count": len(images), "fingerprint": data.fingerprint(images)}


def check_same_images(run: RunFolder, images: data.ImageSet) -> None:
    """Refuse to continue a run on other images.

    Raises:
        DataChangedError: they are others than those of its start.
    """
    # Runs from before this was recorded cannot be compared.
    now = known_by(images)
    before = run.read_config().get("images", now)
    if before != now:
        raise DataChangedError(
            f"the images are not those that {run.path} was begun with: {before['count']:,} then, "
            f"{now['count']:,} now, or with other content; restore them, or start a new run"
        )


def joint_picture(vae: VAE, test: data.ImageSet, seed: int) -> Tensor:
    """Reconstructions of the first images, a blank row, samples: uint8 [C, height, width]."""
    decoded = reconstruct(given_labels_of(vae, test), test.images[:PREVIEW])
    return sheets.joint_grid(decoded, generate(vae, PREVIEW, seed=seed))


def draw_pictures(
    run: RunFolder, vae: VAE, train: data.ImageSet, test: data.ImageSet, seed: int
) -> None:
    """Draw the pictures of a finished run: reconstructions, samples, both, and the loss curve."""
    for split, source in (("train", train), ("test", test)):
        some = source.images[: PREVIEW // 2]
        sheet = sheets.paired_grid(some, reconstruct(given_labels_of(vae, source), some))
        sheets.save_png(run.pictures / f"reconstructions-{split}.png", sheet)
    samples = sheets.grid(generate(vae, PREVIEW, seed=seed))
    sheets.save_png(run.pictures / "samples.png", samples)
    sheets.save_png(run.pictures / "joint.png", joint_picture(vae, test, seed))
    figures.save_figure(run.pictures / "loss.png", figures.training_curves(run.read_metrics()))


def write_report(run: RunFolder, vae: VAE, test: data.ImageSet, seed: int) -> None:
    """Write the page about a finished run, drawn and measured on some of its test images."""
    some = test.some(report.REPORT_IMAGES, seed)
    gallery = Gallery(
        given_labels_of(vae, some),
        some.images,
        some.labels,
        some.classes,
        rows=run.read_metrics(),
        walked=report.WALKED,
        seed=seed,
    )
    which = f"{len(some):,} of {len(test):,} test images of {test.name}, drawn by seed {seed}"
    report.write(
        run.report, report.Subject(run.path.name, load_metadata(run.path), which, run), gallery
    )
