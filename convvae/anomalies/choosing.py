"""Which score to take: the one that tells normal images from the same made abnormal best.

No abnormal image is asked for. Those of `made_abnormal` have the pixels of normal ones in other
places, as images of another kind do where texture, ink and light are alike; or fewer things in
them: simple images are what an error alone takes for normal.

Source: of the idea, to learn by such images, Li et al. 2021, https://arxiv.org/abs/2104.04015
"""

from __future__ import annotations

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from convvae import runtime
from convvae.anomalies.calibration import Calibration, first_normal
from convvae.anomalies.scores import measure_images, scores
from convvae.data import Images
from convvae.model.vae import VAE

MOST_CHOOSE = 600
"""Normal images that a score is chosen by, at most: the first of them."""
FEWEST_CHOOSE = 40
"""Normal images that a score is chosen by, at least."""
PASTED = (0.3, 0.6)
"""Sides of what is pasted, as shares of those of the image."""


def made_abnormal(images: Tensor, seed: int) -> dict[str, Tensor]:
    """Images whose pixels are in other places.

    - `turned`: by a quarter where they are square, else upside down;
    - `shuffled`: the quarters of an image change places crosswise;
    - `pasted`: a rectangle of another image, at a place of its own;
    - `erased`: that place has the median of the image, channel by channel.

    Args:
        images: uint8, shape [N, C, H, W], N at least 2.
        seed: Of the rectangles and their places.

    Returns:
        Name -> uint8 [N, C, H, W].
    """
    draws = runtime.generator(seed, "made abnormal")
    count, _, height, width = images.shape
    others, pasted, erased = images.roll(1, 0), images.clone(), images.clone()
    middle = images.flatten(2).median(2).values[..., None, None]
    low, high = PASTED
    for place in range(count):
        shares = (low + (high - low) * torch.rand(2, generator=draws)).tolist()
        tall, wide = (max(1, round(s * n)) for s, n in zip(shares, (height, width), strict=True))
        (top, to), (left, over) = (
            torch.randint(room + 1, (2,), generator=draws).tolist()
            for room in (height - tall, width - wide)
        )
        part = others[place, :, top : top + tall, left : left + wide]
        pasted[place, :, to : to + tall, over : over + wide] = part
        erased[place, :, to : to + tall, over : over + wide] = middle[place]
    return {
        "turned": images.rot90(1 if height == width else 2, (2, 3)),
        "shuffled": images.roll((height // 2, width // 2), (2, 3)),
        "pasted": pasted,
        "erased": erased,
    }


def aurocs(
    vae: VAE,
    normal: Images,
    chosen: Tensor,
    *,
    seed: int,
    samples: int,
    binarize_seed: int | None = None,
) -> dict[str, float]:
    """How well each score tells normal images from those that are made abnormal.

    Half of the normal images, `MOST_CHOOSE` at most, calibrate; of the others each score is held
    against that of every kind of `made_abnormal`.

    Args:
        vae: The model.
        normal: A set, which the model has not learnt from.
        chosen: Which of its images are normal ones, bool [N], `FEWEST_CHOOSE` at least.
        seed: Of the draws of z and of what is made.
        samples: Draws K of z per image for the importance-weighted bound.
        binarize_seed: Of the black or white pixels of a model of such images, else None.

    Returns:
        Name -> AUROC, the mean over the kinds: best first, and of equal ones in the order of
        `SCORES`.

    Raises:
        ImageSizeError: the images do not fit the model.
    """
    images = torch.cat([*first_normal(vae, normal, chosen, MOST_CHOOSE, binarize_seed)])
    known, new = images.chunk(2)
    reference = Calibration.of(measure_images(vae, known, seed=seed, samples=samples)).reference
    members = torch.zeros(len(new), dtype=torch.bool)

    def judged(some: Tensor) -> dict[str, Tensor]:
        measured = measure_images(vae, some, seed=seed, samples=samples)
        return scores(measured, reference, members[: len(some)])

    plain, strange = judged(new), [judged(some) for some in made_abnormal(new, seed).values()]
    labels = torch.arange(2 * len(new)) >= len(new)
    found = {
        name: sum(roc_auc_score(labels, torch.cat([score, one[name]])) for one in strange)
        / len(strange)
        for name, score in plain.items()
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
