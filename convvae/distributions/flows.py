"""Normalising flows, by zuko: a prior p(z), and a posterior q(z|x) that bends its Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from convvae.distributions.posteriors import DiagonalGaussian, Posterior
from convvae.distributions.priors import Prior
from convvae.errors import missing_extra

if TYPE_CHECKING:
    from zuko.flows.coupling import GeneralCouplingTransform
    from zuko.lazy import Flow
    from zuko.transforms import DependentTransform


FLOW_WIDTHS = (128, 128)
"""Widths of the hidden layers of every network in a flow."""


class FlowPrior(Prior):
    r"""p(z) = N(f(z); 0, I) |det df/dz|, f a masked autoregressive flow of three affine layers.

    Args:
        latent_dims: Number of latents D.

    Raises:
        MissingExtraError: zuko is not installed.

    Source: Papamakarios et al. 2017, https://arxiv.org/abs/1705.07057; as a VAE's prior, Chen et
    al. 2017, https://arxiv.org/abs/1611.02731
    """

    def __init__(self, latent_dims: int) -> None:
        super().__init__(latent_dims)
        self.flow = masked_autoregressive_flow(latent_dims)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z of shape [count, D] on the CPU, from `generator` or torch's global one."""
        noise = torch.randn(count, self.latent_dims, generator=generator)
        device = next(self.flow.parameters()).device
        with torch.no_grad():
            return self.flow().transform.inv(noise.to(device)).cpu()

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, shape [...] for z of shape [..., D]; always in float32."""
        with torch.autocast(z.device.type, enabled=False):
            return self.flow().log_prob(z)


def masked_autoregressive_flow(latent_dims: int) -> Flow:
    """An unconditional flow of three affine autoregressive layers over D latents.

    Raises:
        MissingExtraError: zuko is not installed.
    """
    try:
        from zuko.flows import MAF
    except ModuleNotFoundError as error:
        raise missing_extra("a normalising flow", "flows") from error
    return MAF(latent_dims, transforms=3, hidden_features=FLOW_WIDTHS)


class FlowPosterior(Posterior):
    r"""q(z|x): z = f(z0; mu, logvar) with z0 ~ N(mu, diag exp(logvar)), f invertible in z0.

    log q(z|x) = log N(z0; mu, diag exp(logvar)) - log |det df/dz0| at z0 = f^-1(z).

    Args:
        base: The Gaussian of z0.
        inverse: f^-1, which leads from z to z0.

    Source: Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770
    """

    def __init__(self, base: DiagonalGaussian, inverse: Couplings) -> None:
        self.base = base
        self.inverse = inverse

    @property
    def location(self) -> Tensor:
        """f(mu), shape [B, D]; E[z], which has no closed form, is another point."""
        return self._forward(self.base.mean)

    def rsample(self, eps: Tensor) -> Tensor:
        r"""Reparameterised draws z = f(mu + sigma eps), shape [..., B, D]."""
        return self._forward(self.base.rsample(eps))

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, shape [..., B] for z of shape [..., B, D]."""
        with torch.autocast(z.device.type, enabled=False):
            z0, log_det = self.inverse.call_and_ladj(z)
            return self.base.log_prob(z0) + log_det

    def _forward(self, z0: Tensor) -> Tensor:
        with torch.autocast(z0.device.type, enabled=False):
            return self.inverse.inv(z0)


class Coupling(NamedTuple):
    """A layer: some latents are kept, and say how the others are scaled and shifted."""

    network: GeneralCouplingTransform
    kept: list[int]
    changed: list[int]
    order: list[int]
    """Puts the kept and the changed, side by side, back into their places."""

    @classmethod
    def of(cls, network: GeneralCouplingTransform) -> Coupling:
        """The layer of one of zuko's networks."""
        mask = cast("Tensor", network.mask)
        kept, changed = (where.nonzero().flatten().tolist() for where in (mask, ~mask))
        return cls(network, kept, changed, torch.tensor(kept + changed).argsort().tolist())


class Couplings:
    """f^-1, layer by layer, with the networks of zuko's `RealNVP` and its parameters.

    zuko's own transform searches its masks for their ones whenever it is made. A graph that does so
    has axes of unknown length, and `torch.export.load` refuses it; here the places are numbers.

    Args:
        layers: From z to z0.
        context: What all networks see, shape [B, S].
    """

    def __init__(self, layers: Sequence[Coupling], context: Tensor) -> None:
        self.layers = layers
        self.context = context

    def call_and_ladj(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z0 and log |det dz0/dz|, shapes [..., B, D] and [..., B]."""
        log_det = torch.zeros((), device=z.device)
        for layer in self.layers:
            kept = z[..., layer.kept]
            transform = cast("DependentTransform", layer.network.meta(self.context, kept))
            changed, more = transform.call_and_ladj(z[..., layer.changed])
            z, log_det = torch.cat((kept, changed), -1)[..., layer.order], log_det + more
        return z, log_det

    def inv(self, z0: Tensor) -> Tensor:
        """z, shape [..., B, D]."""
        for layer in reversed(self.layers):
            kept = z0[..., layer.kept]
            transform = layer.network.meta(self.context, kept)
            changed = transform.inv(z0[..., layer.changed])
            assert changed is not None
            z0 = torch.cat((kept, changed), -1)[..., layer.order]
        return z0


class ConditionalFlow(nn.Module):
    """The networks of a `FlowPosterior`: four affine coupling layers that see mu and logvar.

    Both directions take one pass, so that drawing and scoring cost the same.

    Args:
        latent_dims: Number of latents D, at least 2.

    Raises:
        MissingExtraError: zuko is not installed.

    Source: Dinh et al. 2017, https://arxiv.org/abs/1605.08803
    """

    def __init__(self, latent_dims: int) -> None:
        super().__init__()
        try:
            from zuko.flows import RealNVP
        except ModuleNotFoundError as error:
            raise missing_extra("a flow posterior", "flows") from error
        self.flow = RealNVP(
            latent_dims, context=2 * latent_dims, transforms=4, hidden_features=FLOW_WIDTHS
        )
        networks = cast("list[GeneralCouplingTransform]", self.flow.transform.transforms)
        self.layers = [Coupling.of(network) for network in networks]

    def forward(self, base: DiagonalGaussian) -> FlowPosterior:
        """The posterior whose Gaussian is `base`."""
        context = torch.cat((base.mu, base.logvar), -1)
        return FlowPosterior(base, Couplings(self.layers, context))
