"""A run folder: the files of one training run, and the claim of one training to it."""

from __future__ import annotations

import json
import os
import platform
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

from convvae.errors import (
    ConfigError,
    ModelFileError,
    OutputError,
    RunBusyError,
    RunExistsError,
    printable,
)
from convvae.files import append_text, make_folder, open_regular, write_error, write_text
from convvae.model.checkpoint import LAST_FILE, MODEL_FILE, find_model, is_file

STATES = ("resume.safetensors", "resume-1.safetensors", "resume-2.safetensors")
"""Saved states of a run, from the newest to the oldest."""
CHECKSUM = "crc32"
"""Key of a checksum of all else in a JSON object; objects of before it lack it."""
CHECKSUM_DIGITS = 8


def run_of(model: str | Path) -> RunFolder | None:
    """The run folder, or the folder of a pretrained model, that a model's file lies in.

    Returns:
        None for a model file that lies alone: what is beside it need not be its own.

    Raises:
        ModelFileError: there is no such model.
    """
    path = find_model(model)
    return RunFolder(path.parent) if path.name in (MODEL_FILE, LAST_FILE) else None


class RunFolder:
    """The files of one training run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.model = path / MODEL_FILE
        self.last = path / LAST_FILE
        self.states = tuple(path / name for name in STATES)
        self.resume = self.states[0]
        self.pictures = path / "pictures"
        self.report = path / "report.html"
        self.not_finite = path / "not-finite"
        self.lock = path / ".lock"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make a new run folder.

        Raises:
            RunExistsError: the folder already holds a run.
            OutputError: the folder cannot be made.
        """
        run = cls(path)
        run.check_free()
        make_folder(run.pictures)
        return run

    def check_free(self) -> None:
        """Check that the folder holds nothing that a run would write.

        Raises:
            RunExistsError: it holds a run.
            OutputError: it holds a report or pictures of something else.
        """
        for file in (self.config, self.metrics, self.model, self.last, *self.states):
            if is_file(file):
                raise RunExistsError(
                    f"{self.path} already holds a run ({file.name} is there); continue it with "
                    f"`resume='{self.path}'`, or choose another folder with `out`"
                )
        for path in (self.report, self.pictures):
            # A run that was killed as it began leaves an empty folder.
            if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
                raise OutputError(
                    f"{path} is there and is no run's: training would write over it; choose "
                    "another folder with `out`"
                )

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder to continue it.

        Raises:
            ModelFileError: the folder holds no run that can be continued.
        """
        run = cls(path)
        if not is_file(run.config) or not (run.is_saved() or run.is_unused()):
            raise ModelFileError(
                f"{path} holds no run to resume (config.json and resume.safetensors are needed); "
                "give the folder that `convvae train` made"
            )
        return run

    def is_saved(self) -> bool:
        """Whether there is a state to continue from."""
        return any(map(is_file, self.states))

    def is_unused(self) -> bool:
        """Whether the run was ended before it recorded anything, so that it can only begin."""
        return not any(map(is_file, (self.metrics, self.model, self.last, *self.states)))

    @contextmanager
    def claimed(self) -> Iterator[Self]:
        """Hold the folder for one training; the system takes the claim from a process that ends.

        Raises:
            RunBusyError: another process holds it.
            OutputError: nothing can be written there.
        """
        try:
            file = self.lock.open("a+", encoding="utf-8")
        except OSError as error:
            raise write_error(self.lock, error) from error
        with file:
            if not _locked(file):
                file.seek(0)
                raise RunBusyError(
                    f"a training is at work in {self.path} ({printable(file.read(200))}); wait "
                    "for its end, or choose another folder with `out`"
                )
            with suppress(OSError, OutputError):  # the name of the holder is for people
                os.truncate(self.lock, 0)
                append_text(self.lock, f"process {os.getpid()} on {platform.node()}")
            yield self

    def read_config(self) -> dict[str, Any]:
        """The content of `config.json`; a run of before `validation` was a setting held none out.

        Raises:
            ConfigError: it cannot be read, or is not what `convvae train` wrote.
        """
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{self.config} cannot be read as JSON: {error}") from error
        if not isinstance(content, dict) or not {"settings", "ran_on"} <= content.keys():
            raise ConfigError(f"{self.config} is not what `convvae train` wrote; was it edited?")
        if not is_sealed(content):
            raise ConfigError(
                f"{self.config} is not what `convvae train` wrote (its checksum differs): it is "
                "damaged or was edited; restore it, and give other settings beside `resume`"
            )
        if isinstance(content["settings"], dict):
            content["settings"] = {"validation": 0.0, **content["settings"]}
        return content

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Write `config.json` with a checksum of its content.

        Raises:
            OutputError: it cannot be written.
        """
        write_text(self.config, json.dumps(sealed(content), indent=2) + "\n")

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`, with a checksum of it.

        Raises:
            OutputError: it cannot be written; the lines before are as they were.
        """
        append_text(self.metrics, json.dumps(sealed(row), allow_nan=False) + "\n")

    def read_metrics(self, note: Callable[[str], object] | None = None) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`, without those that are damaged.

        A last line without an end was cut short by a kill, and is left out without a word.

        Args:
            note: Told of damaged lines.

        Raises:
            ConfigError: the file cannot be read.
        """
        if not self.metrics.exists():
            return []
        try:
            with open_regular(self.metrics) as file:
                content = file.read()
        except OSError as error:
            raise ConfigError(f"{self.metrics} cannot be read: {error}") from error
        lines = content.split(b"\n")
        found = [_row(line) for line in lines]
        bad = [number for number, row in enumerate(found[:-1], 1) if row is None]
        if bad and note is not None:
            others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            note(f"note: line {bad[0]}{others} of {self.metrics} is damaged and left out")
        return [row for row in found if row is not None]

    def rewind_metrics(
        self, epochs: int, images: int, note: Callable[[str], object] | None = None
    ) -> None:
        """Drop the lines written after a position: `epochs` finished, `images` seen.

        Args:
            epochs: Epochs finished.
            images: Images seen.
            note: Told of lines that are damaged, and of epochs that have none.
        """
        rows = [
            row
            for row in self.read_metrics(note)
            if row["images"] <= images and (row["event"] != "epoch" or row["epoch"] <= epochs)
        ]
        told = {row["epoch"] for row in rows if row["event"] == "epoch"}
        lacking = sorted(set(range(1, epochs + 1)) - told)
        if lacking and note is not None:
            others = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            note(f"note: {self.metrics} has no line of epoch {lacking[0]}{others}")
        write_text(self.metrics, "".join(json.dumps(sealed(row)) + "\n" for row in rows))


def claim_next(name: str, root: Path = Path("runs")) -> Path:
    """Make the first of runs/NAME, runs/NAME-2, runs/NAME-3, ... that is not there yet.

    Of several processes that ask at once each gets a folder of its own.

    Raises:
        OutputError: it cannot be made.
    """
    make_folder(root)
    path, number = root / name, 1
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            path = root / f"{name}-{number}"
        except OSError as error:
            raise write_error(
                path, error, "choose another with `out`", "make the folder"
            ) from error
        else:
            return path


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same with a checksum of it."""
    plain = {name: value for name, value in content.items() if name != CHECKSUM}
    text = json.dumps(plain, sort_keys=True)
    return {**plain, CHECKSUM: f"{zlib.crc32(text.encode()):0{CHECKSUM_DIGITS}x}"}


def is_sealed(content: dict[str, Any]) -> bool:
    """Take the checksum out of what `sealed` gave; whether it is right, or there is none.

    One under another name is there: its name is what is damaged.
    """
    if CHECKSUM in content:
        found = content.pop(CHECKSUM)
        return found == sealed(content)[CHECKSUM]
    return not any(
        value == sealed({other: content[other] for other in content if other != name})[CHECKSUM]
        for name, value in content.items()
        if isinstance(value, str) and len(value) == CHECKSUM_DIGITS
    )


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of `metrics.jsonl`, or None if it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not is_sealed(row):
        return None
    whole = isinstance(row.get("event"), str)
    return (
        row if whole and all(type(row.get(name)) is int for name in ("epoch", "images")) else None
    )


def _locked(file: IO[str]) -> bool:
    """Lock a file for this process; whether it is the only one. No lock where a system has none."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True  # a system, or a disk, without such locks
    return True
