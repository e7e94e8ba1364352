"""The processes of a training, as one of them sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from convvae.errors import ConfigError, ConvvaeError, RanksError, in_a_line

T = TypeVar("T")


class Ranks:
    """The processes of a training, as one of them sees them; of a single process, itself.

    Args:
        rank: Place of this process.
        count: Number of processes.
        place: Place of this process among those of its machine; else as among all.
        group: What they exchange by, of `torch.distributed`; None where there is one.
        patient: The same processes, which wait for each other longer; else these.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        place: int | None = None,
        group: dist.ProcessGroup | None = None,
        patient: Ranks | None = None,
    ) -> None:
        self.rank = rank
        self.count = count
        self.place = rank if place is None else place
        self.group = group
        self.patient = patient or self

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def is_first_here(self) -> bool:
        """Whether this is the process that prepares what those of its machine share."""
        return self.place == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    def share(self, size: int) -> slice:
        """The part of a batch of so many images that is this process's; the parts are equal.

        Where the size is no multiple of the processes, the first ones have an image more.

        Examples:
            >>> [Ranks(rank, 3).share(8) for rank in range(3)]
            [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        even, rest = divmod(size, self.count)
        start = self.rank * even + min(self.rank, rest)
        return slice(start, start + even + (self.rank < rest))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, written over the values.

        Raises:
            RanksError: another process is gone.
        """
        if not self.alone:
            with told():
                dist.all_reduce(values, group=self.group)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """The values of every process, in their order: shape [N] -> [count, N].

        Raises:
            RanksError: another process is gone.
        """
        if self.alone:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.count)]
        with told():
            dist.all_gather(found, values, group=self.group)
        return torch.stack(found)

    def all_of(self, value: T) -> list[T]:
        """What each process gives, in their order.

        Raises:
            RanksError: another process is gone.
        """
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.count
        with told():
            dist.all_gather_object(found, value, group=self.group)
        return found

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Check that every process has the same settings.

        Raises:
            ConfigError: they have not; raised in all of them.
            RanksError: another process is gone.
        """
        found = self.all_of(dict(settings))
        for place, other in enumerate(found):
            for name, value in other.items():
                if value != found[0].get(name):
                    raise ConfigError(
                        f"the processes disagree: {name} is {found[0].get(name)} in process 0 and "
                        f"{value} in process {place}; start all of them with the same settings "
                        "and versions"
                    )

    def together(self, action: Callable[[], T]) -> T:
        """Do the same everywhere, and fail everywhere if it fails anywhere.

        Raises:
            ConvvaeError: that of the first process that failed; elsewhere an error that says
                nothing, a `RanksError` where this process did not fail.
        """
        error: ConvvaeError | None = None
        done: list[T] = []
        try:
            done.append(action())
        except ConvvaeError as raised:
            error = raised
        failed = [place for place, bad in enumerate(self.all_of(error is not None)) if bad]
        if not failed:
            return done[0]
        if error is None:
            raise RanksError("")
        raise error if failed[0] == self.rank else type(error)("")

    def one_by_one(self, action: Callable[[], T]) -> T:
        """The first process does it before the others: what it leaves behind, they find."""
        return self.in_turn(action, self.is_first, lambda: None)

    def in_turn(self, action: Callable[[], T], first: bool, pass_on: Callable[[], None]) -> T:
        """Some processes do it, then the others, with patience: what those left, these find.

        Args:
            action: What is done.
            first: Whether this process is one of the first to do it.
            pass_on: Done by all of them after each turn.
        """
        found: list[T] = []
        for is_turn in (first, not first):
            self.patient.together(
                lambda is_turn=is_turn: found.append(action()) if is_turn else None
            )
            pass_on()
        return found[0]


@contextmanager
def told(*, computing: bool = False) -> Iterator[None]:
    """Say in one line that another process is gone.

    Args:
        computing: Whether other things are done as well, whose errors pass.

    Raises:
        RanksError: it is.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if computing and not _is_of_exchange(error):
            raise
        # gloo begins with the place in its source, and ends with advice.
        said = re.sub(r"^\[\S+:\d+\] ", "", in_a_line(error))
        reason = said.partition(". This is ")[0]
        raise RanksError(
            f"another process ended or cannot be reached ({reason}); its own "
            "message says why; start all of them again, a training with `resume`"
        ) from error


def _is_of_exchange(error: Exception) -> bool:
    """Whether an error came up where processes exchange something; gloo's are plain ones."""
    return isinstance(error, dist.DistError) or any(
        name in str(error) for name in ("gloo", "NCCL", "c10d")
    )
