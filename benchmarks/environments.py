"""A virtual environment for each peer, with the versions pinned beside its worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
ENVIRONMENTS = FOLDER / ".envs"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class PeerError(Exception):
    """A peer that cannot be installed or run; the message is the reason, one line."""


def interpreter(worker: str) -> Path:
    """The Python of a worker's environment, which is made unless it has these requirements already.

    Raises:
        PeerError: the environment cannot be made.
    """
    requirements = FOLDER / "workers" / f"{worker}.txt"
    folder = ENVIRONMENTS / worker
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if done.exists() and done.read_text() == requirements.read_text():
        return python
    run([sys.executable, "-m", "venv", "--clear", str(folder)])
    run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)])
    done.write_text(requirements.read_text())
    return python


def run(
    command: Sequence[str], settings: Mapping[str, str] | None = None, timeout: float = 1800
) -> str:
    """Run a command from the repository root and return what it printed.

    Args:
        command: Program and arguments.
        settings: Environment variables to add.
        timeout: Seconds to wait.

    Raises:
        PeerError: it cannot start, fails, or takes too long.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=FOLDER.parent,
            env={**os.environ, **(settings or {})},
            timeout=timeout,
        )
    except OSError as error:
        raise PeerError(f"cannot start: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"not done after {timeout:.0f} s") from error
    if done.returncode:
        raise PeerError(reason(done.stderr) or f"ended with code {done.returncode}")
    return done.stdout


def thread_settings(threads: int) -> dict[str, str]:
    """Environment variables that have a program compute with so many threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def reason(stderr: str) -> str:
    """The line of an error output that says why: pip's last ERROR, else the last line of all."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [""])[-1].replace(str(FOLDER.parent), ".")
