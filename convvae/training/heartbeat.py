"""Whether the other processes are still there: a sign of life every few seconds.

A process that is killed closes its connections, and the others are told at once. One that is cut
off, or stands still, is not missed by anything: they would wait for it at their next exchange. So a
thread of each process writes a number that grows into the store at which they met; the first one
reads those of all others, and these read that of the first. Whoever hears nothing for too long says
so and ends its process, whose main thread cannot be reached while it waits.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from convvae.errors import RanksError

BEAT = 5.0
"""Seconds between two signs of life."""
SILENCE = 40.0
"""Seconds after which a process counts as lost."""
_DONE = "done"
"""The last sign of a process that needs the others no more."""


@contextmanager
def heartbeat(rank: int, count: int) -> Iterator[None]:
    """Give and watch signs of life inside the block; the processes have met by then.

    Args:
        rank: Place of this process.
        count: Number of processes.

    Raises:
        RuntimeError: the place where they met cannot be reached.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=SILENCE / 2))
    store.set(_key(rank), "0")
    dist.barrier()  # now every process has given its first
    signs = _Signs(store, rank, range(1, count) if rank == 0 else range(1))
    for work in (signs.talk, signs.watch):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield
    finally:
        signs.end()


class _Signs:
    """What is said and heard.

    Args:
        store: Where.
        rank: Place of this process.
        others: Those that are listened to.
    """

    def __init__(self, store: TCPStore, rank: int, others: range) -> None:
        self.store, self.rank = store, rank
        self.heard: dict[int, tuple[str, float]] = {
            other: ("", time.monotonic()) for other in others
        }
        self.ended, self.speaking = threading.Event(), threading.Lock()

    def talk(self) -> None:
        """Give signs and take note of those of the others, until it is ended.

        A store that is cut off may keep this waiting for ever.
        """
        number = 0
        while not self.ended.wait(BEAT):
            number += 1
            with suppress(RuntimeError):
                with self.speaking:
                    if not self.ended.is_set():
                        self.store.set(_key(self.rank), str(number))
                for other, (before, _) in self.heard.items():
                    found = self.store.get(_key(other)).decode()
                    if found != before:
                        self.heard[other] = found, time.monotonic()

    def watch(self) -> None:
        """End the process if one of the others is silent, until it is ended."""
        while not self.ended.wait(BEAT):
            for other, (found, when) in self.heard.copy().items():
                if found != _DONE and time.monotonic() - when > SILENCE:
                    _give_up(other)

    def end(self) -> None:
        """Say that nobody needs to listen any more."""
        self.ended.set()
        # So that this is the last; where the others cannot be told, they are gone.
        if self.speaking.acquire(timeout=BEAT):
            with suppress(RuntimeError):
                self.store.set(_key(self.rank), _DONE)


def _give_up(other: int) -> None:
    print(
        f"convvae: nothing has been heard of process {other} for {SILENCE:g} seconds: it stands "
        "still or is cut off; start all of them again, to resume where the last save was",
        file=sys.stderr,
        flush=True,
    )
    os._exit(RanksError.exit_code)


def _key(rank: int) -> str:
    return f"convvae sign of life {rank}"
