"""convvae: its own command line, on the recipe of this model.

    python -m benchmarks.workers.convvae --images 1280

Two epochs over the same images, in the precision that convvae chooses for this processor (the
result names it); the first is the warm-up, and the second gives the speed that convvae records
itself: order, gathering, noise, step and progress display, from the first batch to the last.
Reading and resizing the images are timed apart, as the setup, by the functions that the command
calls. Validation and saving after an epoch, which no other peer does, are not timed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.workers import common
from benchmarks.workers.common import Job
from convvae import data, load_model

RECIPE = "mlx-cvae"
PROGRAM = str(Path(sys.executable).with_name("convvae"))


def time_setup(job: Job) -> float:
    """Seconds to read the training images and resize them, once."""
    began = time.perf_counter()
    images = data.load("mnist", "train", data_dir=job.data_dir, limit=job.images).images
    data.resize(images, (common.SIDE, common.SIDE))
    return time.perf_counter() - began


def train(job: Job, run: Path) -> list[dict[str, Any]]:
    """Train by the command line; the rows of `metrics.jsonl`.

    Raises:
        RuntimeError: the command failed.
    """
    command = [PROGRAM, "train", "mnist", "--cpu"]
    command += ["--recipe", RECIPE, "--data-dir", str(job.data_dir), "--out", str(run)]
    command += ["--limit", str(job.images), "--batch-size", str(job.batch_size)]
    command += ["--epochs", "2", "--no-preview", "--precision", "auto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"convvae train failed: {done.stderr.strip()}")
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    """Measure."""
    job = common.parse()
    setup_seconds = time_setup(job)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        last = [row for row in train(job, run) if row["event"] == "epoch"][-1]
        vae, _ = load_model(run)
        settings = json.loads((run / "config.json").read_text())["settings"]
    common.report(
        "convvae",
        job,
        seconds=last["seconds"],
        setup_seconds=setup_seconds,
        parameters=vae.num_parameters(),
        loss=last["train_squared_error_and_kl"] / job.batch_size,
        packages=["convvae", "torch", "numpy"],
        precision=settings["precision"],
        peak_rss_mib=common.peak_rss(resource.RUSAGE_CHILDREN),
    )


if __name__ == "__main__":
    main()
