"""Processes that work together, forked from one that has imported everything.

`Together` starts that one. It waits for jobs on its standard input: how many processes, which
function of `tests.faults.ranks_at_work`, and its words. Every process of a job finds in the
environment what torchrun would put there. A process that has threads cannot be forked safely: this
one computes nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple, Self

WORK = "tests.faults.ranks_at_work"
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Ended(NamedTuple):
    """How the processes of a job ended, in the order of their ranks."""

    codes: list[int | None]
    """Exit codes, negative of a signal; None of one that was still at work at the limit."""
    out: list[str]
    err: list[str]

    @property
    def lines(self) -> list[str]:
        """What convvae said was wrong, in all processes together."""
        said = "".join(self.err).splitlines()
        return [line for line in said if line.startswith("convvae: ")]


class Together:
    """Starts processes that meet on this machine."""

    def __enter__(self) -> Self:
        self.server = subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            env={**os.environ, **ALONE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.server.communicate()

    def run(self, count: int, job: str, *words: object, limit: float = 60, **more: str) -> Ended:
        """Have so many processes do a job.

        Args:
            count: How many are started.
            job: Name of the function.
            words: What it is called with.
            limit: Seconds after which they are killed.
            more: Environment variables, such as another WORLD_SIZE.
        """
        asked = {"count": count, "job": job, "words": [str(word) for word in words]}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps({**asked, "limit": limit, "more": more}) + "\n")
        self.server.stdin.flush()
        return Ended(**json.loads(self.server.stdout.readline()))


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def do(asked: dict[str, Any]) -> Ended:
    """Fork the processes of a job and wait for their end."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    meet["WORLD_SIZE"] = str(asked["count"])
    with tempfile.TemporaryDirectory(prefix="convvae-together-") as name:
        said = [[Path(name, f"{rank}-{n}") for n in "12"] for rank in range(asked["count"])]
        ids = [
            _fork(
                {**meet, "RANK": str(rank), "LOCAL_RANK": str(rank), **asked["more"]}, asked, files
            )
            for rank, files in enumerate(said)
        ]
        codes = _wait(ids, asked["limit"])
        out, err = ([files[n].read_text() for files in said] for n in (0, 1))
    return Ended(codes, out, err)


def _fork(settings: dict[str, str], asked: dict[str, Any], files: list[Path]) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.environ.update(settings)
        for number, path in enumerate(files, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
        work = getattr(importlib.import_module(WORK), asked["job"])
        code = work(*asked["words"]) or 0
    except BaseException:  # noqa: BLE001 - a fork must not go on as what it was forked from
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(ids: list[int], limit: float) -> list[int | None]:
    codes: dict[int, int | None] = dict.fromkeys(ids)
    end = time.monotonic() + limit
    while None in codes.values() and time.monotonic() < end:
        for child in (one for one, code in codes.items() if code is None):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for child in (one for one, code in codes.items() if code is None):
        os.kill(child, 9)
        os.waitpid(child, 0)
    return list(codes.values())


if __name__ == "__main__":
    importlib.import_module(WORK)
    for line in sys.stdin:
        print(json.dumps(do(json.loads(line))._asdict()), flush=True)
