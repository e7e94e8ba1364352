"""The latent space as arrays: which latents matter, where the images are, and paths to decode.

Nothing here draws: figures, the report and the explorer show what these functions compute. A path
is a tensor of latents z [..., D]; `decode` turns it into images of the same leading shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from convvae import runtime
from convvae.distributions import Posterior
from convvae.errors import ConfigError, missing_extra
from convvae.evaluation.encode import batch_size, posterior_means
from convvae.model.vae import VAE

Spacing = Literal["linear", "quantiles"]
Route = Literal["straight", "spherical"]
Projection = Literal["latents", "pca", "tsne", "umap"]

REACH = 3.0
"""Half the width of a linear manifold, in standard deviations of the standard normal prior."""
COVERAGE = 0.98
"""Share of the aggregate posterior inside the range that a latent is walked over."""
MIN_IMAGES_FOR_RANGES = 100
"""Below so many images, ranges come from the prior: quantiles of a few draws say little."""
PRIOR_DRAWS = 10_000
LADDER_DRAWS = 500
"""Draws of a ladder's prior, of which each is a pass through the decoder."""


class Codes(NamedTuple):
    """Images in latent space."""

    mean: Tensor
    """Locations of q(z|x): means, or f(mu) of a flow; shape [N, D], float32, on the CPU."""
    drawn: Tensor
    """One draw of each q(z|x), shape [N, D]: a sample of the aggregate posterior."""
    kl: Tensor | None
    """Mean KL of each latent in nats, shape [D]; None where the KL is no sum over the latents."""

    @property
    def order(self) -> Tensor:
        """Latents, the most informative first, int64 [D].

        By KL; where it is no sum over the latents, by the variance of the location.
        """
        return torch.argsort(self._information, descending=True, stable=True)

    @property
    def _information(self) -> Tensor:
        return self.mean.var(0, correction=0) if self.kl is None else self.kl


def codes(vae: VAE, images: Tensor, *, seed: int = 0) -> Codes:
    """Where images are in the latent space; of a ladder, in that of its outline.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        seed: Of the draws of q(z|x).
    """
    eps = _noise_of_draws(vae, len(images), seed)
    drawn: list[Tensor] = []

    def draw(q: Posterior) -> None:
        drawn.append(q.rsample(next(eps).to(vae.device))[:, : vae.config.outline].cpu())

    mean, kl = posterior_means(vae, images, draw)
    return Codes(mean, torch.cat(drawn), kl)


def _noise_of_draws(vae: VAE, count: int, seed: int) -> Iterator[Tensor]:
    """Standard normal noise for a draw of the posterior of each image, batch by batch."""
    batch, dims = batch_size(vae), vae.config.latent_dims
    if not vae.config.plan:
        yield from runtime.noise((count, dims), seed, "aggregate posterior", 0).split(batch)
        return
    # A ladder has too many latents for the noise of all images at once.
    for start in range(0, count, batch):
        shape = (min(batch, count - start), dims)
        yield runtime.noise(shape, seed, "aggregate posterior", start)


def ranges(vae: VAE, codes: Codes, *, seed: int = 0) -> Tensor:
    """Lowest and highest value to walk each latent over, shape [2, D].

    They hold `COVERAGE` of the aggregate posterior q(z) = 1/N sum_n q(z|x_n), between equal tails;
    of the prior where there are fewer than `MIN_IMAGES_FOR_RANGES` images.
    """
    enough = len(codes.drawn) >= MIN_IMAGES_FOR_RANGES
    sample = runtime.generator(seed, "prior ranges")
    draws = PRIOR_DRAWS if not vae.config.plan else LADDER_DRAWS
    prior = vae.at(slice(0, 1)).prior  # of the first image's label, where each has one
    drawn = codes.drawn if enough else prior.sample(draws, sample)[:, : vae.config.outline]
    tail = (1 - COVERAGE) / 2
    # Sorted, not torch.quantile, which refuses more than 2**24 values.
    place = torch.tensor([tail, 1 - tail]) * (len(drawn) - 1)
    return drawn.sort(0).values[place.round().long()]


def traversal(base: Tensor, which: Tensor, bounds: Tensor, steps: int) -> Tensor:
    """Walk one latent at a time from its lowest to its highest value, all others as in `base`.

    Args:
        base: The latent to start from, shape [D].
        which: The latents to walk, int64 [L].
        bounds: Lowest and highest value of each latent, shape [2, D].
        steps: Points of a walk, at least 2.

    Returns:
        z, shape [L, steps, D].
    """
    z = base.repeat(len(which), steps, 1)
    along = torch.linspace(0, 1, steps)
    for row, latent in enumerate(which.tolist()):
        low, high = bounds[:, latent]
        z[row, :, latent] = low + (high - low) * along
    return z


def interpolation(start: Tensor, end: Tensor, steps: int, route: Route = "straight") -> Tensor:
    r"""Latents from one to another, both ends included.

    Straight: (1 - t) a + t b. Spherical: (sin((1 - t) w) a + sin(t w) b) / sin w with the angle w
    between a and b, which keeps the length of z where a and b have it; straight where no angle is
    defined (one end at the origin, or both on a line through it, as always for one latent).

    Args:
        start: a, shape [D].
        end: b, shape [D].
        steps: Points, at least 2.
        route: Which of the two.

    Returns:
        z, shape [steps, D].

    Source: White 2016, https://arxiv.org/abs/1609.04468

    Examples:
        >>> interpolation(torch.zeros(2), torch.tensor([2.0, 4.0]), steps=3)
        tensor([[0., 0.],
                [1., 2.],
                [2., 4.]])
    """
    t = torch.linspace(0, 1, steps, dtype=torch.float64).unsqueeze(1)
    a, b = start.double(), end.double()
    lengths = a.norm() * b.norm()
    angle = torch.acos((a @ b / lengths).clamp(-1, 1)) if lengths > 0 else torch.zeros(())
    if route == "straight" or angle.sin() < 1e-4:
        return ((1 - t) * a + t * b).float()
    return ((torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / angle.sin()).float()


def axis(steps: int, spacing: Spacing = "linear") -> Tensor:
    """Values of a latent along an axis of the manifold, rising, shape [steps].

    Linear from -`REACH` to `REACH`; or the quantiles (i + 1/2) / steps of the standard normal, so
    that every step holds the same share of the prior.

    Source: quantiles from Kingma & Welling 2014, figure 4, https://arxiv.org/abs/1312.6114
    """
    if spacing == "linear":
        return torch.linspace(-REACH, REACH, steps) if steps > 1 else torch.zeros(1)
    return torch.special.ndtri((torch.arange(steps) + 0.5) / steps)


def manifold(
    base: Tensor, which: tuple[int, int] | tuple[int], steps: int, spacing: Spacing = "linear"
) -> Tensor:
    """A grid of latents over the plane of two of them, all others as in `base`.

    Args:
        base: The latent that holds the others, shape [D].
        which: The latent of the horizontal axis, rising to the right, and that of the vertical
            one, rising upwards: row 0 is the top. One latent alone makes one row.
        steps: Points of each axis.
        spacing: See `axis`.

    Returns:
        z, shape [steps, steps, D], or [1, steps, D] for one latent.
    """
    values = axis(steps, spacing)
    z = base.repeat(steps if len(which) == 2 else 1, steps, 1)
    z[..., which[0]] = values
    if len(which) == 2:
        z[..., which[1]] = values.flip(0).unsqueeze(1)
    return z


def project(mean: Tensor, method: Projection, *, seed: int = 0) -> Tensor:
    """Latents as points of a plane.

    `latents` takes them as they are, one or two. `pca` is deterministic; `tsne` and `umap` keep
    neighbours together, their distances mean nothing, and they take minutes for tens of thousands
    of points.

    Args:
        mean: Shape [N, D].
        method: How.
        seed: Of tsne and umap.

    Returns:
        Shape [N, 2], float32; with one latent, the second column is 0.

    Raises:
        ConfigError: the method does not take so few points, or so many latents.
        MissingExtraError: umap-learn is not installed.

    Sources: van der Maaten & Hinton 2008, https://jmlr.org/papers/v9/vandermaaten08a.html;
        McInnes, Healy & Melville 2018, https://arxiv.org/abs/1802.03426
    """
    match method:
        case "latents":
            if mean.shape[1] > 2:
                raise ConfigError(
                    f"{mean.shape[1]} latents are not points of a plane; project them with pca, "
                    "tsne or umap"
                )
            return torch.nn.functional.pad(mean, (0, 2 - mean.shape[1]))
        case "pca":
            return _pca(mean)
        case "tsne" | "umap":
            if len(mean) < 5 or mean.shape[1] < 2:
                raise ConfigError(
                    f"{method} needs at least 5 images and 2 latents, and there are {len(mean)} "
                    f"and {mean.shape[1]}; project with pca"
                )
            return (_tsne if method == "tsne" else _umap)(mean, seed)


def _pca(mean: Tensor) -> Tensor:
    """The two directions of most variance; in each, the largest weight is positive."""
    centred = (mean - mean.mean(0)).double()
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    largest = directions.abs().argmax(1, keepdim=True)
    points = centred @ (directions * directions.gather(1, largest).sign()).T
    return torch.nn.functional.pad(points, (0, 2 - points.shape[1])).float()


def _tsne(mean: Tensor, seed: int) -> Tensor:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(mean) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(
        mean.numpy()
    )
    return torch.from_numpy(found).float()


def _umap(mean: Tensor, seed: int) -> Tensor:
    try:
        from umap import UMAP
    except ImportError as error:
        raise missing_extra("projecting with umap", "umap") from error
    neighbours, threads = min(15, len(mean) - 1), torch.get_num_threads()
    fit = UMAP(n_neighbors=neighbours, random_state=seed % 2**32, n_jobs=1).fit_transform
    try:
        return torch.tensor(fit(mean.numpy()), dtype=torch.float32)
    finally:
        # Numba sets the number of OpenMP's threads for the whole process, PyTorch's with it.
        torch.set_num_threads(threads)


def class_means(codes: Codes, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes that there are, int64 [M] rising, and the mean latent of each, [M, D]."""
    classes = labels.unique()
    return classes, torch.stack([codes.mean[labels == label].mean(0) for label in classes])
