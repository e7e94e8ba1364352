"""A run for TensorBoard: numbers, pictures, and validation images among their latents.

    tensorboard --logdir runs

The step is the number of images seen, so that runs of different batch sizes lie side by side.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from convvae.data.pixels import to_unit
from convvae.errors import missing_extra
from convvae.evaluation.encode import generate, posterior_means
from convvae.evaluation.reconstruction import reconstruct
from convvae.images.sheets import grid, paired_grid
from convvae.model.conditions import CLASSIFIED, completed
from convvae.model.vae import VAE
from convvae.training.callbacks import Callback, Row, Run

CURVES = {
    "bound, nats per image": "bound",
    "KL, nats per image": "kl",
    "log p(x|z), nats per image": "log_px",
    "loss, nats per image": "loss",
    "squared error + KL per batch": "squared_error_and_kl",
}
"""Titles of the curves, and the ends of their names in `metrics.jsonl`."""
PAIRS_LOGGED, SAMPLES_LOGGED, POINTS_LOGGED = 64, 128, 1000
"""Reconstructions and samples in a picture; images in the projector."""


@final
class TensorBoard(Callback):
    """Writes a run for TensorBoard, into the run's folder `tensorboard`.

    Every recorded number as a curve; after every epoch validation images beside their
    reconstructions, and samples; at the end the codes of validation images for the
    projector, with the images and their labels. Where no images are held out for validation they
    are the test images, and called so. A resumed one goes on where the run does.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ModuleNotFoundError as error:
            raise missing_extra("`tensorboard=True`", "tensorboard") from error
        self._make_writer = SummaryWriter
        self._writer: SummaryWriter | None = None

    def start(self, run: Run) -> None:
        """Open the log, and write the settings."""
        self.run, seen = run, run.progress.images
        self._writer = self._make_writer(
            str(run.folder.path / "tensorboard"), purge_step=seen + 1 if seen else None
        )
        settings = run.config.model_dump(mode="json").items()
        table = "\n".join(f"| {name} | {value} |" for name, value in settings)
        self._writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{table}", seen)

    def batch(self, row: Row) -> None:
        """Add the loss of a single batch."""
        assert self._writer
        self._writer.add_scalar("loss, nats per image/single batches", row["loss"], row["images"])

    def epoch(self, row: Row, vae: VAE) -> None:
        """Add the numbers of an epoch, and its pictures."""
        assert self._writer
        seen = row["images"]
        for title, name in CURVES.items():
            for part, prefix in (("training", "train"), (self.run.validated_on, "val")):
                if row[f"{prefix}_{name}"] is not None:
                    self._writer.add_scalar(f"{title}/{part}", row[f"{prefix}_{name}"], seen)
        self._writer.add_scalar("speed/images per second", row["images_per_second"], seen)
        some = self.run.validation[:PAIRS_LOGGED]
        pairs = paired_grid(some, reconstruct(self._given(vae), some))
        sheets = {
            f"{self.run.validated_on} images, each with its reconstruction": pairs,
            "samples": grid(generate(vae, SAMPLES_LOGGED, seed=self.run.config.seed)),
        }
        for title, sheet in sheets.items():
            self._writer.add_image(title, _visible(sheet), seen)
        self._writer.flush()

    def finish(self) -> None:
        """Add validation images among their latents, for the projector."""
        assert self._writer
        images, labels = self.run.validation[:POINTS_LOGGED], self.run.labels
        self._writer.add_embedding(
            posterior_means(self._given(self.run.vae), images)[0],
            metadata=None if labels is None else labels[: len(images)].tolist(),
            label_img=_square(_visible(to_unit(images))),
            tag=f"posterior {self.run.vae.config.location} of {self.run.validated_on} images",
        )

    def _given(self, vae: VAE) -> VAE:
        """The model of the validation images; of an unconditional one, itself."""
        assert self.run
        if self.run.y is None:
            return vae
        return completed(vae, self.run.y, self.run.validation.split(CLASSIFIED))

    def close(self) -> None:
        """Close the log."""
        if self._writer:
            self._writer.close()


def _visible(images: Tensor) -> Tensor:
    """The channels that TensorBoard shows, [..., 1 or 3, H, W]: all but alpha."""
    channels = images.shape[-3]
    return images[..., : channels - (channels in (2, 4)), :, :]


def _square(images: Tensor) -> Tensor:
    """Images [N, C, H, W] padded below and at the right: the projector's sheet is square."""
    height, width = images.shape[-2:]
    side = max(height, width)
    return torch.nn.functional.pad(images, (0, side - width, 0, side - height))
