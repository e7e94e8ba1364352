"""What the page shows, without a page: a model, images, and where they are in the latent space."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from convvae import runtime
from convvae.data import ImageSet
from convvae.data.decode import Wanted
from convvae.data.images import class_name
from convvae.data.pixels import binarize_once, to_unit
from convvae.evaluation import latents
from convvae.evaluation.directions import between
from convvae.evaluation.encode import decode, encode, evaluating, map_posteriors
from convvae.evaluation.groups import end_of
from convvae.evaluation.reconstruction import reconstruct
from convvae.explorer.planes import Embedding, OneLatent, Plane, Principal, TwoLatents
from convvae.explorer.upload import read_image
from convvae.images.sheets import to_uint8
from convvae.model.conditions import given_labels
from convvae.model.ladder import LadderPrior
from convvae.model.vae import VAE

EMBEDDED = 3_000
"""Images that t-SNE and UMAP place: they take about 10 seconds for so many."""
ROUNDING = 1e-5
"""Relative difference below which two squared errors are the same: a batch's size rounds them."""


class Score(NamedTuple):
    """What the model makes of one image: the numbers of `encode.encode` at seed 0."""

    image: Tensor
    """uint8 [C, H, W]."""
    reconstruction: Tensor
    """uint8 [C, H, W], decoded from the posterior's location."""
    z: Tensor
    """The posterior's location, shape [D]."""
    error: Tensor
    """|image - reconstruction|, mean over the channels, shape [H, W], in [0, 1]."""
    bound: float
    """Evidence lower bound by one draw of z, in nats."""
    kl: float
    """KL(q(z|x) || p(z)), in nats."""
    squared_error: float
    """Mean over the values, in [0, 1]."""
    rank: float
    """Share of the images on the map whose reconstruction has a smaller squared error."""


class Scene:
    """A model and images in its latent space.

    Args:
        vae: The model.
        shown: The images as the model takes them, with their classes and names.
        title: What it is, for the reader.
        crop: Whether the images were cut to the model's aspect, as one of the user's then is.
        binarize_seed: Of the black or white pixels of a model of such images, else None.
    """

    def __init__(
        self,
        vae: VAE,
        shown: ImageSet,
        title: str,
        *,
        crop: bool = False,
        binarize_seed: int | None = None,
    ) -> None:
        self.vae = vae
        """The model; of a conditional one, that of the labels of the images."""
        self.values = dict[str, str]()
        """What is told of all that is decoded and is no image of the map; empty of other models."""
        self.told = vae
        """The model that is told it."""
        self.images = shown.images
        """uint8 [N, C, H, W]."""
        self.labels = shown.labels
        """Classes, int64 [N]; None where there are none."""
        self.names = shown.names
        """What each image is called; None where the source numbers its images."""
        self.title = title
        self._called = shown.classes
        self._wanted = Wanted(vae.config.image_size, vae.config.channels, crop)
        self._binarize_seed = binarize_seed
        codes = latents.codes(vae, shown.images)
        self.mean = codes.mean
        """Locations of the posteriors, shape [N, D]."""
        self.order: list[int] = codes.order.tolist()
        """Latents, the most informative first."""
        self.kl = codes.kl
        """KL of each latent in nats, shape [D]; None where it is no sum over the latents."""
        low, high = latents.ranges(vae, codes)
        # A collapsed latent of few images has no width to slide over.
        narrow = high - low < 1e-3
        self.low = torch.where(narrow, low - 0.5, low)
        """Lower end of each latent's range, shape [D]."""
        self.high = torch.where(narrow, high + 0.5, high)
        """Upper end of each latent's range, shape [D]."""
        self.origin = self.mean.mean(0)
        """Where a walk starts: the mean over the images, shape [D]."""
        self._errors: Tensor | None = None
        self._ways: dict[int, Tensor] = {}
        if vae.config.condition is not None:
            self._tell(vae.config.condition.examples(1)[0])

    def _tell(self, values: dict[str, str]) -> None:
        self.values, self.told = values, given_labels(self.vae, [values])

    def telling(self, values: dict[str, str]) -> Scene:
        """The same scene, its model told something else: the value of each column."""
        made = copy.copy(self)
        made._tell(values)
        return made

    @property
    def label(self) -> str | None:
        """What is told, in words; None of an unconditional model."""
        condition = self.vae.config.condition
        return None if condition is None else condition.said(self.values)

    def own_values(self, index: int) -> dict[str, str]:
        """What a conditional model is told of an image of the map."""
        condition, y = self.vae.config.condition, self.vae.at(slice(index, index + 1)).y
        assert condition is not None
        assert y is not None
        return condition.values(y[0].tolist())

    @property
    def dims(self) -> int:
        """Number of latents D."""
        return self.mean.shape[1]

    @property
    def groups(self) -> int:
        """Groups of a ladder whose latents are the scene's: those of its outline; 0 of others."""
        plan = self.vae.config.plan
        return sum(group.start + group.size <= self.dims for group in plan)

    @property
    def classes(self) -> list[int]:
        """The classes that there are, rising; none without labels."""
        return [] if self.labels is None else self.labels.unique().tolist()

    @property
    def ends(self) -> list[int]:
        """The classes that a walk may lead toward; none where a model is told its labels."""
        classes = self.classes
        return classes if len(classes) > 1 and self.vae.config.condition is None else []

    def way(self, label: int) -> Tensor:
        """The step from the mean of all other images to that of a class, shape [D]."""
        if label not in self._ways:
            assert self.labels is not None
            inside = self.labels == label
            self._ways[label] = between(self.mean[inside], self.mean[~inside])
        return self._ways[label]

    def class_name(self, label: int) -> str:
        """What a class is called."""
        return class_name(self._called, label)

    def kind(self, index: int) -> str:
        """The class of an image in words; empty without labels."""
        if self.labels is None:
            return ""
        name = self.class_name(int(self.labels[index]))
        return f"class {name}" if self._called is None else name

    def image_name(self, index: int) -> str:
        """What an image is called: its file, or its number on the map."""
        return f"{index:,}" if self.names is None else self.names[index]

    def informative(self) -> Plane:
        """The plane of the two most informative latents, or of the only one."""
        return self.two_latents(self.order[0], self.order[min(1, self.dims - 1)])

    def two_latents(self, horizontal: int, vertical: int) -> Plane:
        """The plane of two latents."""
        if self.dims == 1:
            return OneLatent(self.mean, self.labels)
        return TwoLatents(self.mean, horizontal, vertical)

    def projection(self, method: latents.Projection) -> Plane:
        """The plane of a projection of all latents; t-SNE and UMAP take many seconds.

        Raises:
            ConfigError: the method does not take so few images or latents.
            MissingExtraError: the method is not installed.
        """
        if method == "pca":
            return Principal(self.mean, latents.project(self.mean, "pca"))
        some = self.mean[:EMBEDDED]
        name = {"tsne": "t-SNE", "umap": "UMAP"}[method]
        return Embedding(some, latents.project(some, method), name)

    def decode(self, z: Tensor) -> Tensor:
        """Images uint8 [..., C, H, W] of latents z [..., D]: the means of p(x|z)."""
        return to_uint8(decode(self.told, z))

    def reconstruct(self, index: int) -> Tensor:
        """The reconstruction of an image of the map, uint8 [C, H, W]."""
        row = slice(index, index + 1)
        own = self.vae.at(row)
        if self.groups:
            # The map has the first groups alone.
            return to_uint8(reconstruct(own, self.images[row]))[0]
        return to_uint8(decode(own, self.mean[index]))

    def draw(self, number: int, seed: int = 0) -> Tensor:
        """Draw `number` of the prior, a latent of shape [D]: each number has its own."""
        z = self.told.prior.sample(1, runtime.generator(seed, "explore", number))[0].detach()
        return z[: self.dims]

    def all_groups(self, z: Tensor, image: Tensor | None = None) -> Tensor:
        """The latents of all groups of a ladder at a place of the scene, shape [D'], D' >= D.

        Args:
            z: The place, shape [D].
            image: The image that is there, uint8 [C, H, W], whose posterior then says the finer
                groups; without one they are at the means of their priors.
        """
        if image is None:
            return self.sharing(z, self.groups, 0.0, 1, 0)[0]
        found = map_posteriors(self.told, (image[None],), lambda q: q.location.cpu())
        return next(found)[0]

    def sharing(
        self, z: Tensor, groups: int, temperature: float, count: int, number: int
    ) -> Tensor:
        """Draws of a ladder's prior that have their first groups in common, shape [count, D'].

        Args:
            z: Whose groups they share, shape [D] or [D'].
            groups: How many, from the coarsest.
            temperature: Factor on the standard deviation of the priors of the others.
            count: How many draws.
            number: Of the noise: each has its own.
        """
        prior = self.told.prior
        assert isinstance(prior, LadderPrior)
        shape = (count, prior.latent_dims)
        eps = temperature * runtime.noise(shape, 0, "explore levels", number)
        top = z[: end_of(self.vae.config, groups)].expand(count, -1)
        with evaluating(self.vae):
            return prior.draw(eps, top).cpu()

    def nearest(self, z: Tensor, count: int) -> list[int]:
        """Images whose locations are nearest to z [D], the nearest first."""
        distances = torch.cdist(z[None], self.mean)[0]
        return distances.topk(min(count, len(distances)), largest=False).indices.tolist()

    def read(self, content: bytes) -> Tensor:
        """An image file of the user's in the size and channels of the model, uint8 [C, H, W].

        Prepared as `convvae encode` prepares a folder with this one file.

        Raises:
            ImageSizeError: the file or its image is larger than what is decoded, or it is a line.
            CorruptDataError: it is no image, or a damaged one.
        """
        return read_image(content, self._wanted)

    def as_taken(self, image: Tensor, *, invert: bool = False) -> Tensor:
        """An image that was read as the model takes it, uint8 [C, H, W].

        Args:
            image: From `read`.
            invert: Make light what is dark; transparency is left.
        """
        if invert:
            colours = len(image) - (len(image) in (2, 4))
            image = torch.cat([255 - image[:colours], image[colours:]])
        if self._binarize_seed is None:
            return image
        return binarize_once(image[None], "test", self._binarize_seed)[0]

    def score(self, image: Tensor) -> Score:
        """What the model makes of an image, uint8 [C, H, W], taken to have the scene's label."""
        found = encode(self.told, image[None], seed=0)
        decoded = reconstruct(self.told, image[None])
        error = float(found.squared_error)
        return Score(
            image,
            to_uint8(decoded)[0],
            found.mu[0],
            (decoded - to_unit(image[None])).abs()[0].mean(0),
            float(found.bound),
            float(found.kl),
            error,
            float((self.squared_errors < error * (1 - ROUNDING)).float().mean()),
        )

    @property
    def squared_errors(self) -> Tensor:
        """Mean squared errors of reconstructions of some of the images, made when first asked."""
        if self._errors is None:
            some = self.images[:500]
            difference = reconstruct(self.vae, some) - to_unit(some)
            self._errors = difference.square().flatten(1).mean(1)
        return self._errors
