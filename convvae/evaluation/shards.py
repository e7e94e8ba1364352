"""The numbers of images in shards: a folder with a file for so many images each, and a manifest.

A command that passes many images through a model does so a shard at a time, in one process or in
several, and does those that are not there yet: what a killed one has done, the next one finds. The
shards are cut where the command's own batches end, so that each image is computed in the company
that it has in one go, and what is made of all shards together is the same to the bit. The manifest
says of what they are; every file has checksums of its content and names the manifest, so that
shards of two models, sets of images or settings are never taken together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from convvae.errors import ConfigError, CorruptDataError, ModelFileError, OutputError, in_a_line
from convvae.files import make_empty_folder, write_text
from convvae.model.checkpoint import load_tensors, save_tensors
from convvae.model.run_folder import is_sealed, sealed

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the manifest."""


class Measure(NamedTuple):
    """Some images in their order, and how a part of them is measured."""

    counts: Sequence[int]
    """How many images follow each other, in parts of which none shares a batch with the next."""
    batch: int
    """Images of a batch."""
    part: Callable[[int, int], Mapping[str, Tensor]]
    """The numbers of the images from one place to another, each tensor of shape [n, ...]."""
    images: Mapping[str, Any]
    """Of which images: what the manifest says of them."""


class Shard(NamedTuple):
    """Images whose numbers are in one file."""

    of: str
    """Which of the images of a command, by its name for them."""
    start: int
    """The place of the first."""
    stop: int
    """The place behind the last."""
    file: str
    """Name of the file."""


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards.

    Attributes:
        path: The folder.
        manifest: What its shards are of: `command`, `settings`, `model`, `versions`, `images` and
            `shards`.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def begin(cls, path: Path, manifest: Mapping[str, Any]) -> Self:
        """Make a folder of shards, or take up one that was begun for the same.

        Raises:
            ConfigError: it was begun for something else.
            CorruptDataError: its manifest is damaged.
            OutputError: the folder holds something else, or cannot be written.
        """
        if not (path / MANIFEST).exists():
            make_empty_folder(path)
            write_text(path / MANIFEST, json.dumps(sealed(manifest), indent=2) + "\n")
        found = cls.open(path)
        found.check(manifest)
        return found

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a folder of shards.

        Raises:
            CorruptDataError: its manifest is damaged.
            OutputError: there is none.
        """
        place = path / MANIFEST
        try:
            content = json.loads(place.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise OutputError(
                f"{path} is no folder of shards ({MANIFEST} is not there); give the one that was "
                "named by `shards`"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise CorruptDataError(f"{place} cannot be read: {in_a_line(error)}") from error
        if not isinstance(content, dict) or not is_sealed(content):
            raise CorruptDataError(
                f"{place} is not what was written (its checksum differs): it is damaged or was "
                "edited; begin again in a new folder"
            )
        if content.get("format") != FORMAT:
            raise CorruptDataError(
                f"{place} was written by another version of convvae; upgrade convvae"
            )
        return cls(path, content)

    def check(self, wanted: Mapping[str, Any]) -> None:
        """Check that the shards are of what is wanted.

        Raises:
            ConfigError: they are of something else.
        """
        # Compared as they are read: tuples are lists there.
        plain = json.loads(json.dumps(wanted))
        found, other = (dict(flat(content)) for content in (self.manifest, plain))
        for name in (*found, *other):
            if found.get(name) != other.get(name):
                raise ConfigError(
                    f"{self.path} holds shards of something else: {name} is {found.get(name)} "
                    f"there and {other.get(name)} here; name a new folder with `shards`"
                )

    @cached_property
    def shards(self) -> list[Shard]:
        """All of them, those that are there and those that are not."""
        return [Shard(*shard) for shard in self.manifest["shards"]]

    @cached_property
    def key(self) -> str:
        """A digest of the manifest."""
        text = json.dumps(self.manifest, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def files(self) -> list[Path]:
        """The manifest and the files of all shards."""
        return [self.path / MANIFEST, *(self.path / shard.file for shard in self.shards)]

    def missing(self) -> list[Shard]:
        """The shards that have no file."""
        return [shard for shard in self.shards if not (self.path / shard.file).exists()]

    def read(self, shard: Shard) -> dict[str, Tensor]:
        """The numbers of a shard.

        Raises:
            CorruptDataError: its file is not there, is damaged, or belongs to another manifest.
        """
        path = self.path / shard.file
        try:
            tensors, header = load_tensors(path)
        except ModelFileError as error:
            reason = str(error).partition(";")[0]
        else:
            if header == self._header(shard):
                return tensors
            reason = f"{path} is not a shard of this {MANIFEST}"
        raise CorruptDataError(f"{reason}; run the command with `shards` again, which mends it")

    def write(self, shard: Shard, numbers: Mapping[str, Tensor]) -> None:
        """Write the numbers of a shard, whole or not at all.

        Raises:
            OutputError: they cannot be written.
        """
        save_tensors(self.path / shard.file, numbers, self._header(shard))

    def fill(
        self,
        measures: Mapping[str, Measure],
        *,
        place: int = 0,
        places: int = 1,
        progress: Callable[[int], None] = lambda _: None,
        note: Callable[[str], None] = lambda _: None,
    ) -> int:
        """Measure the shards that are not there, or are damaged.

        Args:
            measures: How, by the names of the images.
            place: Which of several processes this is; it does every `places`-th shard.
            places: How many there are.
            progress: Called with the number of images done, or found, since the last call.
            note: Told of damaged shards.

        Returns:
            How many this process measured.

        Raises:
            OutputError: one cannot be written.
        """
        done = 0
        for shard in self.shards[place::places]:
            if not self._is_there(shard, note):
                self.write(shard, measures[shard.of].part(shard.start, shard.stop))
                done += 1
            progress(shard.stop - shard.start)
        return done

    def numbers(self, of: str) -> Iterator[dict[str, Tensor]]:
        """The numbers of images, shard by shard.

        Args:
            of: Which of the images of the command.

        Raises:
            CorruptDataError: a shard is damaged.
        """
        return (self.read(shard) for shard in self.shards if shard.of == of)

    def all_numbers(self, of: str) -> dict[str, Tensor]:
        """The numbers of images, of all shards together.

        Raises:
            CorruptDataError: a shard is damaged.
        """
        parts = [part for part in self.numbers(of) if part]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def check_whole(self) -> None:
        """Check that every shard has a file.

        Raises:
            ConfigError: some have not.
        """
        if missing := self.missing():
            raise ConfigError(
                f"{len(missing):,} of {len(self.shards):,} shards are not in {self.path} yet "
                f"(the first is {missing[0].file}); run the command with `shards` again, which "
                "makes those that are missing"
            )

    def _is_there(self, shard: Shard, note: Callable[[str], None]) -> bool:
        """Whether the file of a shard is there and whole."""
        if not (self.path / shard.file).exists():
            return False
        try:
            self.read(shard)
        except CorruptDataError as error:
            note(f"note: {str(error).partition(';')[0]}; it is made anew")
            return False
        return True

    def _header(self, shard: Shard) -> dict[str, Any]:
        return {"manifest": self.key, "shard": list(shard)}


def cut(measures: Mapping[str, Measure], size: int) -> list[Shard]:
    """The shards of some images: whole batches, at most `size` images, one batch at the least."""
    return [
        Shard(name, start, stop, f"{name}-{number:06}.safetensors")
        for name, measure in measures.items()
        for number, (start, stop) in enumerate(_places(measure, size))
    ]


def _places(measure: Measure, size: int) -> Iterator[tuple[int, int]]:
    step = max(1, size // measure.batch) * measure.batch
    begin = 0
    for count in measure.counts:
        for start in range(begin, begin + count, step):
            yield start, min(start + step, begin + count)
        begin += count


def flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings, such as `images.count`, and their values."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield above + name, value
