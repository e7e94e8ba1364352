"""Signals during a training: while it learns they end it after a step, afterwards at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from convvae.errors import StoppedError

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that ask a process to end: Ctrl-C, a scheduler's or the system's, a closed terminal."""


class Ended(KeyboardInterrupt):
    """A signal that asks the process to end, Ctrl-C or another, raised where it is at work.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stop_flag() -> Iterator[threading.Event]:
    """An event that the first signal to end sets; a second one is as it was before."""
    event = threading.Event()

    def stop(_number: int, restore: Callable[[], None]) -> None:
        event.set()
        restore()

    with _handling(stop):
        yield event


@contextmanager
def at_once() -> Iterator[None]:
    """Let every signal to end raise `Ended`, so that what is half made is removed on the way."""

    def end(number: int, _restore: Callable[[], None]) -> None:
        raise Ended(number)

    with _handling(end):
        yield


@contextmanager
def stopping(undone: str) -> Iterator[None]:
    """The same, where what is left undone can be done later.

    Args:
        undone: What to say of it.

    Raises:
        StoppedError: a signal came.
    """
    try:
        with at_once():
            yield
    except KeyboardInterrupt:
        raise StoppedError(undone) from None


@contextmanager
def _handling(act: Callable[[int, Callable[[], None]], object]) -> Iterator[None]:
    """Have the signals to end call `act` with their number and what puts the handlers back.

    One that is ignored, as SIGHUP is under nohup, stays so, but for Ctrl-C. Only the main thread
    can do this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {kind: signal.getsignal(kind) for kind in ENDING}
    # A handler that was not set from Python cannot be put back from it.
    before = {kind: handler for kind, handler in found.items() if handler is not None}

    def restore() -> None:
        for kind, handler in before.items():
            signal.signal(kind, handler)

    def handle(number: int, _frame: FrameType | None) -> None:
        act(number, restore)

    for kind, handler in before.items():
        if kind == signal.SIGINT or handler is not signal.SIG_IGN:
            signal.signal(kind, handle)
    try:
        yield
    finally:
        restore()
