"""Shards: a set of images in many tar files, as WebDataset lays them out, with an index.

A sample is an image and its label, two members that follow each other and differ in what comes
after the first dot: `00000042.cls` (a whole number) and `00000042.jpg`. Members of other kinds are
skipped, not read. `train-{000000..000031}.tar` names 32 shards; beside them `train-index.json`
says of each its bytes, its number of images and its SHA-256, so that a shard that is missing, cut
or another one is found before anything is learnt from it.

Shards are decoded once, into the cache of all images of one's own: their order in training is the
one that the seed gives any images, whatever the shards and however many processes. Those of an
address are downloaded into the cache before, one after the other.

Source: WebDataset, https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, ValidationError

from convvae.config import Frozen, describe
from convvae.data.cache.worker import digest
from convvae.data.items import Bad, Item, changed, is_image_name
from convvae.data.own.archives import Tar, passed_over
from convvae.data.published.download import cache_folder, fetch_large, fetch_small
from convvae.errors import ChecksumError, CorruptDataError, UnknownDataError, in_a_line
from convvae.files import expand, is_there, open_regular

INDEX = "index.json"
"""What the names of indices end with."""
INDEX_FORMAT = "convvae shards 1"
MOST_SHARDS = 1_000_000
MOST_SHARD_BYTES = 1 << 36
_MOST_INDEX_BYTES = 1 << 28
_MOST_LABEL_BYTES = 1 << 10
_LABEL = ".cls"
_NUMBER = re.compile(rb"-?[0-9]{1,18}")
_PATTERN = re.compile(r"([^{}]*)\{([0-9]+)\.\.([0-9]+)\}([^{}/]*)")


class ShardFacts(Frozen):
    """What an index says of a shard."""

    name: Annotated[str, StringConstraints(pattern=r"^[^/\\:?#%\x00-\x1f]*[^/\\:?#%\x00-\x1f.]$")]
    """Of its file, beside the index."""
    bytes: int = Field(ge=1, le=MOST_SHARD_BYTES)
    images: int = Field(ge=1)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Index(Frozen):
    """The file beside the shards of a set."""

    format: Literal["convvae shards 1"]
    classes: tuple[str, ...] | None = None
    """What the labels 0, 1, ... are called; None where they are numbers, or there are none."""
    shards: tuple[ShardFacts, ...] = Field(min_length=1, max_length=MOST_SHARDS)

    @property
    def images(self) -> int:
        """Of all shards."""
        return sum(shard.images for shard in self.shards)


@dataclass(frozen=True)
class Pattern:
    """`FOLDER/train-{000000..000031}.tar`, taken apart.

    Attributes:
        place: The folder, or the address up to the last slash and with it.
        names: Of the shards.
        index: Name of the index.
    """

    place: str
    names: tuple[str, ...]
    index: str

    @classmethod
    def of(cls, word: str) -> Pattern | None:
        """What a word with one range in braces names; None for other words.

        Raises:
            UnknownDataError: it is a range of none, or of too many.

        Examples:
            >>> Pattern.of("a/b-{08..10}.tar")
            Pattern(place='a/', names=('b-08.tar', 'b-09.tar', 'b-10.tar'), index='b-index.json')
        """
        found = _PATTERN.fullmatch(word)
        if found is None:
            return None
        before, first, last, after = found.groups()
        count = int(last) - int(first) + 1
        if not 1 <= count <= MOST_SHARDS:
            raise UnknownDataError(
                f"{word} names {max(count, 0):,} shards; write the numbers of the first and of the "
                f"last, at most {MOST_SHARDS:,}, as in train-{{000000..000031}}.tar"
            )
        slash = before.rfind("/") + 1
        place, stem = before[:slash], before[slash:]
        numbers = (f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1))
        names = tuple(f"{stem}{number}{after}" for number in numbers)
        beside = stem.rstrip("-_.")
        return cls(place, names, f"{beside}-{INDEX}" if beside else INDEX)


def is_address(word: str) -> bool:
    """Whether a word is an address of the web."""
    return urlsplit(word).scheme in ("http", "https") if "://" in word else False


def names_shards(word: str) -> bool:
    """Whether a word names shards: an address, a range in braces, an index, or a folder of one."""
    if is_address(word):
        return True
    path = expand(Path(word))
    if not is_there(path):
        return _PATTERN.fullmatch(word) is not None
    return bool(_indices(path)) if path.is_dir() else path.is_file() and _is_index(path)


def _indices(folder: Path) -> list[Path]:
    """The indices at the top of a folder."""
    return sorted(filter(_is_index, folder.glob(f"*{INDEX}")))


def _is_index(path: Path) -> bool:
    """Whether a file begins as an index does."""
    try:
        with open_regular(path) as file:
            return f'"{INDEX_FORMAT.rpartition(" ")[0]} '.encode() in file.read(100)
    except OSError:
        return False


def open_shards(word: str) -> Shards:
    """The shards that a word names.

    Raises:
        UnknownDataError: an index or a shard is missing, or there are several indices.
        CorruptDataError: the index is none.
        ChecksumError: a shard has another size than its index says.
        DownloadError: the index could not be fetched.
    """
    pattern = Pattern.of(word)
    if is_address(word):
        url = word if pattern is None else pattern.place + pattern.index
        if not urlsplit(url).path.endswith(".json"):
            raise UnknownDataError(
                f"{word} names no shards; write the address of their index, or a range as in "
                "https://example.org/train-{000000..000031}.tar"
            )
        content = fetch_small(url, _MOST_INDEX_BYTES)
        found = Shards(url, read_index(content, url), digest(content))
    elif pattern is not None and not is_there(expand(Path(word))):
        found = _beside(expand(Path(pattern.place or ".")) / pattern.index)
    else:
        path = expand(Path(word))
        found = _beside(_only(path) if path.is_dir() else path)
    if pattern is not None and pattern.names != tuple(f.name for f in found.index.shards):
        raise ChecksumError(
            f"{word} names {len(pattern.names):,} shards, and {found.title} lists others, "
            f"{len(found.index.shards):,} of them from {found.index.shards[0].name}; name the "
            "index instead, or the range that it lists"
        )
    return found


def _only(folder: Path) -> Path:
    """The index of a folder.

    Raises:
        UnknownDataError: it has several.
    """
    found = _indices(folder)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UnknownDataError(f"{folder} holds several sets of shards ({names}); name one of them")
    return found[0]


def _beside(path: Path) -> Shards:
    """The shards beside an index."""
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_INDEX_BYTES)
    except OSError as error:
        raise UnknownDataError(
            f"cannot read {path}, the index of these shards ({error.strerror}); `convvae shard` "
            "writes it beside them"
        ) from error
    return Shards(path, read_index(content, path), digest(content))


def read_index(content: bytes, where: object) -> Index:
    """An index from its file's content.

    Args:
        content: The content.
        where: What a message calls the file.

    Raises:
        CorruptDataError: it is no index, or lists a shard twice.
    """
    try:
        index = Index.model_validate_json(content)
    except ValidationError as error:
        raise CorruptDataError(
            f"{where} is no index of shards ({in_a_line(describe(error))}); `convvae shard` writes "
            "one"
        ) from error
    names = [shard.name for shard in index.shards]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CorruptDataError(f"{where} lists {twice} twice; make the shards anew")
    return index


class Shards:
    """The images of all shards of an index, shard by shard.

    Args:
        place: The index, a file or an address; the shards lie beside it.
        index: Its content.
        known_by: A digest of it.

    Raises:
        UnknownDataError: a shard on this disk is missing.
        ChecksumError: one has another size than the index says.
    """

    by_path = True

    def __init__(self, place: Path | str, index: Index, known_by: str) -> None:
        self.place = place
        self.title = str(place).rpartition("/")[2]
        self.index = index
        self.known_by = known_by
        self.remarks: tuple[str, ...] = ()
        self.states = [] if isinstance(place, str) else [self._state(f) for f in index.shards]
        self.checked: set[Path] = set()

    def paths(self) -> list[Path]:
        """The files of this disk that are read, but for downloads."""
        if isinstance(self.place, str):
            return []
        return [self.place, *(self.place.parent / facts.name for facts in self.index.shards)]

    def _state(self, facts: ShardFacts) -> tuple[int, int, int]:
        """Size and times of a shard on this disk."""
        assert isinstance(self.place, Path)
        path = self.place.parent / facts.name
        try:
            state = changed(path)
        except OSError as error:
            raise UnknownDataError(
                f"the shard {path} cannot be read ({error.strerror}), and {self.place.name} lists "
                "it; put it there, or make the shards anew"
            ) from error
        if state[0] != facts.bytes:
            raise ChecksumError(
                f"the shard {path} has {state[0]:,} bytes, and {self.place.name} says "
                f"{facts.bytes:,}; fetch it again, or make the shards anew"
            )
        return state

    def stamp(self) -> str:
        """The index, and sizes and times of the shards on this disk."""
        where = self.place if isinstance(self.place, str) else self.place.resolve()
        said = f"{where} {self.known_by} {self.states}"
        return digest(said.encode(errors="surrogateescape"))

    def outline(self) -> str:
        """Names, sizes and digests of the shards."""
        return digest(f"Shards {self.index.classes} {self.index.shards}".encode())

    def newest(self) -> float:
        """When the last shard was changed; long ago where the index has them by digest."""
        return max((changed_ns for _, _, changed_ns in self.states), default=0) / 1e9

    def count(self) -> int:
        """Images, as the index says."""
        return self.index.images

    def items(self) -> Iterator[Item]:
        """The images, each shard looked at as a whole before.

        Raises:
            ChecksumError: a shard is not the one that the index describes.
            CorruptDataError: it is damaged, or has another number of images.
            DownloadError, OutputError: it could not be fetched, or not be kept.
        """
        others = 0
        for facts in self.index.shards:
            shard = Shard(self._whole(facts), self.index.classes)
            found = 0
            for found, item in enumerate(shard.items(), 1):  # noqa: B007 - the last is the number
                yield item
            others += shard.others
            if found != facts.images:
                raise CorruptDataError(
                    f"{facts.name} holds {found:,} images, and {self.title} says "
                    f"{facts.images:,}; make the shards anew"
                )
        self.remarks = passed_over(others)

    def _whole(self, facts: ShardFacts) -> Path:
        """The file of a shard, downloaded if it must be, with the content that the index says."""
        if isinstance(self.place, Path):
            path = self.place.parent / facts.name
            if path not in self.checked and _sha256(path) != facts.sha256:
                raise ChecksumError(
                    f"{path} is not the shard that {self.title} describes (its sha256 is another); "
                    "fetch it again, or make the shards anew"
                )
        else:
            path = cache_folder() / "shards" / f"{facts.sha256}.tar"
            if path not in self.checked and not (path.is_file() and _sha256(path) == facts.sha256):
                url = f"{self.place.rpartition('/')[0]}/{facts.name}"
                fetch_large(url, path, facts.bytes, facts.sha256)
        self.checked.add(path)
        return path


def _sha256(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnknownDataError(f"cannot read the shard {path} ({error.strerror})") from error


class Shard(Tar):
    """A tar file of WebDataset's layout.

    Args:
        path: The file.
        classes: What the labels 0, 1, ... are called; None where they are not called anything.
    """

    def __init__(self, path: Path, classes: tuple[str, ...] | None) -> None:
        super().__init__(path)
        self.classes = classes

    def items(self) -> Iterator[Item]:
        """The images with their labels, in one pass.

        Raises:
            CorruptDataError: the shard is damaged, or a label is.
        """
        key, label, images = "", None, list[tuple[str, bytes | Bad]]()
        for name, content in self.members(lambda name: is_image_name(name) or _is_label(name)):
            if key_of(name) != key:
                yield from (Item(image, payload, label) for image, payload in images)
                key, label, images = key_of(name), None, []
            if _is_label(name):
                label = self._label(name, content)
            else:
                images.append((name, content))
        yield from (Item(image, payload, label) for image, payload in images)

    def _label(self, name: str, content: bytes | Bad) -> str | int:
        """The label in a member.

        Raises:
            CorruptDataError: it is none, or none of the classes.
        """
        if isinstance(content, Bad) or len(content) > _MOST_LABEL_BYTES:
            raise CorruptDataError(f"{self.path}: {in_a_line(name)} is too large for a label")
        text = content.strip()
        label = int(text) if _NUMBER.fullmatch(text) else text.decode(errors="backslashreplace")
        if self.classes is None:
            return label
        if not isinstance(label, int) or not 0 <= label < len(self.classes):
            raise CorruptDataError(
                f"{self.path}: {in_a_line(name)} has the label {in_a_line(label)}, and the index "
                f"names {len(self.classes)} classes"
            )
        return self.classes[label]


def key_of(name: str) -> str:
    """What the members of a sample share: folders, and the name up to the first dot."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _is_label(name: str) -> bool:
    return name.endswith(_LABEL)
