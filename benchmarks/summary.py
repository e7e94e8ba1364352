"""From the rounds of a benchmark to the numbers of its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median
from typing import Any, NamedTuple

REFERENCE = "convvae"
"""The peer that the others are compared with."""


class Spread(NamedTuple):
    """Median (or mean), lowest and highest of a few values."""

    centre: float
    low: float
    high: float

    @classmethod
    def of(
        cls, values: Iterable[float], centre: Callable[[list[float]], float] = median
    ) -> Spread | None:
        """The spread of some values around their median, or another `centre`; None of none."""
        known = list(values)
        return cls(centre(known), min(known), max(known)) if known else None

    def show(self, digits: int) -> str:
        """As `median (lowest–highest)`; `to` between them where one is below zero."""
        a, b, c = (f"{value:,.{digits}f}" for value in self)
        return f"{a} ({b}{' to ' if self.low < 0 else '–'}{c})"


def speeds(record: dict[str, Any]) -> dict[int, float]:
    """Round -> images per second."""
    return {row["round"]: row["images_per_second"] for row in record["rounds"]}


def ratio(over: dict[int, float], under: dict[int, float]) -> Spread | None:
    """The spread of one speed over another, taken within the rounds that have both."""
    return Spread.of(over[i] / under[i] for i in sorted(over.keys() & under.keys()))


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
    reference = speeds(peers.get(REFERENCE, {"rounds": []}))
    return [_summary(name, peer, reference) for name, peer in peers.items()]


def _summary(name: str, peer: dict[str, Any], reference: dict[int, float]) -> PeerSummary:
    rounds = peer["rounds"]
    return PeerSummary(
        name=name,
        what=peer["what"],
        precision=rounds[0]["precision"] if rounds else "",
        speed=Spread.of(speeds(peer).values()),
        setup=Spread.of(row["setup_seconds"] for row in rounds),
        ratio=ratio(reference, speeds(peer)),
        error=peer["error"],
    )


PLAIN = "plain-nchw"
"""The variant of the engine that the others are compared with."""
ENGINE_HEADER = ["variant", "images/s", f"variant ÷ {PLAIN}", "% of the ceiling", "compiling, s"]


class VariantSummary(NamedTuple):
    """What the rounds of one variant of the engine come to."""

    name: str
    what: str
    speed: Spread | None
    """Images a second."""
    ratio: Spread | None
    """Images a second over those of the plain network, in the same round."""
    share: Spread | None
    """Arithmetic a second, in percent of the fastest matrix product at the same precision."""
    compile_seconds: float | None
    error: str | None
    """Why the variant did not run."""

    def cells(self) -> list[str]:
        """The row of a table: speed, ratio, share, compiling."""
        return [
            self.speed.show(0) if self.speed else "—",
            self.ratio.show(2) if self.ratio else "—",
            self.share.show(1) if self.share else "—",
            "—" if self.compile_seconds is None else f"{self.compile_seconds:.1f}",
        ]


def summarise_engine(result: dict[str, Any]) -> list[VariantSummary]:
    """One summary a variant, in the order of the result."""
    plain = speeds(result["variants"].get(PLAIN, {"rounds": []}))
    return [
        VariantSummary(
            name=name,
            what=record["what"],
            speed=Spread.of(speeds(record).values()),
            ratio=ratio(speeds(record), plain),
            share=_share(result, record),
            compile_seconds=record["compile_seconds"],
            error=record["error"],
        )
        for name, record in result["variants"].items()
    ]


def _share(result: dict[str, Any], record: dict[str, Any]) -> Spread | None:
    """Percent of the ceiling that a variant reaches in each round."""
    known = speeds(record).values()
    if not known:
        return None
    ceiling = max(result["ceiling_gflops"][record["precision"]]) * 1e9
    return Spread.of(100 * result["flops_per_image"] * speed / ceiling for speed in known)


QUALITY_HEADER = [
    *("recipe", "epochs to target", "training to target, s", "wall to target, s"),
    *("whole run, s", "squared error + KL", "validation bound"),
]


class Reached(NamedTuple):
    """When a run reached the target."""

    epochs: int
    training_seconds: float
    """In training steps, without validation and saving."""
    wall_seconds: float
    """Since the process began."""


def reached(run: dict[str, Any], target: float) -> Reached | None:
    """The end of the first epoch whose squared error + KL is at most `target`; None if none is."""
    training = 0.0
    for row in run["epochs"]:
        training += row["training_seconds"]
        if row["squared_error_and_kl"] <= target:
            return Reached(row["epoch"], training, row["wall_seconds"])
    return None


def quality_rows(result: dict[str, Any]) -> list[list[str]]:
    """The rows of the race: every seed of a recipe, then their mean and spread."""
    rows: list[list[str]] = []
    for recipe in result["recipes"]:
        runs = [run for run in result["runs"] if run["recipe"] == recipe]
        rows += [[f"{recipe}, seed {run['seed']}", *_race([run], result["target"])] for run in runs]
        if len(runs) > 1:
            rows.append([f"{recipe}, mean of {len(runs)}", *_race(runs, result["target"])])
    return rows


def _race(runs: list[dict[str, Any]], target: float) -> list[str]:
    """The cells of one run or of several."""
    ends = [end for run in runs if (end := reached(run, target))]
    last = [run["epochs"][-1] for run in runs]
    if len(ends) == len(runs):
        cells = [_cell([float(end[i]) for end in ends], 1) for i in range(3)]
    else:
        # A mean over those alone that reach the target would flatter.
        cells = [f"reached by {len(ends)} of {len(runs)}" if ends else "not reached", "—", "—"]
    return [
        *cells,
        _cell([run["wall_seconds"] for run in runs], 1),
        _cell([row["squared_error_and_kl"] for row in last], 2),
        _cell([row["validation_bound"] for row in last], 2),
    ]


def _cell(values: Sequence[float], digits: int) -> str:
    """A single value as it is, several as `mean (lowest–highest)`."""
    spread = Spread.of(values, mean)
    assert spread
    return spread.show(digits) if len(values) > 1 else f"{values[0]:,.{digits}f}"


AGREE_HEADER = ["recipe", "float32", "bfloat16", "bfloat16 - float32"]
LIMIT_NATS, LIMIT_SHARE = 0.3, 0.005
"""Precisions agree within so many nats per image, or this share of squared error + KL."""


class Pair(NamedTuple):
    """The same training in float32 and in bfloat16: final validation bounds, nats per image."""

    recipe: str
    seed: int
    float32: float
    bfloat16: float
    squared_error_and_kl: float
    """Of the float32 model on the validation images."""

    @property
    def difference(self) -> float:
        """Above zero where bfloat16 is better."""
        return self.bfloat16 - self.float32


def pairs(result: dict[str, Any], recipe: str) -> list[Pair]:
    """The seeds of a recipe that were trained in both precisions."""
    last = {
        (run["seed"], run["precision"]): run["epochs"][-1]
        for run in result["runs"]
        if run["recipe"] == recipe
    }
    return [
        Pair(
            recipe,
            seed,
            row["validation_bound"],
            last[seed, "bfloat16"]["validation_bound"],
            row["validation_squared_error_and_kl"],
        )
        for (seed, precision), row in last.items()
        if precision == "float32" and (seed, "bfloat16") in last
    ]


def agree_rows(result: dict[str, Any]) -> list[list[str]]:
    """The rows of the comparison: every seed of a recipe, then their mean and spread."""
    rows: list[list[str]] = []
    for recipe in result["recipes"]:
        found = pairs(result, recipe)
        rows += [[f"{recipe}, seed {pair.seed}", *_agreement([pair])] for pair in found]
        if len(found) > 1:
            rows.append([f"{recipe}, mean of {len(found)}", *_agreement(found)])
    return rows


def _agreement(found: list[Pair]) -> list[str]:
    """The cells of one pair or of several."""
    return [
        _cell([pair.float32 for pair in found], 2),
        _cell([pair.bfloat16 for pair in found], 2),
        _cell([pair.difference for pair in found], 3),
    ]


def verdicts(result: dict[str, Any]) -> list[str]:
    """Whether the precisions agree, a sentence a recipe."""
    lines: list[str] = []
    for recipe in result["recipes"]:
        if found := pairs(result, recipe):
            difference = mean(pair.difference for pair in found)
            scale = mean(pair.squared_error_and_kl for pair in found)
            limit = max(LIMIT_NATS, LIMIT_SHARE * scale)
            words = "they agree" if abs(difference) <= limit else "they do NOT agree"
            lines.append(
                f"{recipe}: bfloat16 differs by {difference:+.3f} nats per image in the mean, "
                f"the limit is {limit:.3f}: {words}."
            )
    return lines


def failures(result: dict[str, Any]) -> list[str]:
    """Which recipes of a result are incomplete, and why."""
    return [f"{recipe} is incomplete: {error}" for recipe, error in result["errors"].items()]
