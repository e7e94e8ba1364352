"""Any source of images written as shards: the image files as they are, not decoded.

Image i goes to shard i mod K: every shard is a sample of the whole source, and so is every few of
them, for readers that shuffle no further than that.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convvae.data.cache.worker import read_file
from convvae.data.decode import UnreadableError, quiet_pillow
from convvae.data.items import Bad, Item, Source, has_image_suffix, looked_up, numbered
from convvae.data.own.load import open_source
from convvae.data.own.shards import INDEX_FORMAT, Index, Pattern, ShardFacts
from convvae.data.sources import NAMES, check_known, stream
from convvae.errors import ConfigError, CorruptDataError, in_a_line
from convvae.files import expand, folder_in_the_making, make_folder, move_files

_LONGEST_STEM = 80
"""Characters that are kept of the name of an image."""
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
"""What a tar file ends with."""


@dataclass(frozen=True)
class Target:
    """Where shards go.

    Attributes:
        folder: Theirs.
        pattern: Their names.
    """

    folder: Path
    pattern: Pattern

    @classmethod
    def of(cls, word: str) -> Target:
        """What a word names.

        Raises:
            ConfigError: it is no range.
            UnknownDataError: it is a range of none.
        """
        pattern = Pattern.of(word)
        if pattern is None:
            raise ConfigError(
                f"{word!r} names no shards: write a range, as in 'train-{{000000..000031}}.tar' "
                "(in quotation marks: a shell has a meaning for braces of its own)"
            )
        return cls(expand(Path(pattern.place or ".")), pattern)

    @property
    def paths(self) -> list[Path]:
        """The files: the shards, and last the index."""
        return [self.folder / name for name in (*self.pattern.names, self.pattern.index)]


class Published:
    """A published set as a source; the part of an image is its split.

    Args:
        name: One of `NAMES`.
        data_dir: A folder that holds its files.
    """

    by_path = False

    def __init__(self, name: str, data_dir: Path | None) -> None:
        self.images = stream(name, "all", data_dir=data_dir)

    def items(self) -> Iterator[Item]:
        """The images as arrays, the test images first."""
        labels, classes = self.images.labels, self.images.classes
        number = 0
        for split, batch in self.images.batches(1000):
            for pixels in batch.permute(0, 2, 3, 1).numpy():
                label = None if labels is None else int(labels[number])
                word = label if label is None or classes is None else classes[label]
                yield Item(str(number), pixels, word, split)
                number += 1


def source_of(word: str, data_dir: Path | None) -> Source | Published:
    """What a word names, as something that can be gone through twice.

    Raises:
        ConvvaeError: it names nothing that can be read.
    """
    check_known(word)
    return Published(word, data_dir) if word in NAMES else open_source(word)


def write_shards(source: Source | Published, target: Target, *, skip_bad: bool) -> Index:
    """Write the images of a source as shards, with their index; nothing, or all of it.

    Args:
        source: The images; gone through twice, for the labels and for the files.
        target: Where to; what is there is replaced.
        skip_bad: Leave out files that cannot be read.

    Returns:
        The index as it was written.

    Raises:
        CorruptDataError: a file cannot be read, and `skip_bad` is not set.
        ConfigError: there are more shards than images.
        OutputError: they cannot be written.
        ConvvaeError: as the source.
    """
    plain = [item._replace(payload=b"") for item in source.items()]
    named = numbered(
        looked_up(
            [item.name for item in plain],
            [item.label for item in plain],
            [item.part for item in plain],
            by_path=source.by_path,
        )[0]
    )
    labels, classes = named or (None, None)
    _check_enough(len(plain), target)
    make_folder(target.folder)
    with folder_in_the_making(target.folder) as folder:
        shards = [_Writer(folder / name) for name in target.pattern.names]
        written = 0
        for number, item in enumerate(source.items()):
            content = _content(item)
            suffix = None if isinstance(content, Bad) else _suffix(item, content)
            if isinstance(content, Bad) or suffix is None:
                reason = content.reason if isinstance(content, Bad) else "no known kind of image"
                if not skip_bad:
                    raise CorruptDataError(
                        f"{in_a_line(item.name)} cannot be read ({in_a_line(reason)}); mend or "
                        "remove it, or leave such files out with `skip_bad=True`"
                    )
                continue
            label = None if labels is None else int(labels[number])
            shards[written % len(shards)].add(_key(number, item), suffix, content, label)
            written += 1
        _check_enough(written, target)
        facts = tuple(shard.close() for shard in shards)
        index = Index(format=INDEX_FORMAT, classes=classes, shards=facts)
        (folder / target.pattern.index).write_text(index.model_dump_json(indent=1) + "\n")
        move_files(folder, target.paths)
    return index


def _check_enough(images: int, target: Target) -> None:
    """Check that every shard gets an image.

    Raises:
        ConfigError: one would be empty.
    """
    count = len(target.pattern.names)
    if images < count:
        raise ConfigError(f"{images:,} images are too few for {count:,} shards; name fewer shards")


class _Writer:
    """A shard that grows; its file is open only while something is added, since they are many."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = hashlib.sha256()
        self.size = self.images = 0

    def add(self, key: str, suffix: str, image: bytes, label: int | None) -> None:
        """Add a sample: its label, if it has one, and its image."""
        content = b"" if label is None else _member(f"{key}.cls", str(label).encode())
        self._write(content + _member(f"{key}{suffix}", image))
        self.images += 1

    def close(self) -> ShardFacts:
        """Write the end; what the index says of it."""
        self._write(_END)
        return ShardFacts(
            name=self.path.name,
            bytes=self.size,
            images=self.images,
            sha256=self.digest.hexdigest(),
        )

    def _write(self, content: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(content)
        self.digest.update(content)
        self.size += len(content)


def _member(name: str, content: bytes) -> bytes:
    """A file of a tar archive, the same whenever and by whomever it is written."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + content + bytes(-len(content) % _BLOCK)


def _content(item: Item) -> bytes | Bad:
    """The file of an image; of pixels, a PNG."""
    try:
        match item.payload:
            case str() as path:
                return read_file(path)
            case np.ndarray() as pixels:
                return _png(pixels)
            case content:
                return content
    except UnreadableError as error:
        return Bad(str(error))


def _png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, C] without loss."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def _key(number: int, item: Item) -> str:
    """Folders, number and name of an image, in letters and digits: no dot, and no other's key.

    The folders stay as they are, as far as they are plain, since they may be classes and parts.
    """
    *folders, base = item.name.replace("\\", "/").split("/")
    if item.part is not None and item.part not in folders[:1]:
        folders.insert(0, item.part)
    stem = base.rpartition(".")[0] if has_image_suffix(base) else base
    stem = re.sub(r"[^\w-]+", "_", stem)[:_LONGEST_STEM]
    last = f"{number:08}" if stem.lstrip("0") in (str(number), "") else f"{number:08}-{stem}"
    plain = (re.sub(r"[^\w .-]+", "_", folder).lstrip(".") for folder in folders)
    return "/".join([*filter(None, plain), last])


def _suffix(item: Item, content: bytes) -> str | None:
    """The ending of an image's file; None if it has none, and its content does not say which."""
    if isinstance(item.payload, np.ndarray):
        return ".png"
    if has_image_suffix(item.name):
        return "." + item.name.rpartition(".")[2].lower()
    with suppress(OSError), quiet_pillow(), Image.open(io.BytesIO(content)) as image:
        if image.format is not None and has_image_suffix(f"x.{image.format}"):
            return f".{image.format.lower()}"
    return None
