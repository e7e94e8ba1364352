"""Work that keeps up with a pointer: only the newest request is done, on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

Later = Callable[[Callable[[], None]], Any]
"""Calls a function on the page's own thread, soon."""


class Newest:
    """Does requests one after the other; one that waits is dropped when a newer one comes.

    A pointer moves sixty times a second. Were every place decoded, a slow model would still be
    showing places that the pointer left seconds ago.

    Args:
        executor: Where the work is done.
        later: Brings the result back to the page's thread.
    """

    def __init__(self, executor: Executor, later: Later) -> None:
        self._executor = executor
        self._later = later
        self._busy = False
        self._waiting: tuple[Callable[[], Any], Callable[[Any], None]] | None = None

    def ask(self, work: Callable[[], Any], show: Callable[[Any], None]) -> None:
        """Have `work` done and its result shown, if nothing newer comes before its turn."""
        self._waiting = (work, show)
        if not self._busy:
            self._start()

    def _start(self) -> None:
        assert self._waiting is not None
        work, show = self._waiting
        self._waiting, self._busy = None, True
        future = self._executor.submit(work)
        future.add_done_callback(lambda done: self._later(partial(self._finish, done, show)))

    def _finish(self, done: Future[Any], show: Callable[[Any], None]) -> None:
        self._busy = False
        if self._waiting is not None:
            self._start()
        # After the next one has started: an error here must not stop it.
        show(done.result())
