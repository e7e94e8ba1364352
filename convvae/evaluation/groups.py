"""What the groups of a ladder hold: their share of the KL, and images from the first of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from convvae import runtime
from convvae.config import ModelConfig
from convvae.data.pixels import to_unit
from convvae.distributions import StandardNormal
from convvae.errors import ConfigError
from convvae.evaluation.encode import (
    batch_size,
    decode,
    each_part,
    evaluating,
    map_posteriors,
    own_noise,
)
from convvae.model.conditions import with_labels
from convvae.model.ladder import LadderPrior
from convvae.model.vae import VAE


def kl_per_group(vae: VAE, images: Tensor, *, seed: int) -> dict[str, Tensor]:
    """The part of each group of a ladder in the KL of every image, by one draw of z.

    The noise is that of `image_terms`.

    Args:
        vae: The model; of other networks nothing is returned.
        images: uint8, shape [N, C, H, W].
        seed: Of the noise.

    Returns:
        Name of the group, the coarsest first -> nats, shape [N], float64, on the CPU.
    """
    found: list[Tensor] = []
    with evaluating(vae):
        parts = images.split(batch_size(vae)) if vae.config.plan else ()
        for model, part in each_part(vae, parts):
            q = model.encode(to_unit(part.to(vae.device)))
            kl = model.draw(q, own_noise(vae, part, seed)(1)).kl_per_group
            assert kl is not None
            found.append(kl.cpu().double())
    names = (group.name for group in vae.config.plan)
    return dict(zip(names, torch.cat(found, 1), strict=True)) if found else {}


def generate_at(
    vae: VAE, count: int, *, seed: int, temperature: Sequence[float] = (1.0,), hold: int = 0
) -> Tensor:
    """Means of p(x|z) at draws of a prior whose spread is scaled, or whose first groups are held.

    Args:
        vae: The model.
        count: Number of images N.
        seed: Of the draws.
        temperature: Factor on the standard deviation of p(z): one, or one for each resolution of a
            ladder, from the coarsest.
        hold: Groups of a ladder, the first ones, that all images have in common.

    Returns:
        float32 in [0, 1], shape [N, C, H, W], on the CPU.

    Raises:
        ConfigError: the model's prior has no such spread, or no such groups.

    Source: temperatures of a hierarchy, Vahdat & Kautz 2020, https://arxiv.org/abs/2007.03898
    """
    scale, prior = scales(vae.config, temperature), vae.prior
    check_groups(vae.config, hold, "hold")
    vae = with_labels(vae, count, seed=seed)
    if isinstance(prior, LadderPrior):
        eps = torch.randn(count, prior.latent_dims, generator=runtime.generator(seed, "generate"))
        top = _ladder_prior(vae.at(slice(0, 1))).draw(scale * eps[:1])[
            :, : end_of(vae.config, hold)
        ]
        parts = each_part(vae, (scale * eps).split(batch_size(vae)))
        drawn = ((m, _ladder_prior(m).draw(part, top.expand(len(part), -1))) for m, part in parts)
        return torch.cat([decode(model, z) for model, z in drawn])
    if not isinstance(prior, StandardNormal):
        raise ConfigError(f"temperature scales a normal prior, and this is a {vae.config.prior}")
    return decode(vae, scale * prior.sample(count, runtime.generator(seed, "generate")))


def _ladder_prior(vae: VAE) -> LadderPrior:
    assert isinstance(vae.prior, LadderPrior)
    return vae.prior


def scales(model: ModelConfig, temperature: Sequence[float]) -> Tensor:
    """The factor on the standard deviation of each latent, shape [D].

    Raises:
        ConfigError: there is neither one temperature nor one for each resolution, or one is below
            0.
    """
    sizes = list(dict.fromkeys((group.height, group.width) for group in model.plan)) or [(1, 1)]
    if len(temperature) not in (1, len(sizes)) or min(temperature) < 0:
        raise ConfigError(
            f"temperature {' '.join(f'{t:g}' for t in temperature)}: give one of at least 0, or "
            f"{len(sizes)}, one for each resolution of the model"
        )
    each = list(temperature) * len(sizes) if len(temperature) == 1 else list(temperature)
    if not model.plan:
        return torch.full((model.latent_dims,), each[0])
    parts = [
        torch.full((group.size,), each[sizes.index((group.height, group.width))])
        for group in model.plan
    ]
    return torch.cat(parts)


def check_groups(model: ModelConfig, count: int, name: str) -> None:
    """Check that a model has so many groups of latents.

    Raises:
        ConfigError: it does not; `name` is the setting.
    """
    if count > len(model.plan):
        has = f"only {len(model.plan)}" if model.plan else f"none, being of network {model.network}"
        raise ConfigError(f"{name} {count} asks for groups of latents, and the model has {has}")


def end_of(model: ModelConfig, groups: int) -> int:
    """Number of latents of the first so many groups of a ladder."""
    return sum(group.size for group in model.plan[:groups])


def reconstruct_from_top(vae: VAE, images: Tensor, groups: int) -> Tensor:
    """What the first groups of a ladder know of images: the others take their priors' means.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W].
        groups: How many, from the coarsest, at least 1.

    Returns:
        float32 in [0, 1], shape [N, C, H, W], on the CPU.

    Raises:
        ConfigError: the model has not so many groups.
    """
    check_groups(vae.config, groups, "top")
    end = end_of(vae.config, groups)
    found: list[Tensor] = []
    for model, part in each_part(vae, images.split(batch_size(vae))):
        (z,) = map_posteriors(model, (part,), lambda q: q.location[:, :end])
        found.append(decode(model, z))
    return torch.cat(found)
