"""Command-line flags from a configuration class: parsed by tyro, checked by the class itself."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import tyro
from tyro.conf import Positional, PositionalMetavarFromFieldName, arg
from tyro.constructors import PrimitiveConstructorSpec

from convvae.cli.help import OPTIONAL, grouped
from convvae.config import Flag, Frozen, Word
from convvae.errors import UsageError
from convvae.parts import Names

_SETTING = re.compile(r"`(?P<name>[a-z][a-z_]*)(=(?P<value>[^`]*))?`")
"""A setting in a message of the library, and perhaps its value."""

Options = TypeVar("Options", bound=Frozen)


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
    printed = io.StringIO()
    if "device" in kind.model_fields:
        args = _write_out_cpu(args)
    try:
        with contextlib.redirect_stderr(printed):
            values = tyro.cli(
                _collector(kind, defaults or {}),
                prog=command,
                args=args,
                description=(kind.__doc__ or "").partition("\n")[0],
                registry=OPTIONAL,
                config=(PositionalMetavarFromFieldName,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{_first_words(printed.getvalue())} (see {command} --help)") from None
    return kind.checked(values, command)


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


def _collector(kind: type[Frozen], defaults: Mapping[str, Any]) -> typing.Callable[..., Any]:
    """A function whose parameters are the fields of `kind`, returning what it is called with.

    Given the class itself, tyro would build it, and wrap the one line of its errors in many.
    """

    def collect(**values: Any) -> dict[str, Any]:  # noqa: ANN401
        return values

    hints = typing.get_type_hints(kind, include_extras=True)
    hints = {name: _choices(hint) for name, hint in hints.items()}
    parameters: list[inspect.Parameter] = []
    help_lines = ["Args:"]
    for name, field in kind.model_fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.get_default()
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(name, default),
                annotation=_for_tyro(hints[name]),
            )
        )
        help_lines.append(f"    {name}: {field.description}")
    collect.__signature__ = inspect.Signature(parameters)
    collect.__annotations__ = {name: _for_tyro(hints[name]) for name in kind.model_fields}
    collect.__doc__ = "Collect.\n\n" + "\n".join(help_lines)
    return grouped(collect, kind)


def _choices(hint: Any) -> Any:  # noqa: ANN401
    """The type of a field, which for names of parts is a choice of those that there are now."""
    for rule in getattr(hint, "__metadata__", ()):
        if isinstance(rule, Names):
            return Literal[tuple(rule)]
    return hint


def _for_tyro(hint: Any) -> Any:  # noqa: ANN401
    """A type with its `Flag` in tyro's words."""
    for mark in getattr(hint, "__metadata__", ()):
        match mark:
            case Flag(positional=True):
                return Positional[hint]
            case Flag(word=None):
                return typing.Annotated[hint, arg(aliases=mark.aliases)]
            case Flag(word=word):
                return typing.Annotated[hint, _constructor(word)]
    return hint


def _constructor(word: Word) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=word.metavar,
        instance_from_str=lambda words: word.read(words[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: [word.write(value)],
    )


def _first_words(box: str) -> str:
    """The message in one of tyro's boxes: the lines before its rule, joined."""
    lines = [line.strip("│╭╮╰╯─ \n") for line in box.splitlines()[1:]]
    message: list[str] = []
    for line in lines:
        if not line:
            break
        message.append(line)
    return " ".join(message)
