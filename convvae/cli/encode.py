"""`convvae encode`: the numbers of every single image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from convvae.cli import sharding
from convvae.cli.common import (
    ImagesOptions,
    binarize_seed,
    check_outputs,
    meant,
    open_model,
)
from convvae.cli.flags import parse
from convvae.config import ModelConfig, UserPath
from convvae.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from convvae.data import Stream
    from convvae.evaluation.encode import Encodings
    from convvae.evaluation.shards import Measure, ShardFolder
    from convvae.model.vae import VAE


class EncodeOptions(ImagesOptions, sharding.ShardedOptions):
    """Write the latents, bound, KL and error of every image to a file."""

    out: UserPath | None = None
    """File to write: .npz, .parquet, or .npy of the codes mu alone."""


def encode(args: list[str]) -> None:
    """Write the latents, bound, KL and error of every image to a file."""
    options = parse(EncodeOptions, args, "convvae encode")
    if options.shards is not None:
        sharding.refuse(options, ("out",))
        sharding.fill("encode", options, EncodeTask)
        return
    sharding.check_alone(options.device)
    EncodeTask.open(options).write()


@dataclass(frozen=True)
class EncodeTask:
    """A model, and the images that it encodes."""

    output: ClassVar[str] = "out"
    """Option that names what is written."""

    options: EncodeOptions
    vae: VAE
    source: Stream
    drawn_by: int | None
    """Seed of black or white pixels."""

    @staticmethod
    def written(options: EncodeOptions) -> list[Path]:
        """The file, if one is named."""
        return [] if options.out is None else [options.out]

    @classmethod
    def open(cls, options: EncodeOptions) -> EncodeTask:
        """Open the model and the images.

        Raises:
            UsageError: no output is named.
            ConvvaeError: they cannot be had, or the output is in the way.
        """
        vae, metadata = open_model(options)
        from convvae.evaluation import encoding_files
        from convvae.model.conditions import given_labels_of

        if options.out is not None:
            encoding_files.check(options.out)
            word = meant(options, metadata)
            check_outputs(options, cls.written(options), "out", model=options.model, data=word)
        elif options.shards is None:
            raise UsageError("name a file with `out`, or a folder with `shards`")
        source = options.images(metadata)
        if options.limit is not None:
            source = source.first(options.limit)
        return cls(options, given_labels_of(vae, source), source, binarize_seed(metadata))

    @property
    def measures(self) -> Mapping[str, Measure]:
        """How the images are measured in shards."""
        from convvae.evaluation.encode import Encodings, batch_size
        from convvae.evaluation.shards import Measure

        def part(start: int, stop: int) -> dict[str, Tensor]:
            return Encodings.cat(list(self._encodings(start, stop)))._asdict()

        known = sharding.of_images(self.source)
        return {"images": Measure(self.source.counts, batch_size(self.vae), part, known)}

    def write(self) -> None:
        """Encode the images in one go, and write the file."""
        from convvae.data.progress import counting
        from convvae.evaluation.encode import stream_posterior_means
        from convvae.evaluation.encoding_files import MEANS_ALONE

        assert self.options.out is not None
        with counting("encoding", len(self.source)) as progress:
            if self.options.out.suffix == MEANS_ALONE:
                drawn_by, source = self.drawn_by, self.source
                self._write_means(
                    stream_posterior_means(
                        self.vae, source, binarize_seed=drawn_by, progress=progress
                    )
                )
            else:
                self._write_all(self._encodings(progress=progress))

    def finish(self, folder: ShardFolder) -> None:
        """Write the file from the shards."""
        from convvae.evaluation.encode import Encodings, batch_size
        from convvae.evaluation.encoding_files import MEANS_ALONE

        out = self.options.out
        if out is None:
            raise UsageError("name a file to write with `out`")
        shards = folder.numbers("images")
        if out.suffix == MEANS_ALONE:
            self._write_means(numbers["mu"] for numbers in shards)
            return
        batch = batch_size(self.vae)
        # A batch at a time, so that the groups of rows of a Parquet file are those of one go.
        split = (
            zip(*(numbers[name].split(batch) for name in Encodings._fields), strict=True)
            for numbers in shards
        )
        self._write_all(Encodings(*columns) for part in split for columns in part)

    def _encodings(
        self,
        start: int = 0,
        stop: int | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Encodings]:
        from convvae.evaluation.encode import stream_encodings

        return stream_encodings(
            self.vae,
            self.source,
            seed=self.options.seed,
            binarize_seed=self.drawn_by,
            start=start,
            stop=stop,
            progress=progress,
        )

    def _write_means(self, parts: Iterator[Tensor]) -> None:
        from convvae.evaluation.encoding_files import write_means

        write_means(self._out, (len(self.source), self.vae.config.outline), parts)
        self._say()

    def _write_all(self, parts: Iterator[Encodings]) -> None:
        from convvae.evaluation.encoding_files import write

        protocol: dict[str, Any] = {
            "model": self.options.model,
            "data": self._title,
            "images": len(self.source),
            "binarize_seed": self.drawn_by,
            "seed": self.options.seed,
            "mu": f"{self.vae.config.location} of q(z|x){_share(self.vae.config)}",
        }
        write(self._out, self.source, self.vae.config.outline, protocol, parts)
        self._say()

    @property
    def _out(self) -> Path:
        assert self.options.out is not None
        return self.options.out

    @property
    def _title(self) -> str:
        return f"{self.source.name} ({self.source.split})"

    def _say(self) -> None:
        print(f"wrote {self._out}: {len(self.source)} images of {self._title}")


def _share(model: ModelConfig) -> str:
    """Which of a ladder's latents stand for an image; nothing where all do."""
    if model.outline == model.latent_dims:
        return ""
    return f", the first {model.outline:,} of {model.latent_dims:,} latents"
