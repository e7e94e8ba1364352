"""`convvae shard`: images as many tar files, for a training that fetches them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from convvae.cli.common import OutputOptions
from convvae.cli.flags import parse
from convvae.cli.options import Switch
from convvae.config import Flag, UserPath
from convvae.files import check_free


class ShardOptions(OutputOptions):
    """Write images as shards in WebDataset's layout, with an index beside them."""

    data: Annotated[str, Flag(positional=True)]
    """Images: a name such as mnist, a folder, archive, array or table, or hf:OWNER/NAME."""
    out: str
    """Shards to write, as a range: 'train-{000000..000031}.tar'."""
    data_dir: UserPath | None = None
    """Folder with the files of a published data set (else $CONVVAE_DATA, else downloaded)."""
    skip_bad: Switch = False
    """Leave out files that cannot be read."""


def shard(args: list[str]) -> None:
    """Write images as shards, tar files for WebDataset and for training, with an index."""
    options = parse(ShardOptions, args, "convvae shard")
    from convvae.data import file_of
    from convvae.data.own.shards import Shards
    from convvae.data.sharding import Target, source_of, write_shards

    target = Target.of(options.out)
    source = source_of(options.data, options.data_dir)
    place = file_of(options.data)
    read: list[Path] = source.paths() if isinstance(source, Shards) else []
    read += [] if place is None else [place]
    check_free(target.paths, "out", overwrite=options.overwrite, inputs=read)
    index = write_shards(source, target, skip_bad=options.skip_bad)
    size = sum(facts.bytes for facts in index.shards) / 1e6
    print(
        f"wrote {index.images:,} images in {len(index.shards):,} shards, {size:,.1f} MB, and "
        f"{target.paths[-1]}"
    )
