"""A training is killed at every write of its saves and at random moments, and its files damaged.

After a kill the run is continued as a user would, and must end with the bits of one left alone. A
file that is cut or has a bit flipped must be refused by its name, or be read as it was.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.faults import Outcome, Size
from tests.faults.apart import apart
from tests.faults.syscalls import UNWATCHED, WRITES, Ended, Fault, why_not
from tests.faults.syscalls import run as run_with

KILLED = "the newest whole state loads, and the run ends with the bits of one left alone"
DAMAGED = "a typed error that names the file, or content that is equal to the bit"


PARTS = ("calls", "halves", "moments", "damage")
"""Kills at calls, in the middle of writes, at moments (with the control), and damaged files."""


def run(size: Size, *parts: str) -> list[Outcome]:
    """Kills, a control, and damage to every file of a run."""
    return apart(size, *(f"saves:{part}" for part in parts or [""]))


def prove(size: Size, parts: list[str]) -> Iterator[Outcome]:
    """The same in this process."""
    if reason := why_not():
        yield Outcome(UNWATCHED, 1, 0, reason)
        return
    with tempfile.TemporaryDirectory(prefix="convvae-saves-") as name:
        proof = _Kills(Path(name), size)
        yield from proof.outcomes(parts or PARTS)
        if proof.whole.exists() and "damage" in (parts or PARTS):
            yield from damage(proof.whole, size)


def training(folder: Path, *, pictures: bool) -> int:
    """Train in a folder, or go on with what was begun there: two epochs, a save at every step."""
    from rich.console import Console

    from convvae.config import TrainConfig
    from convvae.training.run import train

    config = TrainConfig(
        data="digits", limit=48, batch_size=16, max_filters=4, latent_dims=2, epochs=2,
        device="cpu", precision="float32", validation=0.2, save_every=1e-9, log_every=1,
        preview=pictures, report=False, out=folder / "run",
    )  # fmt: skip
    began = (folder / "run" / "config.json").exists()
    with ExitStack() as around:
        if not pictures:
            around.enter_context(patch("convvae.training.run.draw_pictures", lambda *_: None))
        train(config, Console(quiet=True), resume=folder / "run" if began else None)
    return 0


class _Kills:
    """One training, killed again and again."""

    def __init__(self, home: Path, size: Size) -> None:
        self.home = home
        self.size = size
        self.folder = home / "work"
        self.whole = home / "whole" / "run"
        self.pictures = size.full

    def outcomes(self, parts: Sequence[str]) -> Iterator[Outcome]:
        began = time.monotonic()
        ended = self._train(Fault())
        seconds = time.monotonic() - began
        if ended.code:
            yield Outcome("a training left alone", 1, 0, ended.err[-300:])
            return
        self.folder.rename(self.home / "whole")
        places = range(len(ended.calls))
        few = random.Random(0)
        if "calls" in parts:
            kills = places if self.size.full else few.sample(places, 2)
            what = "SIGKILL at the n-th write call of a training that saves at every step"
            yield self._line(what, [lambda n=n: self._train(Fault("kill", n)) for n in kills])
        if "halves" in parts:
            torn = [place for place in places if ended.calls[place][0] in WRITES]
            halves = torn if self.size.full else few.sample(torn, 1)
            what = "SIGKILL in the middle of the n-th write"
            yield self._line(what, [lambda n=n: self._train(Fault("torn", n)) for n in halves])
        if "moments" in parts:
            draw = random.Random(1)
            moments = [draw.uniform(0, seconds) for _ in range(self.size.pick(1, 200))]
            what = "SIGKILL at a random moment, in any phase"
            yield self._line(what, [lambda s=s: self._kill_after(s) for s in moments])
            yield self._control(len(places) // 2)

    def _train(self, fault: Fault) -> Ended:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        work = lambda: training(self.folder, pictures=self.pictures)  # noqa: E731
        return run_with(work, self.folder, fault)

    def _kill_after(self, seconds: float) -> None:
        """Kill a training after so long, or earlier where it has ended by then."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        child = os.fork()
        if child == 0:
            os._exit(training(self.folder, pictures=self.pictures))
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            self._kill_after(0.8 * seconds)

    def _line(self, what: str, kills: list[Callable[[], object]]) -> Outcome:
        wrong: list[str] = []
        for number, kill in enumerate(kills):
            kill()
            if found := self._continued():
                wrong.append(f"kill {number}: {found}")
        return Outcome(what, len(kills), len(kills) - len(wrong), wrong[0] if wrong else KILLED)

    def _continued(self) -> str:
        """What is wrong with the run when it is continued; nothing, where it is ""."""
        work = lambda: training(self.folder, pictures=self.pictures)  # noqa: E731
        ended = run_with(work, self.folder, Fault())
        if ended.code:
            return f"it cannot be continued: {ended.err.strip()[-300:]}"
        return differs(self.whole, self.folder / "run")

    def _control(self, place: int) -> Outcome:
        """A run that forgets its optimiser's moments must be seen to end otherwise."""
        from convvae.training.learner import Learner

        take = Learner.take

        def forgetful(self: Learner, tensors: dict[str, Any]) -> None:
            take(self, {n: v for n, v in tensors.items() if not n.startswith("optimizer.")})

        self._train(Fault("kill", place))
        with patch.object(Learner, "take", forgetful):
            found = self._continued()
        what = "control: the same kill, and a state that is taken over without its moments"
        seen = found.endswith("is another")
        return Outcome(what, 1, int(seen), "must differ, and does" if seen else f"unseen: {found}")


def differs(whole: Path, other: Path) -> str:
    """How two finished runs differ, times apart; nothing, where it is ""."""
    import torch

    from convvae.model.checkpoint import load_tensors
    from convvae.model.run_folder import RunFolder

    for name in ("model", "last", "resume"):
        first, second = (
            load_tensors(folder / f"{name}.safetensors")[0] for folder in (whole, other)
        )
        for key in first.keys() | second.keys():
            if key not in first or key not in second or not torch.equal(first[key], second[key]):
                return f"{name}.safetensors: {key} is another"
    times = {"seconds", "images_per_second"}
    rows = [
        [
            {key: value for key, value in row.items() if key not in times}
            for row in RunFolder(folder).read_metrics()
        ]
        for folder in (whole, other)
    ]
    return "" if rows[0] == rows[1] else "metrics.jsonl is another"


def damage(run: Path, size: Size) -> Iterator[Outcome]:
    """Cut every file that is read of a run, flip its bits, zero its blocks.

    Args:
        run: A finished run; its files are as before at the end.
        size: How often.
    """
    draw = random.Random(2)
    for path in sorted(path for path in run.iterdir() if path.suffix in _READERS):
        content = path.read_bytes()
        wanted, length = _READERS[path.suffix](path), len(content)
        cuts = [content[: draw.randrange(length)] for _ in range(size.pick(8, 100))]
        flips = [_flipped(content, draw) for _ in range(size.pick(20, 1000))]
        zeroed = [_zeroed(content, draw) for _ in range(size.pick(4, 100))]
        for what, variants in (("cut", cuts), ("a bit flipped", flips), ("a block zeroed", zeroed)):
            changed = [variant for variant in variants if variant != content]
            found = [_after(path, content, variant, wanted) for variant in changed]
            wrong = [problem for problem in found if problem]
            note = wrong[0] if wrong else DAMAGED
            if changed:
                yield Outcome(f"{path.name}: {what}", len(found), len(found) - len(wrong), note)


def _flipped(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content))
    changed = content[place] ^ (1 << draw.randrange(8))
    return content[:place] + bytes([changed]) + content[place + 1 :]


def _zeroed(content: bytes, draw: random.Random) -> bytes:
    place, width = draw.randrange(len(content)), draw.choice((16, 512, 4096))
    end = min(len(content), place + width)
    return content[:place] + bytes(end - place) + content[end:]


def _after(path: Path, content: bytes, damaged: bytes, wanted: object) -> str:
    """What is wrong with the reading of a damaged file; nothing, where it is ""."""
    from convvae.errors import ConvvaeError

    try:
        path.write_bytes(damaged)
        found = _READERS[path.suffix](path)
    except ConvvaeError as error:
        return "" if path.name in str(error) else f"an error that names no file: {error}"
    except Exception as error:  # noqa: BLE001 - any other error is what is looked for
        return f"{type(error).__name__}: {error}"
    finally:
        path.write_bytes(content)
    return "" if found == wanted else "other content in silence"


def _tensors(path: Path) -> object:
    from convvae.model.checkpoint import load_model, load_tensors

    if "resume" in path.name:
        tensors, header = load_tensors(path)
        said: object = header
    else:
        vae, said = load_model(path)
        tensors = vae.state_dict()
    return said, {name: (v.shape, v.dtype, v.numpy().tobytes()) for name, v in tensors.items()}


def _config(path: Path) -> object:
    from convvae.model.run_folder import RunFolder

    return RunFolder(path.parent).read_config()


def _metrics(path: Path) -> object:
    """The rows; lines that are left out must be said, and a cut at the end shows in the epochs."""
    from convvae.errors import ConfigError
    from convvae.model.run_folder import RunFolder

    said: list[str] = []
    folder = RunFolder(path.parent)
    rows = folder.read_metrics(said.append)
    if not said:
        folder.rewind_metrics(2, 10**9, said.append)
    if said:
        raise ConfigError(said[0])
    return [row for row in rows if row["event"] == "epoch"]


_READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": _tensors,
    ".json": _config,
    ".jsonl": _metrics,
}
"""What reads the files of a run, by their endings."""
