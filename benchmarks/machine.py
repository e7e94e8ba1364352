"""What a measurement ran on, and how fast that machine can multiply."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.workers.common import available_cores

if TYPE_CHECKING:
    import torch

FLAGS = (
    *("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve"),
)
"""Instruction sets that matter to a matrix product, as Linux names them."""
QUIET_LOAD = 0.5
"""A load average above which other programs disturb a measurement."""


def facts() -> dict[str, Any]:
    """Processor, cores, instruction sets, memory, system, Python, and how busy the machine is."""
    return {
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "flags": _cpu_flags(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": _system(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def describe(machine: dict[str, Any]) -> str:
    """The facts of a machine in one line."""
    flags = ", ".join(machine["flags"]) or "no vector instructions known"
    return (
        f"{machine['cpu']}, {machine['cores']} cores ({flags}), {machine['memory_gib']} GiB, "
        f"{machine['os']}, Python {machine['python']}, load {machine['load_average']} at the start"
    )


def matmul_ceiling(dtype: torch.dtype, size: int = 2048, repeats: int = 10) -> float:
    """The speed of a large matrix product in PyTorch, in GFLOP/s (a multiply-add counts as two).

    Args:
        dtype: Number format of both factors, such as `torch.float32` or `torch.bfloat16`.
        size: Rows and columns of the factors.
        repeats: Products timed one by one, after one that is not; the fastest counts.
    """
    import torch

    a, b = torch.randn(2, size, size).to(dtype)
    torch.mm(a, b)
    best = min(_seconds(lambda: torch.mm(a, b)) for _ in range(repeats))
    return 2 * size**3 / best / 1e9


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _cpuinfo(key: str) -> str:
    """The first value of a key of Linux's /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _system() -> str:
    """The system and its version, such as `Linux 6.12.3, glibc 2.36`, without the build's name."""
    words = f"{platform.system()} {platform.release().partition('-')[0]}"
    library = " ".join(platform.libc_ver()).strip()
    return f"{words}, {library}" if library else words


def _cpu_name() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    present = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [flag for flag in FLAGS if flag in present]
