"""A ladder of latent maps: images to features bottom-up, latents to images top-down.

L groups of latents z_1 ... z_L lie on maps of growing resolution. The top-down path carries a
state h from the coarsest map to the image; at every group it says p(z_l | z_<l), takes a z_l from
whoever walks it, and goes on. The bottom-up path gives every group what it knows of the image, from
which and from h follows q(z_l | z_<l, x).

Source: Sonderby et al. 2016, https://arxiv.org/abs/1602.02282; Vahdat & Kautz 2020,
https://arxiv.org/abs/2007.03898; Child 2021, https://arxiv.org/abs/2011.10650; Hazami, Mama &
Thurairatnam 2022, https://arxiv.org/abs/2203.13751
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import silu

from convvae.networks.base import wide
from convvae.parts import Group

SHARPNESS = math.log(2)
"""Of the softplus that makes standard deviations: softplus(0) / ln 2 = 1."""
LEAST_STD = 1e-3
"""Least standard deviation, so that no density overflows."""


class Conditional(NamedTuple):
    """A Gaussian N(mu, diag std^2) of a group's latents, shape [B, c, h, w] each, float32."""

    mu: Tensor
    std: Tensor


Choose = Callable[[int, Conditional, Tensor], Tensor]
"""Group, its prior, the state for its posterior -> z of the group, shape [B, c, h, w]."""


def conv(inputs: int, outputs: int, kernel: int = 3, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the size, its starting weights multiplied by `gain`."""
    made = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    assert made.bias is not None
    nn.init.zeros_(made.bias)
    with torch.no_grad():
        made.weight.mul_(gain)
    return made


class Block(nn.Module):
    """x + f(x), f two pre-activated 3x3 convolutions whose end starts at 1 / sqrt(L).

    Source: He et al. 2016, https://arxiv.org/abs/1603.05027; the scale from Child 2021
    """

    def __init__(self, filters: int, gain: float) -> None:
        super().__init__()
        self.conv1 = conv(filters, filters // 2)
        self.conv2 = conv(filters // 2, filters, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, h, w] -> [B, W, h, w]."""
        return x + self.conv2(silu(self.conv1(silu(x))))


class BottomUp(nn.Module):
    """Images to what each group's posterior sees of them.

    The image is folded: `fold` x `fold` pixels become channels of one cell. Then a residual block a
    group, and means over 2x2 cells between resolutions.

    Args:
        groups: From the coarsest to the finest.
        channels: Channels C of the images.
        filters: Width W of the path.
        fold: Pixels a side of a cell of the finest map.
    """

    def __init__(self, groups: Sequence[Group], channels: int, filters: int, fold: int) -> None:
        super().__init__()
        self.groups = groups
        self.fold = fold
        gain = 1 / math.sqrt(len(groups))
        self.stem = conv(channels * fold**2, filters)
        self.blocks = nn.ModuleList(Block(filters, gain) for _ in groups)
        self.views = nn.ModuleList(conv(filters, filters // 2, 1) for _ in groups)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, C, H, W] in [0, 1] -> for each group, coarsest first, [B, W, h, w]."""
        h = self.stem(folded(2 * x - 1, self.fold))
        found: list[Tensor] = []
        for group, block, view in reversed(
            list(zip(self.groups, self.blocks, self.views, strict=True))
        ):
            if h.shape[-2:] != (group.height, group.width):
                h = F.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False)
            h = block(h)
            found.append(view(silu(h)))
        return found[::-1]


class Rung(nn.Module):
    """One group on the way down: its prior, its posterior, and the step to the next state.

    The heads start at zero, so that at first p and q are both N(0, I).
    """

    def __init__(self, group: Group, filters: int, gain: float) -> None:
        super().__init__()
        inner = filters // 2
        self.look = conv(filters, 2 * inner)
        self.prior = conv(inner, 2 * group.channels, 1, gain=0)
        self.step = conv(inner, filters, gain=gain)
        self.posterior = conv(inner, 2 * group.channels, gain=0)
        self.latents = conv(group.channels, filters, 1, gain=gain)

    def ahead(self, h: Tensor) -> tuple[Conditional, Tensor, Tensor]:
        """What follows from the state alone.

        Args:
            h: The state, shape [B, W, h, w].

        Returns:
            p(z_l | z_<l), the next state but for z_l, and what the posterior takes of the state.
        """
        hidden, state = self.look(silu(h)).chunk(2, 1)
        hidden = silu(hidden)
        return conditional(self.prior(hidden)), h + self.step(hidden), state

    def infer(self, state: Tensor, seen: Tensor, prior: Conditional) -> Conditional:
        """q(z_l | z_<l, x), its mean relative to the prior's.

        Args:
            state: From `ahead`, shape [K B, W / 2, h, w].
            seen: What is seen of the images, shape [B, W / 2, h, w].
            prior: p(z_l | z_<l), shapes [K B, c, h, w].
        """
        if state.shape[0] == seen.shape[0]:  # as always in a graph for export, whose B is a symbol
            both = state + seen
        else:
            both = (state.unflatten(0, (-1, len(seen))) + seen).flatten(0, 1)
        found = conditional(self.posterior(silu(both)))
        return Conditional(prior.mu + found.mu, found.std)


class TopDown(nn.Module):
    """Latents to the raw output of p(x|z), before the likelihood.

    Args:
        groups: From the coarsest to the finest.
        image_size: Height and width of the images.
        channels: Channels of the raw output.
        filters: Width W of the path.
        fold: Pixels a side of a cell of the finest map.
        condition: Numbers C that are known of an image, added to the state at the top by a linear
            map: all that lies below hangs on them, the priors too.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        image_size: tuple[int, int],
        channels: int,
        filters: int,
        fold: int,
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.image_size = image_size
        self.fold = fold
        gain = 1 / math.sqrt(len(groups))
        self.start = nn.Parameter(torch.zeros(filters, groups[0].height, groups[0].width))
        self.rungs = nn.ModuleList(Rung(group, filters, gain) for group in groups)
        self.conv = conv(filters, channels * fold**2)
        self.known = nn.Linear(condition, filters, bias=False) if condition else None
        self.y: Tensor | None = None

    def given(self, y: Tensor) -> TopDown:
        """The way down for images whose y is known, shape [B, C] or [1, C]; it shares weights."""
        made = copy.copy(self)
        made.y = y
        return made

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, [C, fold^2]: the raw output where the features say nothing."""
        assert self.conv.bias is not None
        return self.conv.bias.unflatten(0, (-1, self.fold**2))

    def rung(self, place: int) -> Rung:
        """The group at a place, from the top."""
        rung = self.rungs[place]
        assert isinstance(rung, Rung)
        return rung

    def walk(self, count: int, choose: Choose) -> Tensor:
        """Go from the top to the image, each group's z as `choose` says.

        Args:
            count: Images B.
            choose: Gives z of a group, from its prior and what its posterior takes of the state.

        Returns:
            The raw output, shape [B, C, H, W].
        """
        h = self._top(count)
        for place, group in enumerate(self.groups):
            if h.shape[-2:] != (group.height, group.width):
                h = F.interpolate(h, scale_factor=2.0)[..., : group.height, : group.width]
            rung = self.rung(place)
            prior, ahead, state = rung.ahead(h)
            h = ahead + rung.latents(choose(place, prior, state))
        height, width = self.image_size
        return F.pixel_shuffle(self.conv(silu(h)), self.fold)[..., :height, :width]

    def _top(self, count: int) -> Tensor:
        """The state at the top of so many images, those of each draw together, [B, W, h, w]."""
        h = self.start.expand(count, -1, -1, -1)
        if self.known is None or self.y is None:
            return h
        added = self.known(self.y)[:, :, None, None]
        if added.shape[0] not in (count, 1):  # several draws per image
            added = added.repeat(count // added.shape[0], 1, 1, 1)
        return h + added

    def forward(self, z: Tensor) -> Tensor:
        """Latents to the raw output.

        Args:
            z: Of all groups, or of the first ones, shape [B, D'], D' <= D; the groups that are left
                out take the means of their priors.

        Returns:
            The raw output, shape [B, C, H, W].
        """
        parts = self.split(z)

        def choose(place: int, prior: Conditional, state: Tensor) -> Tensor:
            return parts[place] if place < len(parts) else prior.mu

        return self.walk(z.shape[0], choose)

    def split(self, z: Tensor) -> list[Tensor]:
        """z [B, D'] of whole groups, the first ones -> their maps, [B, c, h, w] each."""
        shown = [group for group in self.groups if group.start + group.size <= z.shape[-1]]
        parts = z.split([group.size for group in shown], -1)
        return [
            part.unflatten(-1, (group.channels, group.height, group.width))
            for part, group in zip(parts, shown, strict=True)
        ]


def conditional(raw: Tensor) -> Conditional:
    """Two maps a latent -> mean and standard deviation; 0 gives N(0, 1)."""
    mu, spread = wide(raw).chunk(2, 1)
    std = F.softplus(spread, beta=SHARPNESS)
    return Conditional(mu, LEAST_STD + (1 - LEAST_STD) * std)


def folded(x: Tensor, fold: int) -> Tensor:
    """Squares of `fold` x `fold` pixels to channels, the edge repeated where one is not full."""
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % fold, 0, -height % fold), mode="replicate")
    return F.pixel_unshuffle(x, fold)
