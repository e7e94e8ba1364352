"""Images as bytes: what every source gives, and their size changed to that of a model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from convvae.config import UNLABELLED
from convvae.data.stored import StoredPixels, empty
from convvae.errors import ConfigError, CorruptDataError, ImageSizeError
from convvae.images.geometry import Size, centre, inside
from convvae.runtime import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor


Split = Literal["train", "test"]

_CHUNK_BYTES = 1 << 22
"""Of the larger of input and output at a time: 1,024 grey images of 64x64."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one split of one data set, in the order in which they were published.

    Attributes:
        images: uint8 `[N, C, H, W]`.
        labels: int64 `[N]`, or None where a source has none.
        name: The source, as in `NAMES`.
        split: "train" or "test".
        names: What each image is called, such as its path in its folder; None where a source
            numbers its images.
        classes: What each label is called; None where a source does not say.
        fingerprint: Changes whenever the images do; None where they must be looked at.
        factors: int64 `[N, F]`: the value of each factor that the images were made of; None where
            a source has none.
        factor_names: What the factors are called, F of them.
        columns: What else is known of the images: name -> a word for each, those asked for.
        stored: The file that the images lie in, where they are its own and no others.
        observed: bool `[N, 1, H, W]`, where a pixel is there; None where all are. One that is
            missing is 0 in `images`.

    Raises:
        CorruptDataError: there are not as many labels or names as images.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    split: Split
    names: Sequence[str] | None = None
    classes: tuple[str, ...] | None = None
    fingerprint: str | None = None
    factors: Tensor | None = None
    factor_names: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    stored: StoredPixels | None = None
    observed: Tensor | None = None

    def __post_init__(self) -> None:
        parts = [("labels", self.labels), ("names", self.names), ("factors", self.factors)]
        parts += [("masks", self.observed), *self.columns.items()]
        for what, values in parts:
            if values is not None and len(values) != len(self.images):
                raise CorruptDataError(
                    f"{self.name} ({self.split}) has {len(self.images)} images but {len(values)} "
                    f"{what}; use images and {what} of the same release"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> list[int]:
        """How many images of one split follow each other: all of them."""
        return [len(self)]

    @property
    def splits(self) -> list[Split]:
        """The split of each image."""
        return [self.split] * len(self)

    def batches(
        self, count: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[Split, Tensor]]:
        """At most so many images at a time, uint8 `[n, C, H, W]`, with their split, in order."""
        for part in self.images[start:stop].split(count):
            yield self.split, part

    @property
    def is_stored(self) -> bool:
        """Whether the images are those of a file, and not made from them."""
        return self.stored is not None and self.stored.images is self.images

    def read(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Some of the images, uint8 `[n, C, H, W]`, a copy on the CPU; from their file, if any.

        Args:
            rows: Their places, int64 `[n]`.
            out: What to write them to; else memory of their own.

        Raises:
            CorruptDataError: their file is not what it was.
        """
        out = empty((len(rows), *self.images.shape[1:])) if out is None else out
        if self.stored is not None and self.is_stored:
            self.stored.read(rows, out)
            return out
        return torch.index_select(self.images, 0, rows, out=out)

    def take(self, rows: Tensor) -> ImageSet:
        """Some of the images, with what belongs to them.

        Args:
            rows: Their places, int64 `[n]`.
        """
        return replace(
            self,
            images=self.read(rows),
            labels=None if self.labels is None else self.labels[rows],
            names=None if self.names is None else [self.names[row] for row in rows.tolist()],
            fingerprint=None,
            factors=None if self.factors is None else self.factors[rows],
            observed=None if self.observed is None else self.observed[rows],
            columns={
                name: [words[row] for row in rows.tolist()] for name, words in self.columns.items()
            },
        )

    def some(self, count: int, seed: int) -> ImageSet:
        """At most so many of the images, drawn at random and in a random order.

        The first ones of a folder may all be of one kind; the first ones of these are not.

        Args:
            count: How many.
            seed: Of the draw.
        """
        order = torch.randperm(len(self), generator=generator(seed, "some images"))
        return self.take(order[:count])

    @property
    def channels(self) -> int:
        """C: 1 for grey, 3 for colour."""
        return self.images.shape[1]

    @property
    def height(self) -> int:
        """H in pixels."""
        return self.images.shape[2]

    @property
    def width(self) -> int:
        """W in pixels."""
        return self.images.shape[3]


def with_mask(images: ImageSet, observed: Tensor) -> ImageSet:
    """Images of which only some pixels are there: the others are 0, in memory of their own.

    Args:
        images: The images.
        observed: Where a pixel is there, bool `[N, 1, H, W]`.

    Raises:
        CorruptDataError: an image has no pixel left.
    """
    some = observed.flatten(1).any(1)
    if not bool(some.all()):
        place = int(some.int().argmin())
        name = place if images.names is None else images.names[place]
        raise CorruptDataError(
            f"{images.name} ({images.split}): image {name} has no pixel that is not missing; leave "
            "it out"
        )
    if bool(observed.all()):
        return replace(images, observed=None)
    return replace(images, images=images.images * observed, observed=observed, stored=None)


def unmarked(images: ImageSet) -> ImageSet:
    """Images whose last channel is an alpha: without it, the pixels that are not opaque missing.

    Raises:
        CorruptDataError: an image has no opaque pixel.
    """
    plain = replace(images, images=images.images[:, :-1])
    return with_mask(plain, images.images[:, -1:] == 255)


def hide_labels(images: ImageSet, kept: Tensor) -> ImageSet:
    """The same images, those that are not kept with the label `UNLABELLED`.

    Args:
        images: Images that have labels.
        kept: Places of images whose labels stay, int64 `[n]`.
    """
    assert images.labels is not None
    numbers, labels = images.labels.unique(return_inverse=True)
    names = tuple(class_name(images.classes, number) for number in numbers.tolist())
    hidden = torch.full_like(labels, names.index(UNLABELLED) if UNLABELLED in names else len(names))
    hidden[kept] = labels[kept]
    classes = names if UNLABELLED in names else (*names, UNLABELLED)
    return replace(images, labels=hidden, classes=classes)


def class_name(classes: Sequence[str] | None, label: int) -> str:
    """What a label is called: the name of its class, else its number."""
    return classes[label] if classes else str(label)


def resize(images: Tensor, size: Size, *, crop: bool = False) -> Tensor:
    """Scale images to the largest size that fits `size` with their aspect, centred on black.

    Bilinear, antialiased where it shrinks, in integers as Pillow computes it: within 1 of 255 of
    the same in floats. Where the padding is odd, the extra row is at the bottom and the extra
    column on the right.

    Args:
        images: uint8 `[N, C, H, W]`.
        size: Height h and width w.
        crop: Cut the images to the aspect of `size` at the centre instead, and fill it.

    Returns:
        uint8 `[N, C, h, w]`; `images` itself when it already has that size.

    Raises:
        ConfigError: a side of `size` is under 1.
        ImageSizeError: the images are so long or so wide that they would become a line of pixels.

    Examples:
        >>> white = torch.full((1, 1, 2, 4), 255, dtype=torch.uint8)  # twice as wide as high
        >>> resize(white, (4, 4))[0, 0, :, 0]  # centred on black
        tensor([  0, 255, 255,   0], dtype=torch.uint8)
    """
    height, width = size
    if min(height, width) < 1:
        raise ConfigError(
            f"image size {height}x{width} has a side under 1; both must be at least 1"
        )
    count, channels, old_height, old_width = images.shape
    if (old_height, old_width) == (height, width):
        return images
    inner = size
    if crop:
        top, left, old_height, old_width = centre((old_height, old_width), size)
        images = images[:, :, top : top + old_height, left : left + old_width]
    else:
        inner = inside((old_height, old_width), size)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out = images.new_zeros(count, channels, height, width)
    target = out[:, :, top : top + inner[0], left : left + inner[1]]
    chunk = max(1, _CHUNK_BYTES // (channels * max(height * width, old_height * old_width)))
    for part, slot in zip(images.split(chunk), target.split(chunk), strict=True):
        slot.copy_(F.interpolate(part, inner, mode="bilinear", antialias=True))
    return out


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Grey images as RGB, or RGB as grey (the luma of ITU-R 601, as `decode` has it).

    Args:
        images: uint8 `[N, C, H, W]`.
        channels: 1 or 3.

    Returns:
        uint8 `[N, channels, H, W]`; `images` itself when it already has as many.

    Raises:
        ConfigError: other numbers of channels, which need an alpha that the images do not have.
    """
    have = images.shape[1]
    if have == channels:
        return images
    if {have, channels} != {1, 3}:
        raise ConfigError(f"images of {have} channels cannot be given {channels}; choose 1 or 3")
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    out = images.new_empty(len(images), 1, *images.shape[2:])
    for part, grey in zip(images.split(1000), out.split(1000), strict=True):
        red, green, blue = part.to(torch.int32).unbind(1)
        # Pillow's own integers: sums of 65,536, rounded.
        grey[:, 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return out


def fingerprint(images: ImageSet) -> str:
    """A digest that changes whenever the images do; their pixels are read if nothing is known."""
    if images.fingerprint is not None:
        return images.fingerprint
    found = hashlib.blake2b(str(tuple(images.images.shape)).encode(), digest_size=16)
    for part in images.images.split(1000):
        found.update(part.contiguous().numpy().data)
    return found.hexdigest()


def fit(images: ImageSet, size: tuple[int, int], channels: int) -> Tensor:
    """The images as a model takes them: resized, uint8 `[N, C, h, w]`.

    Raises:
        ImageSizeError: the images have another number of channels.
    """
    if images.channels != channels:
        raise ImageSizeError(
            f"{images.name} has {images.channels} channels, but the model takes {channels}; "
            "choose images of the kind that it was trained on"
        )
    return resize(images.images, size)
