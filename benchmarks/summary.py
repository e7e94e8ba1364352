"""From the rounds of a benchmark to the numbers of its table."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any, NamedTuple

REFERENCE = "convvae"
"""The peer that the others are compared with."""


class Spread(NamedTuple):
    """Median, lowest and highest of a few values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """The spread of some values; None of none."""
        known = list(values)
        return cls(median(known), min(known), max(known)) if known else None

    def show(self, digits: int) -> str:
        """As `median (lowest–highest)`."""
        a, b, c = (f"{value:,.{digits}f}" for value in self)
        return f"{a} ({b}–{c})"


class PeerSummary(NamedTuple):
    """What the rounds of one peer come to."""

    name: str
    what: str
    precision: str
    speed: Spread | None
    """Images a second."""
    setup: Spread | None
    """Seconds."""
    ratio: Spread | None
    """Images a second of convvae over those of the peer, in the same round."""
    error: str | None
    """Why the peer did not run, or not to the end."""

    def cells(self) -> list[str]:
        """The row of a table: speed, setup, ratio, precision."""
        return [
            self.speed.show(0) if self.speed else "—",
            self.setup.show(1) if self.setup else "—",
            self.ratio.show(2) if self.ratio else "—",
            self.precision or "—",
        ]


HEADER = ["peer", "images/s", "setup, s", f"{REFERENCE} ÷ peer", "precision"]


def summarise(result: dict[str, Any]) -> list[PeerSummary]:
    """One summary a peer, in the order of the result."""
    peers = result["peers"]
    reference = _speeds(peers.get(REFERENCE, {"rounds": []}))
    return [_summary(name, peer, reference) for name, peer in peers.items()]


def _summary(name: str, peer: dict[str, Any], reference: dict[int, float]) -> PeerSummary:
    rounds, speeds = peer["rounds"], _speeds(peer)
    shared = sorted(reference.keys() & speeds.keys())
    return PeerSummary(
        name=name,
        what=peer["what"],
        precision=rounds[0]["precision"] if rounds else "",
        speed=Spread.of(speeds.values()),
        setup=Spread.of(row["setup_seconds"] for row in rounds),
        ratio=Spread.of(reference[i] / speeds[i] for i in shared),
        error=peer["error"],
    )


def _speeds(peer: dict[str, Any]) -> dict[int, float]:
    """Round -> images a second."""
    return {row["round"]: row["images_per_second"] for row in peer["rounds"]}
