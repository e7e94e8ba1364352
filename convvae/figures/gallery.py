"""The figures of a model: from a model, images and the lines of its training to named pictures.

`Gallery` computes what several figures need once, when the first of them asks for it. A figure that
makes no sense, such as an interpolation of one image, is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from convvae import figures
from convvae.data.images import class_name
from convvae.data.pixels import to_unit
from convvae.errors import UsageError, did_you_mean
from convvae.evaluation import groups, latents
from convvae.evaluation.bounds import image_terms
from convvae.evaluation.encode import decode, generate
from convvae.evaluation.evaluate import ACTIVE
from convvae.evaluation.reconstruction import reconstruct
from convvae.images import sheets
from convvae.model.conditions import given_labels
from convvae.model.objectives import Terms
from convvae.model.vae import VAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PAIRS_SHOWN = 30
"""Images in the picture of the reconstructions."""
SAMPLES_SHOWN = 100
LEVEL_IMAGES = 10
"""Images in a row of the picture of the levels."""
EXTREMES = 10
"""Best images in a picture, and as many of the worst."""
PATH_POINTS = 11
"""Points of a traversal and of an interpolation."""
ANIMATION_FRAMES = 25
"""Images of an animation, one way."""
SECONDS = 2.0
"""Duration of an animation, one way."""
LABEL_ROWS, LABEL_SAMPLES = 20, 12
"""Labels of which samples are drawn, the first ones, and samples of each."""
MOST_CLASSES = 100
"""Classes of which means are drawn, the first ones."""
TSNE_POINTS = 2000
"""Points of a scatter by t-SNE or UMAP, which take long."""


class Picture(NamedTuple):
    """A figure with its words."""

    title: str
    caption: str
    """What is seen, for a reader who has not seen its like."""
    figure: Figure

    def _repr_png_(self) -> bytes:
        """The figure, as a notebook shows it."""
        return figures.png(self.figure)


@dataclass
class Gallery:
    """What the figures are made of.

    Args:
        vae: The model; of a conditional one, that of the labels of the images.
        images: uint8, shape [N, C, H, W], of the model's size.
        labels: int64 [N], or none.
        classes: What label i is called, or none.
        rows: Lines of `metrics.jsonl`, or none.
        grid: Points of each axis of a manifold.
        pair: The two images, by their place, that an interpolation joins; the first one, and the
            first of another class, if absent.
        walked: Latents of which traversals are drawn, the most informative ones.
        seed: Of samples, draws and projections.

    Raises:
        UsageError: the images to join do not exist.
    """

    vae: VAE
    images: Tensor
    labels: Tensor | None = None
    classes: Sequence[str] | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    grid: int = 20
    pair: tuple[int, int] | None = None
    walked: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pair is not None and not all(0 <= i < len(self.images) for i in self.pair):
            raise UsageError(
                f"there are {len(self.images)} images, numbered from 0, and none of them is "
                f"{' or '.join(str(i) for i in self.pair if not 0 <= i < len(self.images))}"
            )

    @cached_property
    def codes(self) -> latents.Codes:
        """The images in latent space."""
        return latents.codes(self.vae, self.images, seed=self.seed)

    @cached_property
    def terms(self) -> Terms:
        """The terms of the bound of every image."""
        return image_terms(self.vae, self.images, seed=self.seed)

    @property
    def centre(self) -> Tensor:
        """The mean latent of all images, shape [D]."""
        return self.codes.mean.mean(0)

    @cached_property
    def ends(self) -> tuple[int, int] | None:
        """The images that an interpolation joins; None where there is but one."""
        if self.pair is not None:
            return self.pair
        if len(self.images) < 2:
            return None
        if self.vae.y is not None:
            same = (self.vae.y == self.vae.y[0]).all(1).nonzero()
            return (0, int(same[1])) if len(same) > 1 else None
        if self.labels is None:
            return 0, 1
        others = (self.labels != self.labels[0]).nonzero()
        return 0, int(others[0]) if len(others) else 1

    @property
    def of_one_label(self) -> VAE:
        """The model of the first image's label, with which all is decoded that is no image's."""
        return self.vae.at(slice(0, 1))

    @property
    def as_what(self) -> str:
        """That label in words, for a caption; nothing of an unconditional model."""
        told = self.vae.config.condition
        if self.vae.y is None or told is None:
            return ""
        return f" Decoded with the label {told.said(told.values(self.vae.y[0].tolist()))}."

    def title(self, place: int) -> str:
        """The name of an image's class; nothing where there are no labels."""
        return "" if self.labels is None else self.class_name(int(self.labels[place]))

    def class_name(self, label: int) -> str:
        """What a label is called."""
        return class_name(self.classes, label)

    def latent_name(self, latent: int) -> str:
        """What an axis along a latent is called."""
        return f"latent z{latent}"

    def way(self, route: latents.Route, steps: int) -> Tensor:
        """Decoded images [steps, C, H, W] of an interpolation between the means of its two ends."""
        assert self.ends is not None
        start, end = (self.codes.mean[place] for place in self.ends)
        return decode(self.of_one_label, latents.interpolation(start, end, steps, route))


def curves(gallery: Gallery) -> Picture | str:
    """The course of the training."""
    if not any(row["event"] == "epoch" for row in gallery.rows):
        return "no metrics.jsonl with a finished epoch lies beside the model"
    return Picture(
        "Training",
        "The loss falls while the model learns. Where validation stays behind training, the model "
        "learns the training images by heart. The KL is what the latents say about an image. The "
        "frame of the loss leaves the first tenth of the epochs out.",
        figures.training_curves(gallery.rows),
    )


def reconstructions(gallery: Gallery) -> Picture:
    """Images over what is left of them after encoding and decoding."""
    images = gallery.images[:PAIRS_SHOWN]
    titles = [gallery.title(place) for place in range(len(images))]
    return Picture(
        "Reconstructions",
        f"The first images, and each decoded from its posterior's {gallery.vae.config.location}.",
        figures.reconstructions(images, reconstruct(gallery.vae, images), titles),
    )


def samples(gallery: Gallery) -> Picture:
    """Images that the model makes up."""
    return Picture(
        "Samples",
        "Images decoded from draws of the prior: what the model makes up.",
        figures.samples(generate(gallery.vae, SAMPLES_SHOWN, seed=gallery.seed)),
    )


def _scatter(gallery: Gallery, method: latents.Projection) -> Picture:
    limit = TSNE_POINTS if method in ("tsne", "umap") else len(gallery.images)
    mean = gallery.codes.mean[:limit]
    points = latents.project(mean, method, seed=gallery.seed)
    names = {
        "latents": ("latent z0", "latent z1" if mean.shape[1] == 2 else ""),
        "pca": ("first principal component", "second principal component"),
        "tsne": ("t-SNE 1", "t-SNE 2"),
        "umap": ("UMAP 1", "UMAP 2"),
    }[method]
    title = {"latents": "Latent space", "pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}[method]
    whose = "" if gallery.labels is None else " Colours and names are the classes."
    meaning = (
        " Neighbours are alike; distances and sizes of groups mean nothing."
        if method in ("tsne", "umap")
        else ""
    )
    return Picture(
        title if method == "latents" else f"Latent space by {title}",
        f"The posterior's {gallery.vae.config.location} of {len(mean):,} images.{whose}{meaning}",
        figures.scatter(
            points,
            None if gallery.labels is None else gallery.labels[:limit],
            gallery.classes,
            names,
        ),
    )


def scatter(gallery: Gallery) -> Picture:
    """The images in latent space: one or two latents as they are, of more the PCA."""
    return _scatter(gallery, "latents" if gallery.codes.mean.shape[1] <= 2 else "pca")


def tsne(gallery: Gallery) -> Picture | str:
    """The images in latent space by t-SNE."""
    if len(gallery.images) < 5 or gallery.codes.mean.shape[1] < 3:
        return "t-SNE is for three latents and more, and five images and more"
    return _scatter(gallery, "tsne")


def umap(gallery: Gallery) -> Picture | str:
    """The images in latent space by UMAP."""
    if len(gallery.images) < 5 or gallery.codes.mean.shape[1] < 3:
        return "UMAP is for three latents and more, and five images and more"
    return _scatter(gallery, "umap")


def _manifold(gallery: Gallery, spacing: latents.Spacing) -> Picture:
    order = gallery.codes.order[:2].tolist()
    which = (min(order), max(order)) if len(order) == 2 else (order[0],)
    z = latents.manifold(gallery.centre, which, gallery.grid, spacing)
    more = gallery.codes.mean.shape[1] - len(which)
    rest = f"; the other {more} at the images' mean" if more else ""
    names = tuple(gallery.latent_name(latent) for latent in which)
    how = {
        "linear": "even steps from -3 to 3",
        "quantiles": "quantiles of the standard normal: every step holds the same share of it",
    }[spacing]
    chosen = " of the two most informative latents" if more else ""
    return Picture(
        "Latent manifold" if spacing == "linear" else "Latent manifold by quantiles",
        f"Images decoded from a grid{chosen} in {how}{rest}.{gallery.as_what}",
        figures.manifold(
            decode(gallery.of_one_label, z),
            latents.axis(gallery.grid, spacing),
            (names[0], names[1]) if len(names) == 2 else (names[0],),
        ),
    )


def manifold(gallery: Gallery) -> Picture:
    """Images decoded from a grid of latents, in even steps."""
    return _manifold(gallery, "linear")


def quantiles(gallery: Gallery) -> Picture:
    """Images decoded from a grid of latents, by the quantiles of the prior."""
    return _manifold(gallery, "quantiles")


def traversals(gallery: Gallery) -> Picture:
    """What changes along each latent."""
    codes, which = gallery.codes, gallery.codes.order[: gallery.walked]
    bounds = latents.ranges(gallery.vae, codes, seed=gallery.seed)
    z = latents.traversal(gallery.centre, which, bounds, PATH_POINTS)
    kl = " and its KL in nats" if codes.kl is not None else ""
    source = "the images" if len(codes.mean) >= latents.MIN_IMAGES_FOR_RANGES else "the prior"
    left = codes.mean.shape[1] - len(which)
    return Picture(
        "Traversals",
        f"Each row walks one latent over {latents.COVERAGE:.0%} of {source}, all others at the "
        f"images' mean; the most informative first. At the left the latent{kl}, at the right where "
        "it walks. A row in which nothing changes is a latent that is not used."
        + (f" {left} less informative latents are left out." if left else "")
        + gallery.as_what,
        figures.traversals(
            decode(gallery.of_one_label, z),
            which,
            bounds[:, which],
            None if codes.kl is None else codes.kl[which],
        ),
    )


def interpolations(gallery: Gallery) -> Picture | str:
    """Ways from one image to another."""
    if gallery.ends is None:
        return "an interpolation needs two images" + (" of one label" if gallery.as_what else "")
    routes: tuple[latents.Route, ...] = ("straight", "spherical")
    return Picture(
        "Interpolation",
        f"From image {gallery.ends[0]} to image {gallery.ends[1]} through the latent space: in a "
        f"straight line, and along a circle around the origin.{gallery.as_what}",
        figures.interpolations(
            [gallery.way(route, PATH_POINTS) for route in routes],
            [gallery.images[place] for place in gallery.ends],
            routes,
        ),
    )


def information(gallery: Gallery) -> Picture:
    """How much each latent says."""
    kl, order = gallery.codes.kl, gallery.codes.order
    location = gallery.vae.config.location
    if kl is None:
        return Picture(
            "Use of the latents",
            f"The variance over the images of each latent's posterior {location}; above "
            f"{ACTIVE} a latent counts as active. (The KL of this model is no sum over latents.)",
            figures.information(
                gallery.codes.mean.var(0, correction=0),
                order,
                f"variance of the {location}",
                ACTIVE,
            ),
        )
    return Picture(
        "KL of each latent",
        f"What each latent says about an image; {float(kl.sum()):.2f} nats in all.",
        figures.information(kl, order, "KL, nats per image"),
    )


def levels(gallery: Gallery) -> Picture | str:
    """What the groups of a ladder hold, from the coarsest to the finest."""
    plan = gallery.vae.config.plan
    if not plan:
        return "levels are of a ladder, whose latents lie on maps of several resolutions"
    places = {f"{group.height}x{group.width}": place for place, group in enumerate(plan, 1)}
    images = gallery.images[:LEVEL_IMAGES]
    rows = [("images", to_unit(images))]
    rows += [
        (f"to {size}", groups.reconstruct_from_top(gallery.vae, images, end))
        for size, end in places.items()
    ]
    for name, held in [("samples", 0), *((f"{size} held", places[size]) for size in places)][:-1]:
        made = groups.generate_at(gallery.vae, len(images), seed=gallery.seed, hold=held)
        rows.append((name, made))
    return Picture(
        "Levels",
        "The first images, and what is decoded of them from the groups of latents down to each "
        "resolution, the finer ones at the means of their priors. Below, samples of the prior, and "
        "samples that have the groups down to each resolution in common: what still differs is "
        "what the finer groups decide.",
        figures.rows(torch.stack([part for _, part in rows]), [name for name, _ in rows]),
    )


def extremes(gallery: Gallery) -> Picture:
    """The images that the model knows best and least."""
    bound = gallery.terms.bound
    count = min(EXTREMES, max(1, len(bound) // 2))
    order = bound.argsort(descending=True, stable=True)
    chosen = torch.cat([order[:count], order.flip(0)[:count]]) if len(bound) > 1 else order
    images = gallery.images[chosen]
    titles = [
        f"{gallery.title(place)}\n{figures.number(float(bound[place]), '.0f')}".strip("\n")
        for place in chosen.tolist()
    ]
    names = ("highest bound of log p(x), nats", "lowest bound of log p(x), nats")
    return Picture(
        "Best and worst images",
        f"Of {len(bound):,} images, those whose log-likelihood has the highest bound and the "
        "lowest; the bound in nats above each, below each its reconstruction and the error.",
        figures.extremes(
            images,
            reconstruct(gallery.vae.at(chosen), images),
            titles,
            names if len(bound) > 1 else ("the image",),
        ),
    )


def class_means(gallery: Gallery) -> Picture | str:
    """The mean of every class, in pixels and in latent space."""
    if gallery.labels is None:
        return "class means need labels, and these images have none"
    classes, z = latents.class_means(gallery.codes, gallery.labels)
    classes, left = classes[:MOST_CLASSES], len(classes[MOST_CLASSES:])
    # Each class is decoded with its own label, where the model is told labels.
    firsts = torch.stack([(gallery.labels == label).nonzero()[0, 0] for label in classes])
    means = [to_unit(gallery.images[gallery.labels == label]).mean(0) for label in classes]
    return Picture(
        "Class means",
        "The mean of the images of every class, and what is decoded from the mean of their "
        "latents: a mean of pixels is blurred, a mean of latents is an image of its own."
        + (f" {left} more classes are left out." if left else ""),
        figures.class_means(
            torch.stack(means),
            decode(gallery.vae.at(firsts), z[:MOST_CLASSES]),
            [gallery.class_name(label) for label in classes.tolist()],
        ),
    )


def labels(gallery: Gallery) -> Picture | str:
    """Samples of every label that a conditional model knows."""
    condition = gallery.vae.config.condition
    if condition is None:
        return "rows of labels are of a conditional model, trained with `condition='label'`"
    left, seed = len(condition.combinations) - LABEL_ROWS, gallery.seed
    shown = condition.examples(LABEL_ROWS)
    made = [generate(given_labels(gallery.vae, [y]), LABEL_SAMPLES, seed=seed) for y in shown]
    return Picture(
        "Samples of each label",
        "Samples of the prior, decoded with the label at the left. A column has the same noise in "
        "every row, so that what the latents decide beside the label is alike in it."
        + (f" {left} more labels are left out." if left > 0 else ""),
        figures.rows(torch.stack(made), [condition.said(values) for values in shown]),
    )


PICTURES: dict[str, Callable[[Gallery], Picture | str]] = {
    "curves": curves,
    "reconstructions": reconstructions,
    "samples": samples,
    "scatter": scatter,
    "tsne": tsne,
    "umap": umap,
    "manifold": manifold,
    "quantiles": quantiles,
    "traversals": traversals,
    "interpolations": interpolations,
    "information": information,
    "levels": levels,
    "extremes": extremes,
    "class-means": class_means,
    "labels": labels,
}
ANIMATIONS: dict[latents.Route, str] = {
    "straight": "interpolation-straight.gif",
    "spherical": "interpolation-spherical.gif",
}
"""Way of the interpolation -> the file of its animation."""
ON_REQUEST = ("umap",)
"""Drawn only when they are named: they need an extra."""


def pictures(gallery: Gallery, names: Iterable[str] = ()) -> Iterator[tuple[str, Picture | str]]:
    """Figures, each drawn when it is its turn; names are checked at once.

    Args:
        gallery: What they are made of.
        names: Which; all but `ON_REQUEST` if there is none.

    Returns:
        Each name with its picture, or with the reason why there is none.

    Raises:
        UsageError: there is no figure of that name.
        MissingExtraError: a figure that was named needs a library that is not installed.
    """
    return ((name, PICTURES[name](gallery)) for name in chosen(names))


def chosen(names: Iterable[str] = ()) -> list[str]:
    """Names of figures; all but `ON_REQUEST` if there is none.

    Raises:
        UsageError: there is no figure of that name.
    """
    found = list(names) or [name for name in PICTURES if name not in ON_REQUEST]
    for name in found:
        if name not in PICTURES:
            hint = did_you_mean(name, PICTURES)
            raise UsageError(f"no figure {name!r}{hint}; there are {', '.join(PICTURES)}")
    return found


def save_animations(gallery: Gallery, folder: Path) -> list[Path]:
    """Write both ways of the interpolation as animations, if there are two images."""
    if gallery.ends is None:
        return []
    for route, name in ANIMATIONS.items():
        sheets.save_gif(folder / name, gallery.way(route, ANIMATION_FRAMES), SECONDS)
    return [folder / name for name in ANIMATIONS.values()]
