"""What one process of several does: the jobs of `together`, a function each."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sklearn.datasets  # noqa: F401 - the digits, which every job reads
import torch
import torch._dynamo  # which an optimiser imports, as it is made

from convvae import data, runtime
from convvae.cli.main import main
from convvae.config import ModelConfig, TrainConfig
from convvae.data.pixels import to_unit
from convvae.evaluation import doctor, encode  # noqa: F401 - of every training
from convvae.training import distributed, heartbeat
from convvae.training import run as _run  # noqa: F401
from convvae.training.cuda_graph import PlainStep, Step
from convvae.training.distributed import SharedStep
from convvae.training.learner import Learner
from convvae.training.schedules import StepSettings

FATES = {
    "killed": signal.SIGKILL,
    "told to stop": signal.SIGTERM,
    "stands still": signal.SIGSTOP,
}
NETWORKS = ("upsample", "ladder")


def command(*words: str) -> int:
    """A command, in batches of 16 images, without pictures; one that says who disagrees, does."""
    encode.BATCH = 16
    with patch("convvae.training.run.draw_pictures", lambda *_: None):
        return main(list(words))


def train(record: str, fate: str, at: str, *words: str) -> int:
    """A training that notes the images of its steps, by a checksum of each.

    Args:
        record: File of the notes, with the rank after it.
        fate: What befalls the second process, of `FATES`, or nothing. Where it stands still, the
            others do not wait long.
        at: Before which of its steps.
        words: The command line.
    """
    seen: list[list[int]] = []
    rank = int(os.environ["RANK"])
    if fate == "stands still":
        heartbeat.BEAT, heartbeat.SILENCE = 0.2, 2.0

    def noting(take: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def noted(step: Step, pixels: torch.Tensor, *rest: Any) -> torch.Tensor:
            if rank == 1 and len(seen) == int(at):
                number = FATES[fate]
                os.kill(os.getpid(), number)
            seen.append([zlib.crc32(image.numpy().tobytes()) for image in pixels])
            return take(step, pixels, *rest)

        return noted

    with ExitStack() as around:
        for kind in (PlainStep, SharedStep):
            around.enter_context(patch.object(kind, "__call__", noting(kind.__call__)))
        code = command("train", *words)
    Path(f"{record}-{rank}").write_text(json.dumps(seen))
    return code


def killed_as_it_draws(*words: str) -> int:
    """A training whose first process is killed after its last epoch."""
    with patch("convvae.training.run.draw_pictures", lambda *_: os.kill(os.getpid(), 9)):
        return main(["train", *words])


def another_version(*words: str) -> int:
    """A command in processes of two versions of torch."""
    mine = {**runtime.versions(), "torch": f"2.{os.environ['RANK']}"}
    with patch("convvae.runtime.versions", lambda: mine):
        return command(*words)


def another_rate(*words: str) -> int:
    """A training whose learning rate is another in each process."""
    return command(*words, "--lr", str(0.1 * (1 + int(os.environ["RANK"]))))


def impatient(*words: str) -> int:
    """A command that waits for the others for two seconds."""
    distributed.MEETING = timedelta(seconds=2)
    return command(*words)


def meet(late: str) -> None:
    """Processes that meet, the second so many seconds late."""
    if os.environ["RANK"] == "1":
        time.sleep(float(late))
    with distributed.joined("cpu") as ranks:
        assert ranks.all_of(ranks.rank) == list(range(ranks.count))


def gradients(out: str, count: str) -> None:
    """Gradients and statistics of two networks after a step on `count` images, in float64."""
    with distributed.joined("cpu") as ranks:
        found = {network: _of_network(network, int(count), ranks) for network in NETWORKS}
        if ranks.is_first:
            Path(out).write_text(json.dumps(found))


def _of_network(network: str, count: int, ranks: Any) -> dict[str, Any]:
    config = TrainConfig.model_validate(
        {"data": "digits", "batch_size": 12, "optimizer": "adam", "network": network}
    )
    latents = {} if network == "ladder" else {"latent_dims": 3}
    model = ModelConfig.model_validate(
        {"network": network, "channels": 1, "image_size": (8, 8), "max_filters": 8, **latents}
    )
    images = data.load("digits", "train", limit=count).images
    noise = torch.Generator().manual_seed(1)
    eps = torch.randn(1, count, model.latent_dims, dtype=torch.double, generator=noise)
    learner = Learner(config, model, torch.device("cpu"), count, ranks)
    learner.vae.double()
    distributed.step_of(learner, threading.Event(), threading.Event())
    learner.set_step(StepSettings(0.0, 1.0, 0), count)
    own = ranks.share(count)
    loss = learner.update(to_unit(images[own]).double(), eps[:, own], count)
    found: dict[str, Any] = {
        name: value.grad.tolist()
        for name, value in learner.vae.named_parameters()
        if value.grad is not None
    }
    found |= {name: value.tolist() for name, value in learner.vae.named_buffers()}
    return found | {"loss": float(loss)}
