"""Processes that train and encode together are killed, and are started again in other numbers.

torchrun starts them, as a user would. A training whose process is killed must end with the bits of
one left alone, and never fall behind its last saved state; a training that is stopped in the middle
of an epoch and continued by another number of processes must see the images of the one left alone,
in its order; shards that were made by processes that were killed must give the file of one go.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import stdev

from tests.faults import Outcome, Size
from tests.faults.meetings import MINUTE, refused
from tests.faults.saves import differs
from tests.faults.together import ALONE, Together, free_port
from tests.faults.wires import Ends, why_not

KILLED = (
    "torchrun starts all again; no saved work is lost, and the end has the bits of one left alone"
)
SAME = "the images of every step are those of one left alone, in their order"
MERGED = "the merged file is that of one go, to the byte"
TINY = (
    *("train", "digits", "--cpu", "--batch-size", "12", "--max-filters", "8", "--latent-dims", "2"),
    *("--precision", "float32", "--validation", "0.2", "--no-report", "--no-preview"),
)
SHARDS = 40
LONGEST = 600.0
"""Seconds without anything new after which a command counts as hung, on a machine that is busy."""
JOINING = 300
"""Seconds that an end waits for the other, as long as busy machines take to start Python."""
KILLS = 20


def run(size: Size, *parts: str) -> list[Outcome]:
    """Kills on one machine and between two ends of a wire, numbers of processes, and shards."""
    with tempfile.TemporaryDirectory(prefix="convvae-ranks-") as name:
        return [
            outcome
            for number, part in enumerate(parts or PARTS)
            for outcome in PARTS[part](_made(Path(name), number), size)
        ]


def _made(home: Path, number: int) -> Path:
    folder = home / f"{number}"
    folder.mkdir()
    return folder


class Torchrun(subprocess.Popen[str]):
    """torchrun, whose processes can be found and ended, and what all of them say of errors.

    Args:
        words: What it is started with.
        before: The words before its own.
        more: Environment variables.
    """

    def __init__(self, words: Sequence[str], before: Sequence[str] = (), **more: str) -> None:
        # A pipe that nobody reads stops who writes to it once it is full.
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        super().__init__(
            [*before, sys.executable, "-m", "torch.distributed.run", *words],
            env={**os.environ, **ALONE, **more},
            stdout=subprocess.DEVNULL,
            stderr=self.said,
            text=True,
        )

    def workers(self) -> list[int]:
        """The processes that it has started to train or encode."""
        return _workers(self.pid)

    def end(self) -> str:
        """End it with all its processes, if it has not ended, and return what they said."""
        if self.poll() is None:
            self.send_signal(signal.SIGSTOP)  # so that it starts no other ones meanwhile
            for process in self.workers():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.kill()
            self.wait()
        self.said.seek(0)
        return self.said.read().strip()


Start = Callable[[Sequence[str]], Torchrun]
"""Starts a command, or its end of one."""


def _on_one_machine(words: Sequence[str]) -> Torchrun:
    meet = ("--nproc-per-node", "2", "--max-restarts", "3", "--master-port", str(free_port()))
    return Torchrun([*meet, "-m", "convvae", *words])


def on_one_machine(home: Path, size: Size) -> list[Outcome]:
    """Kills of one process of two that one torchrun started."""
    return [kills(home, size, [_on_one_machine], "of two, by torchrun")]


def at_two_ends(home: Path, size: Size) -> list[Outcome]:
    """Kills of one process of two that a torchrun started each."""
    if why_not():
        return [kills(home, size, _at(None), "of two torchruns, on loopback")]
    with Ends() as ends:
        return [kills(home, size, _at(ends), "of two, in two network namespaces")]


def cut_wire(home: Path, _size: Size) -> list[Outcome]:
    """The wire between two ends is cut, where there can be one."""
    if why_not():
        return []
    with Ends() as ends:
        return [ends_that_lose_each_other(home, ends)]


def _at(ends: Ends | None) -> list[Start]:
    """What starts a process at each of two ends, which meet at the first; else on loopback."""
    addresses = ends.addresses if ends else ("127.0.0.1", "127.0.0.1")
    wires = ends.wires if ends else ("lo", "lo")

    def start(end: int) -> Start:
        def one(words: Sequence[str]) -> Torchrun:
            meet = (
                *("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"),
                *("--rdzv-id", "x", "--rdzv-backend", "c10d"),
                *("--rdzv-endpoint", f"{addresses[0]}:29500"),
                # The names of this machine say nothing of the addresses at the ends.
                *("--local-addr", addresses[end]),
                *("--rdzv-conf", f"is_host={1 - end},join_timeout={JOINING}"),
            )
            wire = {"GLOO_SOCKET_IFNAME": wires[end]}
            before = ends.inside(end) if ends else ()
            return Torchrun([*meet, "-m", "convvae", *words], before, **wire)

        return one

    return [start(0), start(1)]


def kills(home: Path, size: Size, starts: Sequence[Start], where: str) -> Outcome:
    """One process of a training is killed at a random moment, again and again."""
    amount = size.pick(("4", "200"), ("20", "400"))
    words = (*TINY, "--epochs", amount[0], "--limit", amount[1], "--save-every", "1e-2")
    began = time.monotonic()
    said = _finished([start([*words, "--out", str(home / "whole")]) for start in starts])
    seconds = time.monotonic() - began
    what = f"SIGKILL at a random moment to one process {where}"
    if said:
        return Outcome(what, 1, 0, f"the training left alone: {said}")
    draw, wrong, wanted, done = random.Random(0), list[str](), size.pick(1, KILLS), 0
    for number in range(2 * wanted):
        out = home / f"{number}"
        running = [start([*words, "--out", str(out)]) for start in starts]
        time.sleep(draw.uniform(0, seconds))
        reached = _kill_one(running, out, draw)
        done += reached is not None
        said = _finished(running, out, reached or 0)
        if problem := said or differs(home / "whole", out):
            wrong.append(f"kill {done}, at image {reached}: {problem}")
        shutil.rmtree(out, ignore_errors=True)
        if done == wanted:
            break
    if done < wanted:
        wrong.append(f"only {done} of {wanted} kills came before the end of the training")
    return Outcome(what, done, done - len(wrong), "; ".join(wrong) or KILLED)


def _kill_one(running: Sequence[Torchrun], out: Path, draw: random.Random) -> int | None:
    """Kill a process that trains; the images that its last saved state has seen.

    Returns:
        None where the training has ended by then, and nothing was killed.
    """
    while all(process.poll() is None for process in running):
        found = [worker for process in running for worker in process.workers()]
        if len(found) == 2:
            reached = _position(out)
            try:
                os.kill(draw.choice(found), signal.SIGKILL)
            except ProcessLookupError:
                return None
            return reached
        time.sleep(0.05)
    return None


def _workers(parent: int) -> list[int]:
    """The processes that torchrun has started, below what it was started by."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    found: list[int] = []
    for child in map(int, children):
        try:
            words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        except OSError:
            continue
        training = "convvae" in words and "torch.distributed.run" not in words
        found += [child] if training else _workers(child)
    return found


def _position(out: Path) -> int:
    """Images that the newest saved state of a run has seen; 0 where there is none."""
    from convvae.errors import ModelFileError
    from convvae.model.checkpoint import load_tensors

    try:
        return load_tensors(out / "resume.safetensors")[1]["position"]["images"]
    except ModelFileError:
        return 0  # it is being moved to the place of the one before it


def _finished(running: Sequence[Torchrun], out: Path | None = None, reached: int = 0) -> str:
    """Wait for the end of what runs; what went wrong, "" if nothing did.

    Args:
        running: What was started.
        out: Where it trains, and where a saved state must never fall back.
        reached: Images that a saved state has seen already.
    """
    fallen, last, since = "", 0, time.monotonic()
    while any(process.poll() is None for process in running):
        now = _position(out) if out is not None else 0
        if 0 < now < reached:
            fallen = f"it fell back from image {reached:,} to {now:,}"
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > LONGEST:
            fallen = f"it hung: nothing new for {LONGEST:.0f} s"
            break
        time.sleep(0.02)
    for process in running:
        said = process.end()
        if process.returncode:
            fallen = fallen or said[-300:] or f"exit code {process.returncode}"
    return fallen


def ends_that_lose_each_other(home: Path, ends: Ends) -> Outcome:
    """The wire is cut in the middle of a training: the processes at both ends must end."""
    words = (*TINY, "--epochs", "100000", "--limit", "400", "--out", str(home / "run"))
    running = [start(words) for start in _at(ends)]
    try:
        wrong = _cut(running, home / "run", ends)
    finally:
        # torchrun itself waits for the other end to come back.
        for process in running:
            process.end()
        ends.mend()
    note = "the process at each end is gone within a minute"
    return Outcome("the wire between two ends is cut", 1, int(not wrong), wrong or note)


def _cut(running: Sequence[Torchrun], out: Path, ends: Ends) -> str:
    """Cut the wire once a training has begun; what is wrong with what follows, "" if nothing is."""
    end = time.monotonic() + LONGEST
    while not _position(out):
        if time.monotonic() > end or any(process.poll() is not None for process in running):
            return "no training had begun"
        time.sleep(0.2)
    training = [worker for process in running for worker in process.workers()]
    ends.cut()
    cut = time.monotonic()
    while any(map(_is_alive, training)) and time.monotonic() - cut < MINUTE:
        time.sleep(0.2)
    left = [worker for worker in training if _is_alive(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    return f"{len(left)} of {len(training)} processes hang" if left else ""


def _is_alive(process: int) -> bool:
    """Whether a process is there, and not ended and waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def numbers(home: Path, size: Size) -> Iterator[Outcome]:
    """Begun by two, stopped in the second of three epochs, continued by one and by three."""
    width = ("--max-filters", size.pick("8", "32"), "--limit", size.pick("200", "1400"))
    words = (*TINY, *width, "--epochs", "3")
    seeds = range(size.pick(3, 10))
    with Together() as together:

        def trained(folder: Path, count: int, *more: object) -> tuple[float, list[list[int]]]:
            folder.mkdir(exist_ok=True)
            given = (folder / "seen", *more)
            ended = together.run(count, "train", *given, limit=LONGEST)
            seen = [json.loads((folder / f"seen-{n}").read_text()) for n in range(count)]
            steps = [list(chain(*parts)) for parts in zip(*seen, strict=True)]
            return (0.0 if any(ended.codes) else _bound(folder / "run")), steps

        alone = [
            trained(
                home / f"seed-{n}",
                1,
                "",
                -1,
                *words[1:],
                "--seed",
                n,
                "--out",
                home / f"seed-{n}" / "run",
            )
            for n in seeds
        ]
        bound, order = alone[0]
        noise = stdev(found for found, _ in alone)
        begun = home / "begun"
        stop = len(order) // 2
        _, first = trained(
            begun, 2, "told to stop", stop, *words[1:], "--seed", 0, "--out", begun / "run"
        )
        for count in (1, 3):
            folder = home / f"by-{count}"
            folder.mkdir()
            shutil.copytree(begun / "run", folder / "run")
            found, rest = trained(folder, count, "", -1, "--resume", folder / "run", "--no-report")
            same, far = first + rest == order, abs(found - bound)
            what = f"begun by 2 processes, stopped in the middle of an epoch, continued by {count}"
            note = (
                f"validation bound after three epochs {found:.3f}, uninterrupted {bound:.3f}; the "
                f"standard deviation over {len(seeds)} seeds is {noise:.3f} nats"
            )
            yield Outcome(
                what, 1, int(same and far < noise), f"{SAME if same else 'other images'}; {note}"
            )


def _bound(run: Path) -> float:
    """The validation bound of a run's last epoch, nats per image."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["val_bound"] for row in rows if row["event"] == "epoch"][-1]


def shards(home: Path, size: Size) -> list[Outcome]:
    """Images encoded by two processes, of which one is killed, three times on the way."""
    import numpy as np

    count, what = size.pick(10_000, 100_000), "images encoded by two processes, killed three times"
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    np.save(home / "images.npy", pixels)
    model, draw, wrong = str(home / "model"), random.Random(3), ""
    words = ["--epochs", "1", "--limit", "100", "--out", model]
    images = ["encode", model, str(home / "images.npy"), "--cpu", "--split", "none"]
    for command in ([*TINY, *words], [*images, "--out", str(home / "one.npz")]):
        wrong = wrong or _alone(command)
    parts = [*images, "--shards", str(home / "parts"), "--shard-size", str(count // SHARDS)]
    there = lambda: len(list((home / "parts").glob("*.safetensors")))  # noqa: E731
    kills = 0
    for _ in range(0 if wrong else 3):
        running, wanted = _on_one_machine_once(parts), there() + draw.randint(1, 6)
        while running.poll() is None and there() < wanted:
            time.sleep(0.01)
        found = running.workers()
        if len(found) == 2:
            os.kill(draw.choice(found), signal.SIGKILL)
            kills += 1
        wrong = wrong or ("" if _ended(running) else "it hung")
    if kills < 3 or there() == SHARDS:
        wrong = wrong or f"{kills} kills came in time, and left {there()} of {SHARDS} shards"
    wrong = wrong or _finished([_on_one_machine_once(parts)])
    wrong = wrong or _alone(["merge", str(home / "parts"), "--cpu", "--out", str(home / "all.npz")])
    if not wrong and (home / "one.npz").read_bytes() != (home / "all.npz").read_bytes():
        wrong = "the merged file is another"
    return [Outcome(f"{count:,} {what}", 1, int(not wrong), wrong or MERGED)]


def _ended(running: Torchrun) -> bool:
    """Whether it ends, with whatever code."""
    with suppress(subprocess.TimeoutExpired):
        running.wait(LONGEST)
    ended = running.poll() is not None
    running.end()
    return ended


def _on_one_machine_once(words: Sequence[str]) -> Torchrun:
    meet = ("--nproc-per-node", "2", "--master-port", str(free_port()))
    return Torchrun([*meet, "-m", "convvae", *words])


def _alone(words: Sequence[str]) -> str:
    """Run a command in one process; what went wrong, "" if nothing did."""
    command = [sys.executable, "-m", "convvae", *words]
    environment = {**os.environ, **ALONE}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip()[-300:] if done.returncode else ""


PARTS: dict[str, Callable[[Path, Size], Iterable[Outcome]]] = {
    "kills": on_one_machine,
    "ends": at_two_ends,
    "cut": cut_wire,
    "numbers": numbers,
    "shards": shards,
    "refused": refused,
}
"""Proofs that can be made alone, each in a folder of its own."""
