"""What every configuration is made of: frozen classes, how a flag is written, sizes of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from convvae.errors import ConfigError, ImageSizeError
from convvae.files import expand

MIN_SIDE, MAX_SIDE = 8, 4096
"""Image sides: three halvings must leave a cell, and an image must fit the memory of training."""


class Word(NamedTuple):
    """How a value is written as a single word."""

    metavar: str
    """What stands for it in the help."""
    read: Callable[[str], Any]
    write: Callable[[Any], str]


@dataclass(frozen=True)
class Flag:
    """How the command line writes a setting, where that does not follow from its name and type."""

    word: Word | None = None
    """How its value is read, where the type does not say."""
    positional: bool = False
    """Whether it stands without a name."""
    name: str | None = None
    """Its name, where it is not the setting's."""
    aliases: tuple[str, ...] = ()
    """Other names, such as `--batchsize`."""
    negatable: bool = True
    """Whether a switch has a `--no-` form."""


def parse_size(text: str) -> tuple[int, int] | None:
    """Read `64` or `48x80` as (height, width), `native` as None.

    Raises:
        ValueError: the text is not one or two whole numbers joined by `x`.

    Examples:
        >>> parse_size("48x80"), parse_size("64"), parse_size("native")
        ((48, 80), (64, 64), None)
    """
    if text == "native":
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.lstrip("-").isdecimal() for side in sides):
        raise ValueError(f"{text!r} is not a size: write 64, 48x80 (height x width) or native")
    return int(sides[0]), int(sides[-1])


def size_in_words(size: tuple[int, int] | None) -> str:
    """What `parse_size` reads: `native` or `48x80`."""
    return "native" if size is None else f"{size[0]}x{size[1]}"


def square(size: object) -> object:
    """A whole number as the height and width of a square; anything else as it is."""
    return (size, size) if isinstance(size, int) and not isinstance(size, bool) else size


Size = Annotated[tuple[int, int], BeforeValidator(square)]
"""Height and width; a single number is both."""
ImageSize = Annotated[Size | None, Flag(Word("H[xW]", parse_size, size_in_words))]
"""The size that images are brought to; None leaves it as it is."""


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size if the networks can take it.

    Raises:
        ImageSizeError: a side is below `MIN_SIDE` or above `MAX_SIDE`.
    """
    if min(size) < MIN_SIDE:
        raise ImageSizeError(
            f"images of {size[0]}x{size[1]} pixels are too small: the networks need at least "
            f"{MIN_SIDE} a side; enlarge them with `image_size`"
        )
    if max(size) > MAX_SIDE:
        raise ImageSizeError(
            f"images of {size[0]}x{size[1]} pixels are too large: at most {MAX_SIDE} a side; "
            "shrink them with `image_size`"
        )
    return size


UserPath = Annotated[Path, AfterValidator(expand)]
"""A path of the user's, `~` written out."""


class Frozen(BaseModel):
    """A configuration: immutable, no unknown keys, finite numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def checked(cls, values: dict[str, Any], where: str) -> Self:
        """Build from plain values (a recipe, a file, the command line).

        Raises:
            ConfigError: a key is unknown or a value is out of its range; `where` is named.
            ImageSizeError: the images are smaller than `MIN_SIDE`.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{where}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Say in one line what pydantic found: each setting, its value and the rule that it broke."""
    parts: list[str] = []
    for item in error.errors():
        name = ".".join(str(key) for key in item["loc"])
        reason = item["msg"].removeprefix("Value error, ")
        found = f" (found {item['input']!r})" if name else ""
        parts.append(f"{name}: {reason}{found}" if name else reason)
    return "; ".join(parts)
