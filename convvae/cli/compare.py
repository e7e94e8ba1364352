"""`convvae compare`: training runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from convvae.cli.common import (
    LookOptions,
    OutputOptions,
    check_outputs,
    load_test_images,
    meant,
    open_images,
)
from convvae.cli.flags import as_flags, parse
from convvae.cli.options import Switch
from convvae.config import DeviceName, Flag, UserPath
from convvae.errors import UsageError, printable
from convvae.files import make_folder, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from convvae.data import ImageSet
    from convvae.evaluation.runs import Measured, Run


class CompareOptions(OutputOptions):
    """Put training runs side by side: settings that differ, bounds, errors, speed, time."""

    runs: Annotated[tuple[str, ...], Flag(positional=True)]
    """Two run folders or more; those that differ by their seed alone are taken together."""
    data: str | None = None
    """Test images for all of them (else those of the training, which must be the same)."""
    data_dir: UserPath | None = None
    """Folder with the files of a published data set (else $CONVVAE_DATA, else downloaded)."""
    crop: bool | None = None
    """Cut images to the model's aspect at the centre, or pad them (else as in training)."""
    split: str | None = None
    """How one's own are divided: auto, folders, a share held out, none (else as in training)."""
    skip_bad: Switch = False
    """Leave out files that cannot be read."""
    limit: int = Field(default=10_000, ge=1)
    """Take at most so many test images, drawn by the seed."""
    samples: int = Field(default=0, ge=0, le=1_000_000)
    """Draws K of z per image for the importance-weighted bound; 0 leaves it out."""
    quality: int = Field(default=0, ge=0, le=1_000_000)
    """Samples to draw and compare with the images as sets; 0 leaves it out."""
    features: Literal["mnist", "inception"] = "mnist"
    """Feature space of that comparison: of a small digit classifier, or Inception's."""
    seed: int = Field(default=0, ge=0)
    """Seed of all that is drawn: z, samples, and the images of --limit."""
    device: DeviceName = "auto"
    """Where to compute (--cpu is short for --device cpu)."""
    out: UserPath = Path("comparison")
    """Folder for comparison.csv and comparison.png."""


def compare(args: list[str]) -> None:
    """Put training runs side by side, several seeds of one recipe as a mean and spread."""
    options = parse(CompareOptions, args, "convvae compare")
    from convvae.evaluation import runs
    from convvae.figures import compared, save_figure

    runs.check_runs(options.runs)
    opened = [runs.open_run(name, print) for name in options.runs]
    looks = [_look(options, name) for name in options.runs]
    words = [meant(look, run.metadata) for look, run in zip(looks, opened, strict=True)]
    if len(set(words)) > 1:
        said = ", ".join(
            f"{name} of {word}" for name, word in zip(options.runs, words, strict=True)
        )
        raise UsageError(
            f"the runs are of different data: {said}; name images for all of them with `data`"
        )
    paths = [options.out / "comparison.csv", options.out / "comparison.png"]
    for name in options.runs:
        check_outputs(options, paths, "out", model=name, data=words[0])
    make_folder(options.out)  # a place that cannot be written to is said before the work
    found = runs.compare([*_measured(options, opened, looks)])
    write_text(paths[0], found.csv())
    save_figure(paths[1], compared(found))
    print("\n".join(printable(as_flags(line)) for line in found.lines()))
    print(f"wrote {paths[0].name} and {paths[1].name} in {options.out}")


def _look(options: CompareOptions, name: str) -> LookOptions:
    """The options by which a command looks at one of the runs."""
    shared = options.model_dump(include=set(LookOptions.model_fields))
    return LookOptions.checked({**shared, "model": name}, "convvae compare")


def _measured(
    options: CompareOptions, opened: Sequence[Run], looks: Sequence[LookOptions]
) -> Iterator[Measured]:
    """Each run on the test images.

    Raises:
        UsageError: the test images of two runs are not the same.
    """
    from convvae.evaluation.runs import Wanted, measure_run
    from convvae.runtime import pick_device

    first: tuple[object, ...] = ()
    wanted = Wanted(options.seed, options.samples, options.quality, options.features)
    for run, look in zip(opened, looks, strict=True):
        run.vae.to(pick_device(options.device))
        images = load_test_images(look, run.metadata)
        first = first or _which(images)
        if _which(images) != first:
            raise UsageError(
                f"{run.name} holds out other images of {images.name} than {opened[0].name}; choose "
                "the same for all with `split`"
            )
        print(
            f"measuring {run.name} on {len(images):,} test images of {images.name} ...", flush=True
        )
        grey = images.images
        if options.quality and run.metadata.binarize != "none":
            whole = open_images(look, run.metadata, "test")
            grey = whole.some(options.limit, options.seed).images
        yield measure_run(run, images, grey, wanted)


def _which(images: ImageSet) -> tuple[object, ...]:
    """What tells images from others, whatever was made of them."""
    names, labels = images.names, images.labels
    return (
        len(images),
        None if names is None else list(names),
        None if labels is None else labels.tolist(),
    )
