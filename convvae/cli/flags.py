"""Command-line flags from a configuration class: split by argparse, checked by the class itself."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from convvae.cli.help import fill
from convvae.cli.options import Option, options_of
from convvae.config import Frozen
from convvae.errors import ConvvaeError, UsageError, did_you_mean

_SETTING = re.compile(r"`(?P<name>[a-z][a-z_]*)(=(?P<value>[^`]*))?`")
"""A setting in a message of the library, and perhaps its value."""

_NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)")
"""A value with a minus; of these argparse takes -1e-3 for a flag, before Python 3.14."""

Options = TypeVar("Options", bound=Frozen)


class _Parser(argparse.ArgumentParser):
    """A parser that raises what is wrong, instead of printing it and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parse(
    kind: type[Options], args: list[str], command: str, defaults: Mapping[str, Any] | None = None
) -> Options:
    """Read the flags of a configuration class.

    Args:
        kind: The class; its fields are the flags, their docstrings the help.
        args: Words of the command line after the command.
        command: Name of the command, for messages.
        defaults: Values that stand in for the class's own defaults.

    Raises:
        UsageError: a flag does not exist, lacks its value, or its value is of another type.
        ConfigError: a value is out of its range.
        SystemExit: help was asked for and printed.
    """
    defaults = defaults or {}
    options = options_of(kind, defaults)
    parser = _Parser(
        prog=command, description=(kind.__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    fill(parser, options)
    with said_once():
        if "device" in kind.model_fields:
            args = _write_out_cpu(args)
        found = _complete(parser, options, _written_plainly(args, options))
        given = {
            option.name: _value(parser, option, found[option.name])
            for option in options
            if option.name in found
        }
        return kind.checked({**defaults, **given}, command)


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Have what is wrong with a line that several processes share said by the first of a machine.

    Raises:
        ConvvaeError: what is raised inside, without a word in the others.
    """
    try:
        yield
    except ConvvaeError as error:
        place = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
        several = {"WORLD_SIZE", "SLURM_NTASKS"} & os.environ.keys()
        if several and place != "0":
            raise type(error)("") from error
        raise


def as_flags(message: str) -> str:
    """A message of the library with its settings as the command line writes them.

    The library names a setting as Python does, between backticks: `batch_size`, `split='none'`,
    `skip_bad=True`. Here they are --batch-size, --split none, --skip-bad.
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found["name"].replace("_", "-"), (found["value"] or "").strip("'")
        match value:
            case "" | "True":
                return f"--{name}"
            case "False":
                return f"--no-{name}"
            case _:
                return f"--{name} {value}"

    return _SETTING.sub(flag, message)


def take_option(args: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from `args` and return the value, None if absent.

    Raises:
        UsageError: the flag has no value, or stands twice.
    """
    found = [place for place, word in enumerate(args) if word.partition("=")[0] == flag]
    if not found:
        return None
    if len(found) > 1:
        raise UsageError(f"{flag} is given {len(found)} times; give it once")
    _, equals, value = args.pop(found[0]).partition("=")
    if not equals and found[0] < len(args):
        value = args.pop(found[0])
    if not value or value.startswith("--"):
        raise UsageError(f"{flag} needs a value")
    return value


def _write_out_cpu(args: list[str]) -> list[str]:
    """Write `--cpu` out as `--device cpu`.

    Raises:
        UsageError: `--device` is there as well.
    """
    if "--cpu" not in args:
        return args
    if any(word.partition("=")[0] == "--device" for word in args):
        raise UsageError("--cpu and --device contradict each other; give one")
    return [word for word in args if word != "--cpu"] + ["--device", "cpu"]


def _written_plainly(args: list[str], options: Sequence[Option]) -> list[str]:
    """The same line with its flags as argparse knows them: `--max_filters`, `--beta -1e-3`."""
    single = {flag for option in options if option.count == 1 for flag in option.flags}
    plain: list[str] = []
    for place, word in enumerate(args):
        if "--" in plain:
            return plain + args[place:]
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            plain.append(name.replace("_", "-") + equals + value)
        elif _NEGATIVE.match(word) and plain and plain[-1] in single:
            plain[-1] += f"={word}"
        else:
            plain.append(word)
    return plain


def _split(
    parser: argparse.ArgumentParser, options: Sequence[Option], words: list[str]
) -> dict[str, Any]:
    """What stands on a line: the name of a setting -> its words, or whether a switch is on.

    Raises:
        UsageError: a word belongs to no option.
    """
    found, rest = parser.parse_known_args(words)
    for word in rest:
        if word.startswith("-"):
            flag = word.partition("=")[0]
            known = [name.lstrip("-") for option in options for name in option.flags]
            close = did_you_mean(flag.strip("-"), known, mark="--")
            parser.error(f"there is no flag {flag}{close}")
    # Of `run --seed 3 digits`, argparse leaves the second positional word over.
    for each in options:
        if each.rules.positional and each.count is None and rest:
            return {**vars(found), each.name: [*getattr(found, each.name, ()), *rest]}
    places = [each.name for each in options if each.rules.positional and each.name not in found]
    if len(rest) > len(places):
        parser.error(f"{rest[len(places)]!r} is one word too many")
    return vars(found) | dict(zip(places, rest, strict=False))


def _complete(
    parser: argparse.ArgumentParser, options: Sequence[Option], words: list[str]
) -> dict[str, Any]:
    """The same of a line that has all it must have.

    Raises:
        UsageError: a word belongs to no option, or one that must be there is missing.
    """
    found = _split(parser, options, words)
    required = [option for option in options if option.required]
    lacks_place = any(each.rules.positional for each in required if each.name not in found)
    if lacks_place and words and not words[-1].startswith("-"):
        # A flag of several values takes all words after it: of `--only samples run` one too many.
        with contextlib.suppress(UsageError):
            found = _split(parser, options, [*words[:-1], "--", words[-1]])
    missing = [option for option in required if option.name not in found]
    if missing:
        said = [f"{(*each.flags, each.metavar)[0]} ({each.words.rstrip('.')})" for each in missing]
        parser.error(f"Missing: {', '.join(said)}")
    return found


def _value(parser: argparse.ArgumentParser, option: Option, found: bool | str | list[str]) -> Any:  # noqa: ANN401
    """The setting that was found on the line.

    Raises:
        UsageError: its words mean none.
    """
    if isinstance(found, bool):
        return found
    try:
        return option.value([found] if isinstance(found, str) else found)
    except ValueError as error:
        parser.error(f"{option.flags[0] if option.flags else option.metavar}: {error}")
