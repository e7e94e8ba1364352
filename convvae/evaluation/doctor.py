"""What is wrong with a model or its training, and what to do about it.

Advice for a finished model is held back from one whose training has only started: see `is_early`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from convvae.config import Architecture, TrainConfig
from convvae.data.pixels import is_binary
from convvae.distributions import DiagonalGaussian, FlowPosterior, FullGaussian, Posterior
from convvae.evaluation.encode import batch_size, map_posteriors, posterior_means
from convvae.evaluation.groups import kl_per_group
from convvae.model.checkpoint import ModelMetadata
from convvae.model.vae import LOGVAR_RANGE, VAE
from convvae.parts import LIKELIHOOD_NAMES, OF_BINARY_IMAGES

SOME = 1000
"""Images looked at, the first of the set."""
DEAD = 0.01
"""Nats of mean KL under which a latent tells nothing; without a KL, variance of its mean."""
CLAMPED = 0.001
"""Share of log-variances at an end of their range that is worth a word."""
DIM = 0.25
"""Intensity that the brightest pixel of proper images passes."""
MANY_COLOURS = 0.3
"""Different colours per pixel of an image that a drawing does not have."""
PHOTOGRAPHS = 50
"""Images whose colours are counted, the first of the set."""
SPIKE_WINDOW = 25
"""Logged losses on either side that a spike is held against."""
SPIKE = 10.0
"""Median absolute deviations from its neighbours that make a loss a spike."""
EARLY_EPOCHS, EARLY_IMAGES = 5, 1_000_000
"""A training has only started before that many epochs and before that many images seen."""
WORSE = 0.005
"""Part of the bound that validation may lose against its best before it counts as overfitting."""


class Remark(NamedTuple):
    """A finding with its cure, a clause each; they name settings, such as `beta`."""

    finding: str
    cure: str

    def __str__(self) -> str:
        """One line."""
        return f"warning: {self.finding}; {self.cure}"


def of_images(images: Tensor, model: Architecture) -> list[Remark]:
    """Whether pixels fit a likelihood, and photographs a network.

    Args:
        images: uint8, shape [N, C, H, W]; the first `SOME` are looked at.
        model: Its settings.
    """
    some, likelihood = images[:SOME], model.likelihood
    low, high = int(some.min()), int(some.max())
    if low == high:
        return [Remark("every pixel has the same value", "look at the images")]
    said: list[Remark] = []
    if high < 255 * DIM:
        said.append(
            Remark(
                f"the brightest pixel is {high} of 255",
                "if the images were scaled twice or hold class numbers, scale them to 0..255",
            )
        )
    binary = is_binary(some)
    if likelihood in OF_BINARY_IMAGES and not binary:
        said.append(
            Remark(
                "the pixels are grey, so that the Bernoulli bound is a cross-entropy and not "
                "log p(x)",
                "binarise them (`binarize='dynamic'` in training, once in evaluation) to compare "
                "it with published figures, or use `likelihood='continuous-bernoulli'`",
            )
        )
    if model.network != "ladder" and are_photographs(some[:PHOTOGRAPHS]):
        said.append(
            Remark(
                f"these look like photographs, and network {model.network} passes them through "
                "one vector of latents, which leaves fog of them",
                "use `recipe='photos'`, a ladder of latent maps",
            )
        )
    takes_grey = likelihood in LIKELIHOOD_NAMES.built_in and likelihood not in OF_BINARY_IMAGES
    if takes_grey and binary:
        said.append(
            Remark(
                f"the pixels are black or white, which {likelihood} takes for grey",
                "use `likelihood='bernoulli'`",
            )
        )
    return said


def are_photographs(images: Tensor) -> bool:
    """Whether most images are of many colours, as photographs are and drawings are not.

    Args:
        images: uint8, shape [N, C, H, W].
    """
    if images.shape[1] < 3:
        return False
    rich = [
        len(image.flatten(1).unique(dim=1).T) > MANY_COLOURS * image[0].numel() for image in images
    ]
    return sum(rich) > len(rich) / 2


def is_early(metadata: ModelMetadata) -> bool:
    """Whether a model's training has only started, so that its latents may yet come to use.

    It has when the run that it comes from had fewer than `EARLY_EPOCHS` epochs and showed it
    fewer than `EARLY_IMAGES` images. Weights of another tool count as finished.
    """
    epochs = metadata.run_epochs or metadata.epochs
    return metadata.source is None and epochs < EARLY_EPOCHS and metadata.images < EARLY_IMAGES


def of_model(vae: VAE, images: Tensor, metadata: ModelMetadata) -> list[Remark]:
    """Whether the latents of a model are used, and its log-variances inside their range.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W], not seen in training; the first `SOME` are looked at.
        metadata: What its file says of it: how far its training went.
    """
    some = images[:SOME]
    if len(some) < 2:
        return []
    if vae.config.plan:
        return _of_ladder(vae, some, metadata)
    mu, kl = posterior_means(vae, some)
    used = (mu.var(0) if kl is None else kl) > DEAD
    dead, dims = int((~used).sum()), len(used)
    cure = "`kl_schedule='linear'`, `free_bits=0.1` or `beta` below 1 keep latents alive"
    said: list[Remark] = []
    if dead and is_early(metadata):
        epochs = "1 epoch" if metadata.epochs == 1 else f"{metadata.epochs} epochs"
        said.append(
            Remark(
                f"so far, after {epochs}, {dead} of {dims} latents tell nothing of the image",
                f"train on before you judge them: for {EARLY_EPOCHS} epochs at least",
            )
        )
    elif dead == dims:
        said.append(Remark("posterior collapse: no latent tells anything of the image", cure))
    elif dead:
        few = f"{dead} of {dims} latents tell nothing of the image"
        said.append(Remark(few, f"{cure}, or use `latent_dims={dims - dead}`"))
    share = clamped(vae, some)
    if share > CLAMPED:
        said.append(
            Remark(
                f"{share:.1%} of the log-variances are at an end of their range, {LOGVAR_RANGE}",
                "a lower `lr`, `clip_norm=1` or a larger `variance` bring them back",
            )
        )
    return said


def _of_ladder(vae: VAE, images: Tensor, metadata: ModelMetadata) -> list[Remark]:
    """Whether the groups of a ladder are used."""
    kl = {name: float(nats.mean()) for name, nats in kl_per_group(vae, images, seed=0).items()}
    dead = [name for name, nats in kl.items() if nats < DEAD]
    if not dead:
        return []
    which = f"{len(dead)} of {len(kl)} groups of latents tell nothing of the image"
    named = f"{which} ({', '.join(dead[:5])}{', ...' if len(dead) > 5 else ''})"
    if is_early(metadata):
        return [Remark(f"so far, {named}", "train on before you judge them")]
    return [Remark(named, "`kl_schedule='linear'` or `free_bits=0.1` keep groups alive")]


def clamped(vae: VAE, images: Tensor) -> float:
    """The share of the posteriors' log-variances that is at an end of `LOGVAR_RANGE`."""
    low, high = LOGVAR_RANGE

    def count(q: Posterior) -> int:
        gaussian = q.base if isinstance(q, FlowPosterior) else q
        assert isinstance(gaussian, DiagonalGaussian | FullGaussian)
        return int(((gaussian.logvar <= low) | (gaussian.logvar >= high)).sum())

    found = sum(map_posteriors(vae, images.split(batch_size(vae)), count))
    return found / (len(images) * vae.config.latent_dims)


def of_run(config: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Whether a training went well.

    Args:
        config: The run.
        rows: The lines of `metrics.jsonl`.
    """
    epochs = [row for row in rows if row["event"] == "epoch"]
    logs = [row for row in rows if row["event"] == "log"]
    return [*_weights(config), *_overfitting(epochs), *_spikes(logs), *_skipped(epochs)]


def _weights(config: TrainConfig) -> list[Remark]:
    """Whether a part of the bound is weighted away."""
    if config.objective != "elbo" or config.capacity is not None:
        return []
    if config.beta < 0.1 and not config.mmd:
        what = f"`beta={config.beta:g}` weighs the KL away: draws of the prior decode to noise"
        return [Remark(what, "raise `beta` towards 1, or sample from a fitted `sampler`")]
    if config.beta > 10:
        what = f"`beta={config.beta:g}` weighs the reconstruction away"
        return [Remark(what, "lower `beta` if the reconstructions are all alike")]
    return []


def _overfitting(epochs: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Whether the bound of images not trained on fell while the training bound rose."""
    if len(epochs) < 2:
        return []
    best = max(epochs, key=lambda row: row["val_bound"])
    last = epochs[-1]
    lost = best["val_bound"] - last["val_bound"]
    if lost <= WORSE * abs(best["val_bound"]) or last["train_bound"] <= best["train_bound"]:
        return []
    # Rows of before the images were recorded are of the test images.
    of = last.get("validated_on", "test")
    keep = "`validation=0.1` keeps the best weights; " if of == "test" else "the best are kept; "
    return [
        Remark(
            f"overfitting: the {of} bound was best after epoch {best['epoch']} and had lost "
            f"{lost:.2f} nats by the last, while the training bound rose",
            f"{keep}more images, `augment='flip-shift'` or fewer `max_filters` delay it",
        )
    ]


def _skipped(epochs: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Whether steps were left out for their gradient."""
    count = sum(row.get("skipped_steps", 0) for row in epochs)
    if not count:
        return []
    what = "1 step was" if count == 1 else f"{count:,} steps were"
    return [
        Remark(
            f"{what} left out, the gradient beyond `skip_norm`",
            "a few early ones are harmless; else raise it, or lower `lr`",
        )
    ]


def _spikes(logs: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Whether the loss of a batch stood far above that of its neighbours."""
    losses = [row["loss"] for row in logs]
    found: list[Mapping[str, Any]] = []
    for place in range(SPIKE_WINDOW, len(losses)):
        near = losses[place - SPIKE_WINDOW : place] + losses[place + 1 : place + 1 + SPIKE_WINDOW]
        middle = statistics.median(near)
        spread = statistics.median(abs(loss - middle) for loss in near)
        if losses[place] - middle > SPIKE * max(spread, 1e-6 * abs(middle)):
            found.append(logs[place])
    if not found:
        return []
    worst = max(found, key=lambda row: row["loss"])
    return [
        Remark(
            f"the loss of {len(found)} of {len(losses)} logged batches stood out, the worst "
            f"{worst['loss']:.4g} after {worst['images']:,} images",
            "`clip_norm=1` or a lower `lr` smooth it",
        )
    ]
