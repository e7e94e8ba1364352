"""Binary images as four interleaved ones, each given those before it.

A decoder that makes every pixel by itself has to say through its latents what neighbours have in
common, down to the last bit. Here a pixel also sees neighbours that are known by then, in four
steps for an image of any size, not one for each pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import silu

from convvae.distributions.likelihoods import Bernoulli, Head, Likelihood, uniform

FOLD = 2
"""Pixels a side of the squares of which each interleaved image has one pixel."""
PHASES = FOLD**2
ORDER = (0, 3, 1, 2)
"""Places in a square, row by row, in the order in which they become known: first a diagonal."""
TURNS = (0, 2, 3, 1)
"""At which turn each place becomes known."""
PIXEL_FEATURES = 16
"""Numbers that the decoder says about a pixel, beside its logit, for the steps after the first."""
STEP_FILTERS = 64
"""Channels of each step's network."""


class InterleavedBernoulli(Likelihood):
    r"""p(x|z) = prod_g prod_i m_gi^x_gi (1 - m_gi)^(1 - x_gi), m_g = sigmoid(l_g(z, x_<g)).

    The four images g are the pixels at each place of the squares of 2x2. Over binary x it sums to
    1, as a product of conditional probabilities. Grey x are not defined: l depends on x, so that
    log p(x|z) is not linear in it.

    Args:
        output: The decoder's raw output, shape [..., (1 + PIXEL_FEATURES) C, H, W].
        score: Raw output and images, [N, ...] each -> logits [N, C, H, W], of which those of
            image g see only the images before it.

    Source: Reed et al. 2017, https://arxiv.org/abs/1703.03664; with latents, Gulrajani et al. 2017,
    https://arxiv.org/abs/1611.05013
    """

    def __init__(self, output: Tensor, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.output = output
        self.score = score
        self.shape = (
            *output.shape[:-3],
            output.shape[-3] // (1 + PIXEL_FEATURES),
            *output.shape[-2:],
        )

    def logits(self, x: Tensor) -> Tensor:
        """l of every pixel where the pixels known before it are those of x; [..., C, H, W]."""
        lead = torch.broadcast_shapes(self.shape[:-3], x.shape[:-3])
        x = x.expand(*lead, *x.shape[-3:])
        output = self.output.expand(*lead, *self.output.shape[-3:])
        flat = self.score(output.reshape(-1, *output.shape[-3:]), x.reshape(-1, *x.shape[-3:]))
        return flat.view(x.shape)

    @property
    def mean(self) -> Tensor:
        """E[x|z] where each image is given the means of those before it, shape [..., C, H, W].

        Exact for the first image, and for the others as good as their logits are linear.
        """
        return self._in_turn(torch.sigmoid)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, shape [...]."""
        return Bernoulli(self.logits(x)).log_prob(x)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x in {0, 1} on the CPU, shape [..., C, H, W]."""
        noise = uniform(self.output.new_empty(self.shape), generator).to(self.output.device)
        return self._in_turn(lambda logits: (noise < torch.sigmoid(logits)).to(noise)).cpu()

    def _in_turn(self, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Images made of their logits, one interleaved image after the other."""
        x = self.output.new_zeros(self.shape)
        for step in range(PHASES):
            x = torch.where(self._of(step), choose(self.logits(x)), x)
        return x

    def _of(self, step: int) -> Tensor:
        """Which pixels belong to an interleaved image, [H, W]."""
        height, width = self.shape[-2:]
        across, along = divmod(ORDER[step], FOLD)
        rows = torch.arange(height, device=self.output.device) % FOLD == across
        columns = torch.arange(width, device=self.output.device) % FOLD == along
        return rows[:, None] & columns


class InterleavedBernoulliHead(Head):
    """Logit, and features, of every pixel; a small network of each step adds to the logits.

    It sees the features and the images known by then, 5 squares a side around each. Its end starts
    at zero, so that at first the likelihood is a Bernoulli. Each channel is on its own.
    """

    outputs = 1 + PIXEL_FEATURES

    def __init__(self, variance: float) -> None:
        super().__init__(variance)
        later = range(1, PHASES)
        self.known = nn.ModuleList(nn.Conv2d(step, STEP_FILTERS, 3, padding=1) for step in later)
        hidden = STEP_FILTERS * len(later)
        self.features = nn.Conv2d(PIXEL_FEATURES * PHASES, hidden, 1)
        self.around = nn.Conv2d(hidden, hidden, 3, padding=1, groups=len(later))
        self.last = nn.Conv2d(hidden, len(later), 1, groups=len(later))
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""
        return InterleavedBernoulli(output, self.score)

    def score(self, output: Tensor, x: Tensor) -> Tensor:
        """Raw output [N, (1 + F) C, H, W], images x [N, C, H, W] -> logits [N, C, H, W]."""
        height, width = x.shape[-2:]
        # [N C, ...]: each channel on its own, its logit first.
        parts = output.unflatten(1, (1 + PIXEL_FEATURES, -1)).transpose(1, 2).flatten(0, 1)
        first = squares(parts[:, :1])[:, ORDER]
        pixels = squares(2 * x.flatten(0, 1).unsqueeze(1) - 1)[:, ORDER]
        seen = [known(pixels[:, :step]) for step, known in enumerate(self.known, start=1)]
        h = torch.cat(seen, 1) + self.features(squares(parts[:, 1:]))
        h = h + self.around(silu(h))
        added = F.pad(self.last(silu(h)).to(first), (0, 0, 0, 0, 1, 0))
        logits = F.pixel_shuffle((first + added)[:, TURNS], FOLD)
        return logits[..., :height, :width].view(x.shape)


def squares(x: Tensor) -> Tensor:
    """Squares of 2x2 pixels to channels: [N, C, H, W] -> [N, 4 C, H / 2, W / 2], rounded up."""
    height, width = x.shape[-2:]
    return F.pixel_unshuffle(F.pad(x, (0, -width % FOLD, 0, -height % FOLD)), FOLD)
