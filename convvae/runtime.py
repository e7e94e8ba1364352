"""The machine: device, threads, and randomness derived from (seed, stream, position).

Randomness is never carried along. The order of epoch 7 or the noise of step 3,000 is a function of
the run's seed alone, so a resumed run draws what the uninterrupted one would have drawn. Draws are
made on the CPU: every device sees the same numbers.
"""

from __future__ import annotations

import platform
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from convvae.errors import DeviceError


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes the first that exists of cuda, mps, cpu.

    Raises:
        DeviceError: the device does not exist here.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, here in present.items() if here)
    if name not in present:
        raise DeviceError(f"device {name!r} is not known; choose auto, {', '.join(present)}")
    if not present[name]:
        here = ", ".join(device for device, is_here in present.items() if is_here)
        raise DeviceError(f"device {name!r} is not available to PyTorch here; choose from: {here}")
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """The device in words, such as `cpu, AMD EPYC, 2 threads`."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    if device.type == "mps":
        return f"mps, {platform.processor()}"
    return f"cpu, {_processor_name()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of what a run's result depends on."""
    packages = ("convvae", "torch", "numpy", "pillow", "safetensors", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def generator(seed: int, stream: str, position: int = 0) -> torch.Generator:
    """A CPU generator for place `position` of a named stream of the run's randomness.

    Streams keep the order of the images, the noise of training, the noise of evaluation and the
    initial weights independent of each other.
    """
    key = (zlib.crc32(stream.encode()), position)
    return torch.Generator().manual_seed(_mix(seed, *key))


def noise(
    shape: tuple[int, ...], seed: int, stream: str, position: int, device: torch.device
) -> Tensor:
    """Standard normal draws, a function of (seed, stream, position) alone; `shape`, float32."""
    draws = torch.randn(shape, generator=generator(seed, stream, position))
    return draws.to(device, non_blocking=True)


@contextmanager
def seeded(seed: int, stream: str) -> Iterator[None]:
    """Seed torch's global generator inside the block and put its state back after it."""
    with torch.random.fork_rng():
        torch.manual_seed(_mix(seed, zlib.crc32(stream.encode())))
        yield


def _mix(*words: int) -> int:
    """Fold integers into 63 well-mixed bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    mask = (1 << 64) - 1
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
