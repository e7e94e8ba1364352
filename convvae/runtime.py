"""The machine: device, precision, memory, and randomness derived from (seed, stream, position).

Randomness is never carried along. The order of epoch 7 or the noise of step 3,000 is a function of
the run's seed alone, so a resumed run draws what the uninterrupted one would have drawn. Draws are
made on the CPU: every device sees the same numbers.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

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


def pick_precision(name: str, device: torch.device) -> str:
    """The precision called `name`, `float32` or `bfloat16`.

    `auto` takes bfloat16 where the processor multiplies it natively: a GPU that does, or a CPU with
    AMX or AVX-512 BF16. Elsewhere bfloat16 is emulated and slower than float32.

    Raises:
        DeviceError: the device cannot compute in that precision.
    """
    native = _has_bfloat16(device)
    if name == "bfloat16" and device.type == "cuda" and not native:
        raise DeviceError("this GPU does not compute in bfloat16; use `precision='float32'`")
    if name == "auto":
        return "bfloat16" if native else "float32"
    return name


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which the networks compute in that precision; weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next tensors instead of giving it back.

    Large tensors otherwise come fresh from the operating system at every step, page fault by page
    fault. It is a setting of glibc; elsewhere nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_threshold, never = -1, -3, 1 << 30
    mallopt(trim_threshold, never)
    mallopt(mmap_threshold, never)


def on_side_stream(work: Callable[[], None]) -> None:
    """Run work as it must be run before it is recorded: on a stream of its own, on a GPU."""
    if not torch.cuda.is_available():
        work()
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)


def free_memory(device: torch.device) -> float:
    """Bytes of a device that images may be copied to; of a CPU infinite: they are there already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return math.inf


class Upload:
    """Copies of batches to a device, beside what it computes.

    Args:
        device: Where to; on a CPU nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pinned = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.pinned else None

    def begin(self, batch: Tensor) -> Callable[[], Tensor]:
        """Have a batch in pinned memory copied.

        Returns:
            What gives the copy; the device waits for it there, and this process does not.
        """
        if self.stream is None:
            copied = batch.to(self.device)
            return lambda: copied
        # Pinned memory is given out again only once the copies from it are done.
        with torch.cuda.stream(self.stream):
            copied = batch.to(self.device, non_blocking=True)
            done = self.stream.record_event()

        def finish() -> Tensor:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(done)
            copied.record_stream(current)
            return copied

        return finish


def record_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record work on fixed tensors as a CUDA graph, undone; calling the result does it."""
    graph = torch.cuda.CUDAGraph()
    # Another thread may be copying the next batch meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


def compile_networks(*networks: nn.Module) -> None:
    """Have networks compiled by torch.compile, in place, when they first run.

    Raises:
        DeviceError: there is no C++ compiler.
    """
    compiler = cpp_compiler()
    if shutil.which(compiler) is None:
        raise DeviceError(
            f"`compile='on'` needs a C++ compiler and {compiler} is not there; install it, "
            "name yours in $CXX, or use `compile='off'`"
        )
    for network in networks:
        network.compile()


def cpp_compiler() -> str:
    """The C++ compiler that torch.compile calls."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


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
    initial weights independent of each other. Of the key torch's CPU generator, a Mersenne twister,
    takes the low 32 bits: two places draw the same numbers with probability 2^-32, and among 77,000
    places it is as likely as not that some two do.
    """
    key = (zlib.crc32(stream.encode()), position)
    return torch.Generator().manual_seed(_mix(seed, *key))


def noise(shape: tuple[int, ...], seed: int, stream: str, position: int) -> Tensor:
    """Standard normal draws, a function of (seed, stream, position) alone: float32, on the CPU."""
    return torch.randn(shape, generator=generator(seed, stream, position))


@contextmanager
def seeded(seed: int, stream: str) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and put its state back after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_mix(seed, zlib.crc32(stream.encode())))
        yield


def _mix(*words: int) -> int:
    """Fold integers into a well-mixed key of 63 bits, of which torch's CPU generator takes 32.

    By the finaliser of SplitMix64 (Steele et al. 2014).
    """
    mask = (1 << 64) - 1
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return False


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
