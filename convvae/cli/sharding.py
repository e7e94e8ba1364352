"""Commands whose numbers of images are measured in shards, by one process or by several."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from convvae.cli.common import DataOptions, OutputOptions
from convvae.config import UserPath
from convvae.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from convvae.data import Images
    from convvae.evaluation.shards import Measure, ShardFolder


class ShardedOptions(DataOptions, OutputOptions):
    """The options of a command that measures images in shards if it is asked to."""

    shards: UserPath | None = None
    """Write the numbers to shards in this folder, of which `convvae merge` makes the output."""
    shard_size: int = Field(default=10_000, ge=1)
    """Images of a shard, in whole batches: a process that is killed loses no more."""


class Task(Protocol):
    """A command with its model and its images, before anything is measured."""

    output: ClassVar[str]
    """Option of the command that names what is written."""

    @staticmethod
    def written(options: Any) -> list[Path]:  # noqa: ANN401 - those of the command
        """The files that are written, not those of shards."""
        ...

    @classmethod
    def open(cls, options: Any) -> Task:  # noqa: ANN401 - those of the command
        """Open the model and the images."""
        ...

    @property
    def measures(self) -> Mapping[str, Measure]:
        """The images that are measured, each kind under its name."""
        ...

    def finish(self, folder: ShardFolder) -> None:
        """Write the output from the shards."""
        ...


NOT_SETTINGS = {"device", "data_dir", "overwrite", "shards"}
"""Options on which no number depends, beside those that name the output."""


def of_images(source: Images) -> dict[str, Any]:
    """What a manifest says of images."""
    return {
        "name": source.name,
        "split": source.split,
        "count": len(source),
        "fingerprint": source.fingerprint,
    }


def refuse(options: ShardedOptions, taken: Collection[str]) -> None:
    """Refuse what does not go with shards.

    Args:
        options: Those of the command.
        taken: Names of the options that do not.

    Raises:
        UsageError: one of them is given.
    """
    for name in (*taken, "overwrite"):
        if name in options.model_fields_set:
            said = f"{name}=True" if name == "overwrite" else name
            raise UsageError(
                f"`{said}` does not go with `shards`, which writes the numbers of the images "
                "alone; give it to `convvae merge`, or leave it out"
            )


def check_alone(device: str) -> None:
    """Check that no other process does the same.

    Raises:
        UsageError: torchrun or SLURM started several; said by the first.
    """
    from convvae.training.distributed import joined

    with joined(device) as ranks:
        if not ranks.alone:
            raise UsageError(
                f"{ranks.count} processes would write the same output; name a folder with "
                "`shards`, to which each writes its part"
                if ranks.is_first
                else ""
            )


def manifest(command: str, settings: Mapping[str, Any], model: str, task: Task) -> dict[str, Any]:
    """What the shards of a command are of."""
    import hashlib

    from convvae.evaluation.shards import FORMAT, cut
    from convvae.model.checkpoint import find_model
    from convvae.runtime import versions

    with find_model(model).open("rb") as file:
        checksum = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    found = versions()
    return {
        "format": FORMAT,
        "command": command,
        "settings": settings,
        "model": checksum,
        "versions": {name: found[name] for name in ("convvae", "torch")},
        "images": {name: measure.images for name, measure in task.measures.items()},
        "shards": cut(task.measures, settings["shard_size"]),
    }


def settings_of(options: ShardedOptions, output: str) -> dict[str, Any]:
    """The options on which the numbers, or what is made of them, depend."""
    return options.model_dump(mode="json", exclude={*NOT_SETTINGS, output})


def fill(command: str, options: ShardedOptions, kind: type[Task]) -> None:
    """Measure the shards that are not there yet, as one of the processes that do.

    Args:
        command: Its name.
        options: Its options; `shards` is set.
        kind: What it is made of.

    Raises:
        ConfigError: the folder has shards of something else, or the processes disagree.
        ConvvaeError: as `kind.open`.
    """
    from convvae.data.progress import counting
    from convvae.evaluation.shards import ShardFolder, flat
    from convvae.runtime import versions
    from convvae.training.distributed import joined

    assert options.shards is not None
    path, settings = options.shards, settings_of(options, kind.output)

    def begin() -> tuple[Task, ShardFolder]:
        task = kind.open(options)
        return task, ShardFolder.begin(path, manifest(command, settings, options.model, task))

    with joined(options.device) as ranks:
        ranks.together(lambda: ranks.agree({**dict(flat(settings)), **versions()}))
        task, folder = ranks.one_by_one(begin)
    mine = folder.shards[ranks.rank :: ranks.count]
    count = sum(shard.stop - shard.start for shard in mine)
    with counting(command, count) if ranks.is_first else nullcontext(lambda _: None) as progress:
        made = folder.fill(
            task.measures, place=ranks.rank, places=ranks.count, progress=progress, note=print
        )
    left, total = len(folder.missing()), len(folder.shards)
    if not left:
        print(f"all {total:,} shards are in {path}; their output: convvae merge {path}")
    elif ranks.is_first:
        print(f"made {made:,} of {total:,} shards in {path}; {left:,} are still to come")
