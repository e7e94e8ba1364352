"""The command line: `main` finds the command, and says its errors.

An error that the user can mend is one line on stderr, its settings written as flags, and the exit
code of its class; `--debug` adds the traceback.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from convvae.cli.anomalies import anomalies
from convvae.cli.compare import compare
from convvae.cli.denoise import denoise
from convvae.cli.edit import edit
from convvae.cli.encode import encode
from convvae.cli.evaluate import evaluate
from convvae.cli.explore import explore
from convvae.cli.export import export
from convvae.cli.figures import figures
from convvae.cli.flags import as_flags
from convvae.cli.generate import generate
from convvae.cli.import_ import import_
from convvae.cli.impute import impute
from convvae.cli.info import info
from convvae.cli.merge import merge
from convvae.cli.models import models
from convvae.cli.reconstruct import reconstruct
from convvae.cli.report import report
from convvae.cli.shard import shard
from convvae.cli.train import train
from convvae.errors import (
    ClosedPipeError,
    ConvvaeError,
    OutOfMemoryError,
    UsageError,
    did_you_mean,
    printable,
)
from convvae.files import is_of_disk, write_error
from convvae.training.signals import Ended, at_once

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    command.__name__.rstrip("_"): command
    for command in (
        *(train, reconstruct, generate, evaluate, compare, figures, report, explore),
        *(encode, anomalies, impute, denoise, edit, merge, shard, info, models, import_, export),
    )
}


def main(words: list[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        words: The words after `convvae`; those of the process if absent.
    """
    args = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in args
    for stream in (sys.stdout, sys.stderr):
        # A name in letters that a console lacks is printed with escapes, and ends no command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run([word for word in args if word != "--debug"], debug=debug)
    finally:
        _let_go()


def _run(args: list[str], *, debug: bool) -> int:
    """Run a command and return its exit code."""
    try:
        with at_once():
            _dispatch(args)
        print(end="", flush=True)  # what cannot be written is said while it can be
    except (ConvvaeError, RuntimeError, MemoryError) as error:
        known = error if isinstance(error, ConvvaeError) else _memory_error(error)
        if known is None:
            raise
        if debug:
            traceback.print_exc()
        return _failed(known)
    except KeyboardInterrupt as stopped:
        _say("convvae: interrupted")
        return 128 + (stopped.number if isinstance(stopped, Ended) else signal.SIGINT)
    except BrokenPipeError:
        # The reader of a pipe is gone: be as quiet about it as other commands.
        return ClosedPipeError.exit_code
    except SystemExit as ended:
        # What rich makes of a reader that is gone.
        if isinstance(ended.__context__, BrokenPipeError):
            return ClosedPipeError.exit_code
        raise
    except OSError as error:
        # Every file is written by `convvae.files`, which gives such an error its class: what is
        # left is what was printed.
        if error.filename is not None or not is_of_disk(error):
            raise
        if debug:
            traceback.print_exc()
        return _failed(write_error(Path("standard output"), error, "print to another place"))
    return 0


def _failed(error: ConvvaeError) -> int:
    """Say an error on stderr, unless another process does, and return its exit code."""
    if str(error):
        _say(f"convvae: {printable(as_flags(str(error)))}")
    return error.exit_code


def _say(text: str) -> None:
    """Print a line on stderr; where that is gone or full, the exit code has to do."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _let_go() -> None:
    """Empty the consoles; what they cannot take is dropped, else Python fails over it at its end.

    It would print an error of its own, and replace the exit code.
    """
    # There is no stream where a process was started without one.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _memory_error(error: Exception) -> OutOfMemoryError | None:
    """The error to show for a failed allocation of PyTorch or Python; None for any other error."""
    words = str(error)
    if not isinstance(error, MemoryError) and not any(
        sign in words for sign in ("can't allocate memory", "out of memory")
    ):
        return None
    return OutOfMemoryError(
        "not enough memory; lower --batch-size, --mc-samples, --max-filters, --image-size "
        "or --count"
    )


def _dispatch(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help"):
        print(overview())
    elif args[0] == "--version":
        print(f"convvae {version('convvae')}")
    elif args[0] in COMMANDS:
        COMMANDS[args[0]](args[1:])
    else:
        hint = did_you_mean(args[0], COMMANDS)
        raise UsageError(f"no command {args[0]!r}{hint}; see convvae --help")


def overview() -> str:
    """What `convvae --help` prints."""
    lines = [
        "usage: convvae COMMAND ...",
        "",
        "Train convolutional variational autoencoders on images, look inside them, ship them.",
        "",
    ]
    lines += [f"  {name:<12} {command.__doc__}" for name, command in COMMANDS.items()]
    lines += [
        "",
        "convvae COMMAND --help lists the flags; --debug shows the traceback of an error.",
        "A first run, in under a minute: convvae train digits --image-size 32",
    ]
    return "\n".join(lines)
