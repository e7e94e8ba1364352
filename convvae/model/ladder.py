"""The posterior and the prior of a ladder: one vector z outside, a walk from the top inside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from convvae.distributions import Posterior, Prior
from convvae.distributions.gaussian import normal_kl, normal_log_density
from convvae.networks.ladder import Conditional, TopDown

AT_A_TIME = 250
"""Draws of the prior that are made at a time, so that memory does not grow with their number."""


class Descent(NamedTuple):
    """One pass from the top to the image, with z drawn from the posterior."""

    z: Tensor
    """Shape [K, B, D]."""
    output: Tensor
    """Raw output of p(x|z), shape [K, B, C, H, W]."""
    kl: Tensor
    """KL(q(z_l|z_<l, x) || p(z_l|z_<l)) of the L groups, given the draws above; nats, [L, K, B]."""
    log_ratio: Tensor
    """log p(z) - log q(z|x), nats, shape [K, B]."""


class LadderPosterior(Posterior):
    r"""q(z|x) = prod_l q(z_l | z_<l, x), each a diagonal Gaussian.

    Args:
        decoder: The way down.
        seen: What each group sees of the images, shapes [B, W, h, w].
    """

    def __init__(self, decoder: TopDown, seen: list[Tensor]) -> None:
        self.decoder = decoder
        self.seen = seen

    def __repr__(self) -> str:
        groups = len(self.decoder.groups)
        return f"{type(self).__name__}(q(z|x) of {len(self.seen[0])} images, {groups} groups)"

    @property
    def location(self) -> Tensor:
        """The mean of each group given the means above it, shape [B, D]: a path, and not E[z]."""
        return self.path()[0]

    def path(self) -> tuple[Tensor, Tensor]:
        """Means and log-variances of each group, given the means above it: shape [B, D] each."""
        means: list[Tensor] = []
        logvars: list[Tensor] = []

        def choose(place: int, prior: Conditional, state: Tensor) -> Tensor:
            q = self._infer(place, prior, state)
            means.append(q.mu.flatten(1))
            logvars.append(2 * q.std.log().flatten(1))
            return q.mu

        self.decoder.walk(self.seen[0].shape[0], choose)
        return torch.cat(means, 1), torch.cat(logvars, 1)

    def rsample(self, eps: Tensor) -> Tensor:
        r"""Reparameterised draws z_l = mu_l + std_l eps_l from the top down, shape [..., B, D]."""
        return self.descend(eps.reshape(-1, *eps.shape[-2:])).z.reshape(eps.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, shape [..., B] for z of shape [..., B, D]."""
        parts = self.decoder.split(z.reshape(-1, z.shape[-1]))
        total = z.new_zeros(z.shape[:-1])

        def choose(place: int, prior: Conditional, state: Tensor) -> Tensor:
            nonlocal total
            each = normal_log_density(parts[place], *self._infer(place, prior, state))
            total = total + each.flatten(1).sum(1).view(total.shape)
            return parts[place]

        self.decoder.walk(len(parts[0]), choose)
        return total

    def descend(self, eps: Tensor) -> Descent:
        """Draw z and all that follows from it in one pass.

        Args:
            eps: Standard normal noise, shape [K, B, D].
        """
        draws, batch = eps.shape[:2]
        noise = self.decoder.split(eps.flatten(0, 1))
        zs: list[Tensor] = []
        kls: list[Tensor] = []
        ratios: list[Tensor] = []

        def choose(place: int, p: Conditional, state: Tensor) -> Tensor:
            q = self._infer(place, p, state)
            z = q.mu + q.std * noise[place]
            zs.append(z.flatten(1))
            kls.append(normal_kl(*q, *p).flatten(1).sum(1))
            ratio = normal_log_density(z, *p) - normal_log_density(z, *q)
            ratios.append(ratio.flatten(1).sum(1))
            return z

        output = self.decoder.walk(draws * batch, choose)
        by_image = (draws, batch)
        return Descent(
            torch.cat(zs, 1).unflatten(0, by_image),
            output.unflatten(0, by_image),
            torch.stack(kls).unflatten(1, by_image),
            torch.stack(ratios).sum(0).unflatten(0, by_image),
        )

    def _infer(self, place: int, prior: Conditional, state: Tensor) -> Conditional:
        return self.decoder.rung(place).infer(state, self.seen[place], prior)


class LadderPrior(Prior):
    r"""p(z) = prod_l p(z_l | z_<l), each a diagonal Gaussian.

    Args:
        decoder: The way down, which belongs to the model.
    """

    def __init__(self, decoder: TopDown) -> None:
        super().__init__(sum(group.size for group in decoder.groups))
        # A method, not the module: its weights are the decoder's, and stay there alone.
        self._walk, self._split = decoder.walk, decoder.split

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z of shape [count, D] on the CPU, from `generator` or torch's global one."""
        eps = torch.randn(count, self.latent_dims, generator=generator)
        return torch.cat([self.draw(part).cpu() for part in eps.split(AT_A_TIME)])

    @torch.no_grad()
    def draw(self, eps: Tensor, top: Tensor | None = None) -> Tensor:
        """z that noise leads to: z_l = mu_l + std_l eps_l from the top down.

        Args:
            eps: Noise, shape [B, D]; standard normal for draws of p(z), smaller for a lower
                temperature.
            top: Latents of the first groups that are held, shape [B, D'], D' <= D; none if absent.
        """
        found: list[Tensor] = []
        parts = self._split(eps)
        held = [] if top is None or not top.shape[1] else self._split(top)

        def choose(place: int, p: Conditional, state: Tensor) -> Tensor:
            given = held[place].to(p.mu) if place < len(held) else None
            z = p.mu + p.std * parts[place].to(p.mu.device) if given is None else given
            found.append(z.flatten(1))
            return z

        self._walk(len(eps), choose)
        return torch.cat(found, 1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, shape [...] for z of shape [..., D]."""
        parts = self._split(z.reshape(-1, z.shape[-1]))
        total = z.new_zeros(z.shape[:-1])

        def choose(place: int, p: Conditional, state: Tensor) -> Tensor:
            nonlocal total
            total = total + normal_log_density(parts[place], *p).flatten(1).sum(1).view(total.shape)
            return parts[place]

        self._walk(len(parts[0]), choose)
        return total
