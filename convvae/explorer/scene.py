"""What the page shows, without a page: a model, images, and where they are in the latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from convvae import evaluate, latents, runtime
from convvae.data.pixels import to_unit
from convvae.evaluate import image_terms, reconstruct
from convvae.explorer.planes import Embedding, OneLatent, Plane, Principal, TwoLatents
from convvae.model import VAE
from convvae.sheets import to_uint8

EMBEDDED = 3_000
"""Images that t-SNE and UMAP place: they take about 10 seconds for so many."""
SCORE_DRAWS = 16
"""Draws of z behind the bound of an image of the user's."""


class Score(NamedTuple):
    """What the model makes of one image."""

    image: Tensor
    """uint8 [C, H, W]."""
    reconstruction: Tensor
    """uint8 [C, H, W], decoded from the posterior's location."""
    z: Tensor
    """The posterior's location, shape [D]."""
    error: Tensor
    """|image - reconstruction|, mean over the channels, shape [H, W], in [0, 1]."""
    log_px: float
    """Nats."""
    kl: float
    """Nats."""
    rank: float
    """Share of the images on the map whose reconstruction has a smaller squared error."""


class Scene:
    """A model and images in its latent space.

    Arguments:
        vae: The model.
        images: uint8 [N, C, H, W], as the model takes them.
        labels: Classes, int64 [N]; None where there are none.
        title: What it is, for the reader.
        names: What label i is called; its number if absent.
        crop: Whether the images were cut to the model's aspect, as one of the user's then is.
    """

    def __init__(
        self,
        vae: VAE,
        images: Tensor,
        labels: Tensor | None,
        title: str,
        names: Sequence[str] | None = None,
        crop: bool = False,
    ) -> None:
        self.vae = vae
        self.images = images
        self.labels = labels
        self.names = names
        self.crop = crop
        self.title = title
        codes = latents.encode(vae, images)
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

    @property
    def dims(self) -> int:
        """Number of latents D."""
        return self.mean.shape[1]

    @property
    def classes(self) -> list[int]:
        """The classes that there are, rising; none without labels."""
        return [] if self.labels is None else self.labels.unique().tolist()

    def class_name(self, label: int) -> str:
        """What a class is called."""
        return str(label) if self.names is None else self.names[label]

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
        return to_uint8(latents.decode(self.vae, z))

    def reconstruct(self, index: int) -> Tensor:
        """The reconstruction of an image of the map, uint8 [C, H, W]."""
        return self.decode(self.mean[index])

    def draw(self, number: int, seed: int = 0) -> Tensor:
        """Draw `number` of the prior, a latent of shape [D]: each number has its own."""
        return self.vae.prior.sample(1, runtime.generator(seed, "explore", number))[0].detach()

    def nearest(self, z: Tensor, count: int) -> list[int]:
        """Images whose locations are nearest to z [D], the nearest first."""
        distances = torch.cdist(z[None], self.mean)[0]
        return distances.topk(min(count, len(distances)), largest=False).indices.tolist()

    def score(self, image: Tensor) -> Score:
        """What the model makes of an image, uint8 [C, H, W]."""
        x = image[None]
        mean = evaluate.latents(self.vae, x)[0][0]
        decoded = reconstruct(self.vae, x)
        difference = (decoded - to_unit(x)).abs()[0]
        terms = image_terms(self.vae, x, seed=0, mc_samples=SCORE_DRAWS)
        error = difference.square().mean()
        return Score(
            image,
            to_uint8(decoded)[0],
            mean,
            difference.mean(0),
            float(terms.log_px),
            float(terms.kl),
            float((self.squared_errors < error).float().mean()),
        )

    @property
    def squared_errors(self) -> Tensor:
        """Mean squared errors of reconstructions of some of the images, made when first asked."""
        if self._errors is None:
            some = self.images[:500]
            difference = reconstruct(self.vae, some) - to_unit(some)
            self._errors = difference.square().flatten(1).mean(1)
        return self._errors
