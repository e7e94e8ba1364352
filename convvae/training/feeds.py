"""Images on their way to the device: all of them at once where they fit, else batch by batch.

Images that do not fit are read ahead: while a step computes, a thread reads the images of the next
batches into pinned memory and has them copied on a stream of their own. The order is the caller's,
and of each batch a process reads the images of its own share.

The stream and the pinned memory are of GPUs of NVIDIA's kind, on which this has never been run; the
queue is the same on a CPU, where images that lie in the cache come by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from convvae import runtime
from convvae.data.images import ImageSet
from convvae.data.stored import empty
from convvae.training.ranks import Ranks

AHEAD = 2
"""Batches that are read before they are asked for."""
SHARE_OF_MEMORY = 0.5
"""Of the free memory of a device, which images may take."""


class Feed(Protocol):
    """Where the batches of a training come from."""

    shape: tuple[int, int, int]
    """C, H, W."""
    y: Tensor | None
    """What is known of all images, shape [N, C]; None of an unconditional model."""
    observed: Tensor | None
    """Which of their pixels are there, bool [N, 1, H, W]; None where all are."""

    def batches(self, order: Iterable[Tensor]) -> Iterator[Tensor]:
        """The images of one batch after the other, uint8 [b, C, H, W], on the device.

        Args:
            order: Places of the images of each batch, int64 [B]; of several processes, each gets
                its share b of them.
        """
        ...


class Resident:
    """Images that are all on the device.

    Args:
        source: The images.
        device: Where to compute.
        ranks: The processes that share each batch.
        y: What is known of them, shape [N, C].
    """

    def __init__(
        self, source: ImageSet, device: torch.device, ranks: Ranks, y: Tensor | None = None
    ) -> None:
        self.images, self.ranks, self.y = source.images.to(device), ranks, y
        self.shape, self.observed = shape_of(source.images), source.observed

    def batches(self, order: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `Feed`."""
        for index in order:
            own = index[self.ranks.share(len(index))]
            yield self.images[own.to(self.images.device, non_blocking=True)]


class Streamed:
    """Images that are read while the device computes.

    Args:
        source: The images, in a file or in memory.
        device: Where to compute.
        ranks: The processes that share each batch.
        y: What is known of them, shape [N, C].
    """

    def __init__(
        self, source: ImageSet, device: torch.device, ranks: Ranks, y: Tensor | None = None
    ) -> None:
        self.source, self.device, self.ranks, self.y = source, device, ranks, y
        self.shape, self.observed = shape_of(source.images), source.observed
        self.upload = runtime.Upload(device)

    def batches(self, order: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `Feed`; at most `AHEAD` batches are under way.

        Raises:
            CorruptDataError: the images cannot be read any more.
        """
        left = iter(order)
        waiting: deque[Future[Callable[[], Tensor]]] = deque()
        with ThreadPoolExecutor(1, "images") as reader:
            while True:
                for index in islice(left, AHEAD - len(waiting)):
                    waiting.append(reader.submit(self._read, index))
                if not waiting:
                    return
                batch = waiting.popleft().result()()
                waiting.extend(reader.submit(self._read, index) for index in islice(left, 1))
                yield batch

    def _read(self, index: Tensor) -> Callable[[], Tensor]:
        """The images of this process's share of a batch, on their way to the device."""
        own = index[self.ranks.share(len(index))]
        out = empty((len(own), *self.shape), pinned=self.upload.pinned)
        return self.upload.begin(self.source.read(own, out))


def feed_of(source: ImageSet, device: torch.device, ranks: Ranks, y: Tensor | None = None) -> Feed:
    """All images on the device where they fit into half of its free memory; else streamed.

    Images that lie in a file stay there for a CPU.

    Args:
        source: The images.
        device: Where to compute.
        ranks: The processes that share each batch.
        y: What is known of the images, shape [N, C]; None of an unconditional model.
    """
    in_file = device.type == "cpu" and source.is_stored
    room = SHARE_OF_MEMORY * runtime.free_memory(device)
    fits = not in_file and source.images.nbytes <= room
    if fits:
        return Resident(source, device, ranks, y)
    return Streamed(source, device, ranks, y)


def shape_of(images: Tensor) -> tuple[int, int, int]:
    """C, H, W of images [N, C, H, W]."""
    _, channels, height, width = images.shape
    return channels, height, width
