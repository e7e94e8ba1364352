"""What the workers share: the job, the images, the report. Needs numpy and Pillow only."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
"""Height and width of the images that the model sees."""
FILTERS = (16, 32, 64)
"""Filters of the three convolutions."""
LATENTS = 8
PARAMETERS = 149_265
"""Trainable parameters of the model; a worker that counts others stops."""
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.01
WARM_UP = 2
"""Steps taken before the clock starts."""
PLACES = ("MNIST/raw", "mnist", "raw", ".")
"""Where the training images may lie in the data folder."""


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do."""

    data_dir: Path
    images: int
    """Images to time; a whole number of batches."""
    batch_size: int
    threads: int
    """Threads to compute with, on as many cores."""
    workers: int
    """Processes that load data, where the peer can use any."""
    began: float
    """When the worker began to set up, by `time.perf_counter`."""

    @property
    def steps(self) -> int:
        """Timed steps."""
        return self.images // self.batch_size

    def setup_seconds(self) -> float:
        """Time since the worker began."""
        return time.perf_counter() - self.began


def parse(arguments: Sequence[str] | None = None) -> Job:
    """Read the command line of a worker, and stay on as many cores as it says."""
    parser = argparse.ArgumentParser(description="Train the model; print one line of JSON.")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("CONVVAE_DATA"))
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.data_dir is None:
        parser.error("name the folder with MNIST: --data-dir, or CONVVAE_DATA")
    if given.images < given.batch_size:
        parser.error(f"--images {given.images} is less than a batch of {given.batch_size}")
    images = given.images // given.batch_size * given.batch_size
    use_cores(given.threads)
    return Job(
        given.data_dir,
        images,
        given.batch_size,
        given.threads,
        given.workers,
        time.perf_counter(),
    )


def available_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_cores(count: int) -> None:
    """Stay on the first `count` of the available cores, where the system can say so."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, plain or gzip-compressed, shape as its header says.

    Raises:
        ValueError: the file is not a whole idx file of bytes.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int(side) for side in np.frombuffer(content[4:start], ">u4"))
    if len(content) - start != int(np.prod(shape)):
        raise ValueError(f"{path} is not whole: its header says {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_images(data_dir: Path, count: int) -> np.ndarray:
    """The first `count` training images of MNIST, uint8 [count, 28, 28].

    Raises:
        FileNotFoundError: the folder does not hold them.
        ValueError: there are fewer.
    """
    for place in PLACES:
        for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
            path = data_dir / place / name
            if path.is_file():
                images = read_idx(path)
                if len(images) < count:
                    raise ValueError(f"{count} images asked for; {path} has {len(images)}")
                return images[:count]
    raise FileNotFoundError(f"no train-images-idx3-ubyte in {data_dir}")


def resize(image: np.ndarray) -> np.ndarray:
    """Resize one image, uint8 [h, w], by Pillow's bilinear filter: uint8 [SIDE, SIDE]."""
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def resized_images(job: Job) -> np.ndarray:
    """As many images as the job sees, warm-up included: uint8 [N, SIDE, SIDE]."""
    images = read_images(job.data_dir, job.images + WARM_UP * job.batch_size)
    return np.stack([resize(image) for image in images])


def batches(job: Job, count: int) -> Iterator[np.ndarray]:
    """Indices of one pass over `count` images in a random order, a batch at a time."""
    order = np.random.default_rng(0).permutation(count)
    for start in range(0, count, job.batch_size):
        yield order[start : start + job.batch_size]


def check_parameters(count: int) -> int:
    """Return the count of trainable parameters.

    Raises:
        ValueError: it is not that of the model.
    """
    if count != PARAMETERS:
        raise ValueError(f"the network has {count:,} trainable parameters, not {PARAMETERS:,}")
    return count


def report(
    peer: str,
    job: Job,
    *,
    seconds: float,
    setup_seconds: float,
    parameters: int,
    loss: float,
    packages: Sequence[str],
    precision: str = "float32",
    peak_rss_mib: float | None = None,
) -> None:
    """Print the result as one line of JSON.

    Args:
        peer: Who was measured.
        job: What was asked.
        seconds: Time of the timed steps.
        setup_seconds: Time to read and resize images beforehand, to build and to compile.
        parameters: Trainable parameters.
        loss: Squared error + KL per image, mean over the timed steps.
        packages: Installed packages whose versions matter.
        precision: Number format of the training step.
        peak_rss_mib: Largest resident memory; of this process if absent.
    """
    row = {
        "peer": peer,
        "images": job.images,
        "seconds": seconds,
        "images_per_second": job.images / seconds,
        "setup_seconds": setup_seconds,
        "parameters": check_parameters(parameters),
        "final_loss": loss,
        "precision": precision,
        "versions": {name: version(name) for name in packages},
        "threads": job.threads,
        "peak_rss_mib": peak_rss() if peak_rss_mib is None else peak_rss_mib,
    }
    print(json.dumps(row))


def peak_rss(who: int = resource.RUSAGE_SELF) -> float:
    """Largest resident memory of this process, or of its largest finished child, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit / 2**20
