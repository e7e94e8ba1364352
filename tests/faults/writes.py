"""Every write of every command meets a kill, a full disk, a failing one, a write cut short.

A command is run once undisturbed, which counts its system calls and gives what it should write;
then again and again from the same start, with a fault at one call after the other (`syscalls`).
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from tests.faults import Outcome, Size
from tests.faults.apart import apart
from tests.faults.syscalls import NEEDS_ROOM, UNWATCHED, WRITES, Ended, Fault, why_not
from tests.faults.syscalls import run as run_with

TINY = (
    *("--epochs=1", "--limit=12", "--max-filters=8", "--batch-size=8"),
    *("--latent-dims=2", "--image-size=8", "--device=cpu"),
)
FULL_DISK = Fault("errno", number=errno.ENOSPC, lasts=True)
FAULTS: dict[str, tuple[Fault, set[str] | None]] = {
    "a kill": (Fault("kill"), None),
    "a kill in the middle of a write": (Fault("torn"), WRITES),
    "a write cut short": (Fault("short"), WRITES),
    "a disk that is full from then on": (FULL_DISK, NEEDS_ROOM),
    "a disk that fails once": (Fault("errno", number=errno.EIO), None),
}  # fmt: skip
"""What happens, and to which calls; None for all."""
CODES = {errno.ENOSPC: 21, errno.EIO: 22}
"""Exit codes of the classes of these errors."""
LEFT = ".convvae-"
"""How the names begin of what a killed process leaves."""


@dataclass(frozen=True)
class Command:
    """A command under test."""

    name: str
    work: Callable[[], int]
    """Runs in the folder, and returns an exit code."""
    again: Callable[[Path], Callable[[], int]] | None = None
    """What a user runs after a kill; absent, the same once more."""
    exact: bool = True
    """Whether it writes the same bytes every time; else its files are opened by their readers."""
    quick: bool = True
    """Whether it is tried when only a few are."""


def convvae(*words: str) -> Callable[[], int]:
    """A command line, to be run in the process that calls it."""
    return partial(_main, words)


def _main(words: tuple[str, ...]) -> int:
    from convvae.cli.main import main

    return main(list(words))


def decoded_by_processes() -> int:
    """Encode photographs that several processes decode."""
    from convvae.data.cache import pool

    pool.MOST_FILES_IN_PROCESS = 3
    return convvae("encode", "run", "photos", "--out=new.npy")()


def downloaded(*, large: bool) -> int:
    """Fetch a file, or a large one through the disk, from a mirror that is a function."""
    import hashlib

    from convvae.data.published import download
    from convvae.errors import ConvvaeError

    content = bytes(range(256)) * 300

    def send(_url: str, out: BinaryIO, _most: int) -> None:
        out.write(content)

    download._send = send  # pyright: ignore[reportPrivateUsage]
    digest, place = hashlib.sha256(content).hexdigest(), Path("fetched").resolve()
    try:
        if large:
            download.fetch_large("https://example.org/a.tar", place, len(content), digest)
        else:
            download.fetch("https://example.org/weights.pt", digest, place)
    except ConvvaeError as error:
        print(f"convvae: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def careless() -> int:
    """What must be seen to fail: a file written in its place, half of it lost in silence."""
    handle = os.open("new.txt", os.O_WRONLY | os.O_CREAT)
    try:
        os.write(handle, b"x" * 100)
    except OSError as error:
        print(f"convvae: {error}", file=sys.stderr)
        return 12
    return 0


def begin_or_resume(folder: Path) -> Callable[[], int]:
    """What takes up a run that was killed: `--resume` where it began, else the same once more."""
    began = (folder / "new" / "config.json").exists()
    return convvae("train", *(("--resume", "new") if began else (*_TRAIN, "--out=new")))


def without_the_first_ones(folder: Path) -> Callable[[], int]:
    """What makes a folder of images that was begun: its removal, as the command asks for."""
    shutil.rmtree(folder / "new", ignore_errors=True)
    return convvae(*_APART)


_SHARDS = ("encode", "run", "--part=train", "--limit=300", "--shard-size=128")
_APART = ("generate", "run", "--count=3", "--separate", "--outfile=new")
_TRAIN = ("digits", *TINY, "--validation=0")
COMMANDS = (
    Command("encode to .npz", convvae("encode", "run", "--limit=6", "--out=new.npz")),
    Command(
        "generate", convvae("generate", "run", "--count=4", "--outfile=new.png"), quick=False
    ),
    Command("the cache of own images", convvae("encode", "run", "photos", "--out=new.npy")),
    Command("a cache filled by several processes", decoded_by_processes, quick=False),
    Command("a download", partial(downloaded, large=False), quick=False),
    Command("a large download", partial(downloaded, large=True), quick=False),
    Command("shard", convvae("shard", "photos", "--out=new-{0..2}.tar"), quick=False),
    # The two entries of a shard's metadata come in either order; the numbers are the same.
    Command(
        "encode --shards", convvae(*_SHARDS, "--shards=new"), exact=False, quick=False
    ),
    Command("merge", convvae("merge", "shards", "--out=new.npz"), quick=False),
    Command(
        "impute",
        convvae("impute", "run", "--limit=2", "--steps=2", "--mask=box:0,0,4,4", "--outdir=new"),
        quick=False,
    ),
    Command("encode to .npy", convvae("encode", "run", "--limit=6", "--out=n.npy"), quick=False),
    Command(
        "encode to .parquet",
        convvae("encode", "run", "--limit=6", "--out=new.parquet"),
        quick=False,
    ),
    Command(
        "export to .npz",
        convvae("export", "run", "--format=npz", "--out=new.npz"),
        quick=False,
    ),
    Command(
        "export to .pth",
        convvae("export", "run", "--format=pth", "--out=new.pth"),
        quick=False,
    ),
    Command("import", convvae("import", "weights.npz", "--out=new.safetensors")),
    Command("generate --separate", convvae(*_APART), again=without_the_first_ones, quick=False),
    Command(
        "figures",
        convvae("figures", "run", "--limit=6", "--only", "samples", "curves", "--out=new"),
        quick=False,
    ),
    Command("evaluate", convvae("evaluate", "run", "--limit=6", "--json=new.json"), quick=False),
    Command("report", convvae("report", "run", "--limit=12", "--out=new.html"), quick=False),
    Command(
        "anomalies",
        convvae("anomalies", "run", "--limit=6", "--normal-limit=40", "--outdir=new"),
        quick=False,
    ),
    Command(
        "train",
        convvae("train", *_TRAIN, "--no-report", "--out=new"),
        again=begin_or_resume,
        exact=False,
        quick=False,
    ),
    Command(
        "train --resume",
        convvae("train", "--resume=run", "--epochs=2"),
        exact=False,
        quick=False,
    ),
)  # fmt: skip
CONTROL = Command("a careless write", careless)


PARTS = tuple(FAULTS)


def run(size: Size, *faults: str) -> list[Outcome]:
    """A line per fault, of all commands."""
    lines: dict[str, list[tuple[str, Outcome]]] = {}
    for found in apart(size, *(f"writes:{fault}" for fault in faults or [""])):
        command, _, fault = found.fault.partition(": ")
        lines.setdefault(fault or command, []).append((command, found))
    return [_together(fault, found) for fault, found in lines.items()]


def _together(fault: str, found: list[tuple[str, Outcome]]) -> Outcome:
    """One line of those of several commands."""
    wrong = [f"{command}: {one.note}" for command, one in found if not one.holds]
    return Outcome(
        f"{fault}, at a call of {', '.join(command for command, _ in found)}",
        sum(one.tried for _, one in found),
        sum(one.passed for _, one in found),
        wrong[0] if wrong else found[0][1].note,
    )


def prove(size: Size, names: list[str]) -> Iterator[Outcome]:
    """A line per command and fault, in this process.

    Args:
        size: Some commands at some calls, or all at all.
        names: Commands or faults, if not those of the size.
    """
    if reason := why_not():
        yield Outcome(UNWATCHED, 1, 0, reason)
        return
    faults = {name: fault for name, fault in FAULTS.items() if name in names} or FAULTS
    asked = [command for command in (*COMMANDS, CONTROL) if command.name in names]
    usual = [command for command in COMMANDS if size.full or command.quick]
    with workplace() as place:
        for command in asked or usual:
            yield from _Proof(command, place, size).outcomes(faults)


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for a proof, whose folder `start` holds what commands read; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="convvae-faults-") as name:
        shutil.copytree(_prepared().name, Path(name, "start"))
        yield Path(name)


@cache
def _prepared() -> tempfile.TemporaryDirectory[str]:
    """A folder with a model, a file of weights, a folder of images."""
    made = tempfile.TemporaryDirectory(prefix="convvae-faults-")
    start = Path(made.name)
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for place in range(6):
        path = start / "photos" / f"{'ab'[place % 2]}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
        # The cache indexes files that were changed just now otherwise than those at rest.
        os.utime(path, (0, 0))
    more = ("--validation=0", "--no-preview", "--no-report")
    for words in (
        ("train", "digits", *TINY, *more, "--out=run"),
        ("export", "run", "--format=npz", "--out=weights.npz"),
        (*_SHARDS, "--shards=shards"),
    ):
        ended = _in(start, convvae(*words), Fault())
        assert ended.code == 0, (words, ended.err)
    # What one process writes in a minute of its own must look the same to all.
    shutil.rmtree(start / "cache", ignore_errors=True)
    return made


def _in(folder: Path, work: Callable[[], int], fault: Fault) -> Ended:
    """Run work in a folder, with a fault there."""

    def there() -> int:
        os.chdir(folder)
        os.environ["CONVVAE_CACHE"] = str(folder / "cache")
        os.environ.pop("CONVVAE_DATA", None)
        return work()

    return run_with(there, folder, fault)


class _Proof:
    """One command, from one start."""

    def __init__(self, command: Command, home: Path, size: Size) -> None:
        self.command = command
        self.start = home / "start"
        self.folder = home / "work"
        self.size = size
        self.before = snapshot(self.start)

    def outcomes(self, faults: Mapping[str, tuple[Fault, set[str] | None]]) -> Iterator[Outcome]:
        self._reset()
        whole = _in(self.folder, self.command.work, Fault())
        if whole.code:
            yield Outcome(
                self.command.name, 1, 0, f"undisturbed, it ends {whole.code}: {whole.err}"
            )
            return
        self.wanted = snapshot(self.folder)
        for what, (fault, kinds) in faults.items():
            places = [
                place
                for place, (name, _) in enumerate(whole.calls)
                if kinds is None or name in kinds
            ]
            if not self.size.full:
                places = sorted({places[0], places[len(places) // 2], places[-1]})
            wrong: list[str] = []
            tried = 0
            for place in places:
                name, target = whole.calls[place]
                found = self._try(replace(fault, place=place), name)
                tried += found is not None
                if found:
                    wrong.append(f"at {name} of {target}: {found}")
            note = wrong[0] if wrong else _MEANING[fault.kind]
            yield Outcome(f"{self.command.name}: {what}", tried, tried - len(wrong), note)

    def _reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.start, self.folder)

    def _try(self, fault: Fault, call: str) -> str | None:
        """What is wrong after a fault: nothing, where it is ""; None where there was no fault.

        What cannot be removed, as the disk fails at its removal, is left to the next command too.
        """
        self._reset()
        ended = _in(self.folder, self.command.work, fault)
        if not ended.done:
            return None
        left = fault.kind in ("kill", "torn") or call == "rmdir"
        return (
            (_ended_wrongly(ended, fault) or self._state(killed=left))
            or (self._retried() if left else "")
            or ("" if ended.code else self._lacking())
        )

    def _state(self, *, killed: bool) -> str:
        """Whether what was there is there, and what is new is whole."""
        now = snapshot(self.folder)
        for path, content in self.before.items():
            changed = now.get(path) != content
            # A state makes room for the next by moving, to the place of the one before it.
            moved = path not in now and content in now.values()
            if changed and (self.command.exact or not (moved or _is_whole(self.folder / path))):
                return f"{path} is not what it was"
        for path in now.keys() - self.before.keys():
            if any(part.startswith((LEFT, ".tmp")) or part.endswith(".tmp") for part in path.parts):
                if not killed:
                    return f"{path} is left"
            elif not self._is_right(path, now[path]):
                return f"{path} is not whole"
        return ""

    def _is_right(self, path: Path, content: bytes | None) -> bool:
        """Whether a new file is what the command writes when it is left alone."""
        if self.command.exact:
            return path in self.wanted and content == self.wanted[path]
        return _is_whole(self.folder / path)

    def _retried(self) -> str:
        """Whether the command then does what it should, and takes away what was left."""
        again = self.command.again
        work = again(self.folder) if again else self.command.work
        ended = _in(self.folder, work, Fault())
        # It may refuse to write over what was finished before the kill, and says what to do.
        if ended.code == 12 and "--overwrite" in ended.err and isinstance(work, partial):
            ended = _in(self.folder, convvae(*work.args[0], "--overwrite"), Fault())
        if ended.code and (ended.code != 12 or self._lacking()):
            return f"then the command ends {ended.code}: {ended.err.strip()[-300:]}"
        return self._lacking() or ("" if ended.code else self._state(killed=False))

    def _lacking(self) -> str:
        """Whether something that it should write is not there.

        The preview of an epoch is drawn once it is saved, and not again.
        """
        missing = self.wanted.keys() - snapshot(self.folder).keys()
        missing = {path for path in missing if not path.match("pictures/epoch-*.png")}
        return f"{min(missing)} is not there" if missing else ""


_MEANING = {
    "kill": "old files whole, new ones whole or absent; the next start finishes, nothing is left",
    "torn": "old files whole, new ones whole or absent; the next start finishes, nothing is left",
    "short": "the command ends well, its files are whole",
    "errno": "its own exit code, one line that names the file; old files whole, nothing is left",
}


def _ended_wrongly(ended: Ended, fault: Fault) -> str:
    """Whether a process ended otherwise than its fault allows."""
    said = [line for line in ended.err.splitlines() if line.startswith("convvae: ")]
    if "Traceback" in ended.err or "Exception ignored" in ended.err:
        return f"a traceback: {ended.err.strip()[-300:]}"
    if fault.kind in ("kill", "torn"):
        return "" if ended.code == -signal.SIGKILL else f"it ends {ended.code}"
    if ended.code == 0:
        return ""
    wanted = CODES.get(fault.number)
    if ended.code != wanted or len(said) != 1 or os.strerror(fault.number) not in said[0]:
        return f"it ends {ended.code}: {ended.err.strip()[-300:]}"
    return ""


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    """The content of every file below a folder; None for its folders."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def _is_whole(path: Path) -> bool:
    """Whether a file can be read to its end by what reads such files."""
    from PIL import Image

    from convvae.errors import ConvvaeError
    from convvae.evaluation.shards import MANIFEST, ShardFolder
    from convvae.model.checkpoint import load_tensors
    from convvae.model.run_folder import RunFolder

    try:
        match path.suffix:
            case ".safetensors":
                load_tensors(path)
            case ".png":
                Image.open(path).load()
            case ".json" if path.name == MANIFEST:
                ShardFolder.open(path.parent)
            case ".json":
                RunFolder(path.parent).read_config()
            case ".jsonl":
                return path.read_bytes().endswith((b"\n", b"")) and _no_line_is_lost(path)
            case ".html":
                return path.read_text().rstrip().endswith("</html>")
    except (ConvvaeError, OSError, ValueError, SyntaxError):
        return False
    return True


def _no_line_is_lost(path: Path) -> bool:
    """Whether every line of a run's metrics but the last, which a kill may cut, is read."""
    from convvae.model.run_folder import RunFolder

    return len(RunFolder(path.parent).read_metrics()) >= path.read_bytes().count(b"\n")
