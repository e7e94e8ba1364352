"""The oracle of a resumed run: past the point of interruption it does what it did before.

A run of three epochs is recorded step by step: which images, which noise, which settings, which
loss; and its weights and moments at the end. It is stopped at a point, its state restored in a
fresh learner, and recorded again: every step after the point must be the same, to the bit.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.faults import Outcome, Size

RECIPES: dict[str, dict[str, Any]] = {
    "adamw, one-cycle, moved images": {"schedule": "one-cycle", "augment": "flip-shift"},
    "bfloat16, averaged weights, cosine": {
        "precision": "bfloat16", "ema_images": 64, "schedule": "cosine",
    },
    "muon, images binarised every epoch": {"optimizer": "muon", "binarize": "dynamic"},
    "IWAE, three draws, adam without its correction": {
        "objective": "iwae", "mc_samples": 3, "optimizer": "adam", "bias_correction": False,
    },
    "a cyclical weight of the KL, clipped gradients": {
        "kl_schedule": "cyclical", "clip_norm": 1.0, "drop_last": True, "limit": 49,
    },
    "a ladder whose steps may be left out": {
        "network": "ladder", "depth": 1, "skip_norm": 1e4, "precision": "bfloat16",
    },
}  # fmt: skip
STEPS = 9
"""Of a run: three epochs of three batches."""


def run(size: Size) -> list[Outcome]:
    """A line per recipe, and a control."""
    with tempfile.TemporaryDirectory(prefix="convvae-resume-") as name:
        return list(_outcomes(Path(name), size))


def _outcomes(home: Path, size: Size) -> Iterator[Outcome]:
    points = size.pick([4], [1, 3, 4, 6, 8])
    names = size.pick(list(RECIPES)[1:3], list(RECIPES))
    for number, name in enumerate(names):
        whole = _Recorded(home / f"{number}", RECIPES[name])
        wrong: list[str] = []
        for point in points:
            if found := _differs_after(point, whole, home / f"{number}-{point}"):
                wrong.append(f"stopped after step {point}: {found}")
        note = wrong[0] if wrong else "the same batches, noise, rates, losses, moments and weights"
        what = f"stopped in three epochs and restored: {name}"
        yield Outcome(what, len(points), len(points) - len(wrong), note)
    if names:
        found = _differs_after(4, whole, home / "control", order=False)
        seen = "another batch" in found
        what = "control: the order of the images is not restored"
        yield Outcome(what, 1, int(seen), "must differ, and does" if seen else f"unseen: {found}")


class _Recorded:
    """A run, what its steps were given and gave, and what it ended with.

    Args:
        folder: Where it is trained, or goes on.
        settings: Its recipe.
        stop: The step after which it is stopped; absent, it goes on to its end.
        order: Whether it shows the images in its own order.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], stop: int | None = None, *, order: bool = True
    ) -> None:
        from rich.console import Console

        from convvae.config import TrainConfig
        from convvae.errors import StoppedError
        from convvae.training.callbacks import Callback
        from convvae.training.cuda_graph import PlainStep
        from convvae.training.loop import BatchPlan
        from convvae.training.run import train

        self.settings = settings
        self.steps: list[dict[str, Any]] = []
        plain = {"precision": "float32", "image_size": (16, 16)}
        given = plain if settings.get("network") == "ladder" else {"precision": "float32"}
        config = TrainConfig.model_validate(
            {
                **given, "limit": 47, **settings, "data": "digits", "batch_size": 16, "epochs": 3,
                "max_filters": 8, "latent_dims": 8 if "network" in settings else 2,
                "device": "cpu", "validation": 0, "preview": False, "report": False, "out": folder,
            }
        )  # fmt: skip
        take, batches = PlainStep.__call__, BatchPlan.batches

        def noted(step: PlainStep, pixels: Any, draws: Any, now: Any) -> Any:
            loss = take(step, pixels, draws, now)
            self.steps.append(
                {
                    "batch": zlib.crc32(pixels.numpy().tobytes()),
                    "noise": zlib.crc32(draws.eps.numpy().tobytes()),
                    "moves": None if draws.moves is None else draws.moves.tolist(),
                    "levels": None if draws.levels is None else draws.levels.sum().item(),
                    "settings": tuple(now),
                    "loss": float(loss),
                }
            )
            return loss

        class Stop(Callback):
            def start(self, run: Any) -> None:
                self.stop = run.stop

            def step(self, progress: Any, means: Any) -> None:
                if 3 * progress.epoch + progress.batch == stop:
                    self.stop.set()

        with ExitStack() as around:
            around.enter_context(patch.object(PlainStep, "__call__", noted))
            around.enter_context(patch("convvae.training.run.draw_pictures", lambda *_: None))
            if not order:
                other = lambda plan, epoch: batches(plan, epoch + 100)  # noqa: E731
                around.enter_context(patch.object(BatchPlan, "batches", other))
            began = folder if (folder / "config.json").exists() else None
            try:
                self.run = train(config, Console(quiet=True), began, [Stop()])
            except StoppedError:
                assert stop is not None

    def tensors(self) -> dict[str, Any]:
        """Weights, averages, moments and sums at the end."""
        from convvae.model.checkpoint import load_tensors

        return load_tensors(self.run.resume)[0]


def _differs_after(point: int, whole: _Recorded, folder: Path, *, order: bool = True) -> str:
    """How a run that is stopped after a step and restored differs; nothing, where it is ""."""
    import torch

    _Recorded(folder, whole.settings, point)
    again = _Recorded(folder, whole.settings, order=order)
    if len(again.steps) != STEPS - point or len(whole.steps) != STEPS:
        return f"{len(again.steps)} steps after {point} of {len(whole.steps)}"
    for number, (was, now) in enumerate(zip(whole.steps[point:], again.steps, strict=True), point):
        for what, value in was.items():
            if now[what] != value:
                return f"another {what} at step {number + 1}: {now[what]}, not {value}"
    first, second = whole.tensors(), again.tensors()
    for name, value in first.items():
        if not torch.equal(value, second[name]):
            return f"another {name} at the end"
    return ""
