"""Where to draw z from once a model is trained: densities fitted to its aggregate posterior.

The codes of images, q(z) = 1/N sum_n q(z|x_n), never fill the prior exactly, and draws of the prior
from the holes decode badly. A density fitted to the codes afterwards is a prior for the same model:
images are generated from it, and bounds under it are bounds of the model that has it.

Source: Ghosh et al. 2020, section 4, https://arxiv.org/abs/1903.12436
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from convvae import runtime
from convvae.distributions import FlowPrior, FullMixture, Posterior, Prior
from convvae.errors import ConfigError
from convvae.evaluation.encode import batch_size, map_posteriors
from convvae.model.vae import VAE

SamplerName = Literal["mixture", "flow"]

MAX_IMAGES = 20_000
"""Images whose codes are fitted, at most."""
DRAWS_PER_IMAGE = 4
"""Draws of each image's posterior."""
MAX_COMPONENTS = 20
"""Gaussians of a mixture, at most; each has at least `PER_COMPONENT` codes."""
PER_COMPONENT = 50
FLOW_STEPS = 3000
"""Steps of a flow's training."""
FLOW_BATCH = 512
FLOW_RATE = 2e-3
"""Peak learning rate of a flow's training, which falls to zero."""


def fit_sampler(name: SamplerName, vae: VAE, images: Tensor, *, seed: int) -> Prior:
    """A density fitted to the codes of images, to stand in for the prior.

    Args:
        name: `mixture`, of Gaussians with full covariances, by scikit-learn; or `flow`, a masked
            autoregressive flow.
        vae: The model.
        images: Training images, uint8, shape [N, C, H, W]; at most `MAX_IMAGES` are taken, by
            chance.
        seed: Of the choice, the draws and the fit.

    Raises:
        ConfigError: the model is a ladder.
        MissingExtraError: a flow is asked for and zuko is not installed.
    """
    if vae.config.plan:
        raise ConfigError(
            "a ladder has a prior of each group given the groups above, and no density of its "
            f"{vae.config.latent_dims:,} latents is fitted; leave out `sampler`"
        )
    z = draw_codes(vae, images, seed=seed)
    return fit_mixture(z, seed=seed) if name == "mixture" else fit_flow(z, seed=seed)


def draw_codes(vae: VAE, images: Tensor, *, seed: int) -> Tensor:
    """Draws of the aggregate posterior, shape [DRAWS * N, D], float32, on the CPU.

    Args:
        vae: The model.
        images: uint8, shape [N, C, H, W]; at most `MAX_IMAGES` are taken, by chance.
        seed: Of the choice and of the draws.
    """
    generator = runtime.generator(seed, "sampler")
    chosen = torch.randperm(len(images), generator=generator)[:MAX_IMAGES]
    parts = chosen.split(batch_size(vae))
    shapes = ((DRAWS_PER_IMAGE, len(part), vae.config.latent_dims) for part in parts)

    def drawn(q: Posterior) -> Tensor:
        eps = torch.randn(next(shapes), generator=generator)
        return q.rsample(eps.to(vae.device)).flatten(0, 1).cpu()

    return torch.cat([*map_posteriors(vae.at(chosen), (images[part] for part in parts), drawn)])


def fit_mixture(z: Tensor, *, seed: int) -> FullMixture:
    """The mixture of Gaussians of the highest likelihood that expectation maximisation finds.

    Args:
        z: Codes, shape [N, D].
        seed: Of its start.
    """
    components = max(1, min(MAX_COMPONENTS, len(z) // PER_COMPONENT))
    fitted = GaussianMixture(components, random_state=seed % 2**32, reg_covar=1e-5)
    fitted.fit(z.double().numpy())
    covariance = torch.from_numpy(fitted.covariances_)
    return FullMixture(
        torch.from_numpy(fitted.weights_).log().float(),
        torch.from_numpy(fitted.means_).float(),
        torch.linalg.cholesky(covariance).float(),
    )


def fit_flow(z: Tensor, *, seed: int) -> FlowPrior:
    """A flow trained to give the codes a high likelihood.

    Args:
        z: Codes, shape [N, D].
        seed: Of its weights and of the order of the codes.

    Raises:
        MissingExtraError: zuko is not installed.
    """
    with runtime.seeded(seed, "sampler flow"):
        prior = FlowPrior(z.shape[1])
    optimizer = torch.optim.Adam(prior.parameters(), FLOW_RATE)
    generator = runtime.generator(seed, "sampler batches")
    for step in range(FLOW_STEPS):
        some = z[torch.randint(len(z), (FLOW_BATCH,), generator=generator)]
        for group in optimizer.param_groups:
            group["lr"] = FLOW_RATE * 0.5 * (1 + math.cos(math.pi * step / FLOW_STEPS))
        optimizer.zero_grad()
        (-prior.log_prob(some).mean()).backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        optimizer.step()
    return prior.requires_grad_(False)
