"""`convvae merge`: the output of a command from its shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from convvae.cli.anomalies import AnomaliesOptions, AnomaliesTask
from convvae.cli.common import OutputOptions
from convvae.cli.encode import EncodeOptions, EncodeTask
from convvae.cli.evaluate import EvaluateOptions, EvaluateTask
from convvae.cli.flags import parse
from convvae.cli.sharding import ShardedOptions, Task, manifest, settings_of
from convvae.config import DeviceName, Flag, UserPath
from convvae.errors import CorruptDataError
from convvae.files import check_free

if TYPE_CHECKING:
    from convvae.evaluation.shards import ShardFolder


class MergeOptions(OutputOptions):
    """Make the output of `encode`, `anomalies` or `evaluate` of its shards."""

    folder: Annotated[UserPath, Flag(positional=True)]
    """Folder of shards."""
    out: UserPath | None = None
    """File to write; of anomalies the folder (else `anomalies`), of evaluate the JSON file."""
    data_dir: UserPath | None = None
    """Folder with the files of a published data set (else $CONVVAE_DATA, else downloaded)."""
    device: DeviceName = "auto"
    """Where to compute what is drawn and remarked (--cpu is short for --device cpu)."""


SHARDED: dict[str, tuple[type[ShardedOptions], type[Task]]] = {
    "encode": (EncodeOptions, EncodeTask),
    "anomalies": (AnomaliesOptions, AnomaliesTask),
    "evaluate": (EvaluateOptions, EvaluateTask),
}
"""The commands that measure in shards, by their names."""


def merge(args: list[str]) -> None:
    """Make the output of encode, anomalies or evaluate of its shards."""
    options = parse(MergeOptions, args, "convvae merge")
    from convvae.evaluation.shards import ShardFolder

    folder = ShardFolder.open(options.folder)
    folder.check_whole()
    task = _task(options, folder)
    task.finish(folder)


def _task(options: MergeOptions, folder: ShardFolder) -> Task:
    """The command of the shards, with its model and its images.

    Raises:
        ConfigError: the model or the images are not those of the shards.
        ConvvaeError: as the command.
    """
    name = folder.manifest["command"]
    if name not in SHARDED:
        raise CorruptDataError(
            f"{folder.path} has shards of a command {name!r}, which this version of convvae has "
            "not; upgrade convvae"
        )
    kind, task_kind = SHARDED[name]
    settings, output = folder.manifest["settings"], task_kind.output
    given: Mapping[str, Any] = {"data_dir": options.data_dir, "device": options.device}
    given = {**given, "shards": options.folder, "overwrite": options.overwrite}
    if options.out is not None or output == "outdir":
        given = {**given, output: options.out or Path("anomalies")}
    theirs = kind.checked({**settings, **given}, f"the manifest of {folder.path}")
    check_free(task_kind.written(theirs), "out", overwrite=options.overwrite, inputs=folder.files())
    task = task_kind.open(theirs)
    again = manifest(name, settings_of(theirs, output), theirs.model, task)
    # What is made of the numbers does not depend on the version that measured them.
    folder.check({**again, "versions": folder.manifest["versions"]})
    return task
