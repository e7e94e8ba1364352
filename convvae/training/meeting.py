"""Where processes meet: a store that all of them reach, and a part of it that is theirs alone.

torchrun keeps its store when it starts the processes again, and what those before them wrote with
it: addresses that nobody listens at any more, for which gloo then waits in vain. So the processes
agree on a name that nobody has used, and meet under it.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

_TRY = timedelta(seconds=5)
"""That the store is given to connect, again and again: it takes up to 2.5 times as long."""
_LOOK = 0.02
"""Seconds between two looks at who has come."""


def meeting_place(rank: int, count: int, patience: timedelta) -> Store:
    """A store without a key in it, for these processes.

    Each but the first says hello by a word of its own. The first answers every word with the name
    of the place until all have said that they are there; what a process of before has said is
    answered as well, and nobody hears it.

    Args:
        rank: Place of this process.
        count: Number of processes.
        patience: How long all of them are waited for.

    Raises:
        RuntimeError: they did not come, or the store cannot be reached.
    """
    deadline = time.monotonic() + patience.total_seconds()
    store = _store(rank == 0, count, deadline)
    store.set_timeout(patience)
    word = uuid.uuid4().hex
    if rank == 0:
        _welcome(store, word, range(1, count), deadline)
        return PrefixStore(word, store)
    store.set(f"hello/{rank}", word)
    name = store.get(f"welcome/{word}").decode()
    store.set(f"{name}/here/{rank}", "")
    return PrefixStore(name, store)


def _store(is_first: bool, count: int, deadline: float) -> TCPStore:
    """The store that torchrun keeps, or that of the first process, which may come later.

    Raises:
        RuntimeError: it cannot be reached.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_host = is_first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    while True:
        try:
            return TCPStore(
                host, port, count, is_host, _TRY, wait_for_workers=False, multi_tenant=True
            )
        except RuntimeError:
            if is_host or time.monotonic() > deadline:
                raise


def _welcome(store: TCPStore, name: str, others: range, deadline: float) -> None:
    """Tell the others the name of the place until all are there.

    Raises:
        RuntimeError: one did not come.
    """
    answered: dict[int, str] = {}
    while missing := [other for other in others if not store.check([f"{name}/here/{other}"])]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {missing[0]} did not come")
        for other in missing:
            if store.check([f"hello/{other}"]):
                word = store.get(f"hello/{other}").decode()
                if answered.get(other) != word:
                    answered[other] = word
                    store.set(f"welcome/{word}", name)
        time.sleep(_LOOK)
