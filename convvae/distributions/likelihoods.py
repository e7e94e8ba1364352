"""Likelihoods p(x|z): what a decoder's raw output says of the pixels.

A likelihood is always reduced to one number per image: `log_prob` sums over channels and pixels, in
nats. Pixels x are in [0, 1]; an 8-bit value v is x = v / 255. A *head* turns the raw output of a
decoder, with `outputs` numbers per value of the image, into the likelihood.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convvae.distributions import display
from convvae.distributions.gaussian import gaussian_log_density
from convvae.distributions.rounded import LEVELS, rounded_mean
from convvae.errors import ConfigError

LOG_SCALE_RANGE = (-7.0, 3.0)
"""Logarithms of the scales of logistics are clamped to this range."""
START_LOG_SCALE = -2.0
"""log b where the raw output is 0."""
COMPONENTS = 5
"""Logistics of a mixture."""
NORMALISER_SERIES = (
    *(1 / 24, -1 / 2880, 1 / 181_440, -1 / 9_676_800),
    *(1 / 479_001_600, -691 / 15_692_092_416_000),
)
"""A(l) = l / 2 + l^2 (1 / 24 - l^2 / 2880 + ...), B_2n / (2n (2n)!) with Bernoulli's numbers."""
MEAN_SERIES = (
    *(1 / 12, -1 / 720, 1 / 30_240, -1 / 1_209_600),
    *(1 / 47_900_160, -691 / 1_307_674_368_000),
)
"""Its derivative, 1/2 + l (1 / 12 - l^2 / 720 + ...), B_2n / (2n)!."""


class Likelihood(ABC):
    """A distribution p(x|z) over images x of shape [..., C, H, W]."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E[x|z], shape [..., C, H, W]."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over C, H, W: shape [...]."""

    def log_probs(self, x: Tensor) -> Tensor:
        """log p of every value, nats, shape [..., C, H, W], whose sum is `log_prob`.

        Of every pixel, [..., 1, H, W], where its channels depend on each other.

        Raises:
            ConfigError: it has none, as where pixels depend on each other given z.
        """
        raise ConfigError(
            f"{type(self).__name__} scores whole images only, and pixels are missing; choose a "
            "model of another likelihood (one of your own needs the method log_probs)"
        )

    def log_prob_of(self, x: Tensor, observed: Tensor) -> Tensor:
        """log p of the observed pixels alone, nats, shape [...]: the others are integrated out.

        Values are independent given z, so that those that are missing leave the sum.

        Args:
            x: Images; what is at missing pixels must be in [0, 1], and does not matter.
            observed: bool, shape [..., 1, H, W].

        Source: Mattei & Frellsen 2019, equation 4, https://arxiv.org/abs/1812.02633
        """
        return _sum(torch.where(observed, self.log_probs(x), 0.0))

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x on the CPU, shape [..., C, H, W]; densities may leave [0, 1]."""

    def __repr__(self) -> str:
        shape = "x".join(str(size) for size in self.mean.shape)
        return f"{type(self).__name__}(p(x|z) over x of {shape})"

    def _repr_png_(self) -> bytes:
        """The means, as a notebook shows them."""
        return display.picture(self.mean)


class Bernoulli(Likelihood):
    r"""p(x|z) = prod m^x (1 - m)^(1 - x) with m = sigmoid(logits).

    Normalised over binary x. For grey x in (0, 1) the same expression is the expected log-
    probability of the image binarised at random with probabilities x: a cross-entropy, not a
    density, and not to be compared with one.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def mean(self) -> Tensor:
        """E[x|z] = sigmoid(logits), shape [..., C, H, W]."""
        return torch.sigmoid(self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, shape [...]."""
        return _sum(self.log_probs(x))

    def log_probs(self, x: Tensor) -> Tensor:
        """log p of every value, nats, shape [..., C, H, W]."""
        logits, x = torch.broadcast_tensors(self.logits, x)
        return -F.binary_cross_entropy_with_logits(logits, x, reduction="none")

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x in {0, 1} on the CPU, shape [..., C, H, W]."""
        return (uniform(self.logits, generator) < self.mean.cpu()).float()


class ContinuousBernoulli(Likelihood):
    r"""p(x|z) = prod exp(x l - A(l)) over x in [0, 1], with A(l) = log((exp(l) - 1) / l), l logits.

    The same as prod C(m) m^x (1 - m)^(1 - x) with m = sigmoid(l) and C = l / tanh(l / 2). Each
    formula here is one that float32 keeps exact: with the distance from the end of [0, 1] at which
    the density is highest, which leaves only exp(-|l|); and near l = 0 with the series of A.

    Source: Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def mean(self) -> Tensor:
        """E[x|z] = dA/dl = 1 / (1 - exp(-l)) - 1 / l, which is not m, shape [..., C, H, W]."""
        is_small, magnitude = self._magnitude()
        small = _polynomial(self.logits, is_small, MEAN_SERIES) * self.logits + 0.5
        from_end = 1 / magnitude + torch.exp(-magnitude) / torch.expm1(-magnitude)
        return torch.where(is_small, small, torch.where(self.logits > 0, 1 - from_end, from_end))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, shape [...]."""
        return _sum(self.log_probs(x))

    def log_probs(self, x: Tensor) -> Tensor:
        """log p of every value, nats, shape [..., C, H, W]."""
        is_small, magnitude = self._magnitude()
        series = _polynomial(self.logits, is_small, NORMALISER_SERIES) * self.logits**2
        small = (x - 0.5) * self.logits - series
        from_end = torch.where(self.logits > 0, 1 - x, x)
        large = magnitude.log() - (-torch.expm1(-magnitude)).log() - magnitude * from_end
        return torch.where(is_small, small, large)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x in [0, 1] on the CPU, shape [..., C, H, W]."""
        logits, u = self.logits.cpu().double(), uniform(self.logits, generator).double()
        # x of -l at u is 1 - x of l at 1 - u; beyond 1e-30 from zero, x is u to the last digit.
        magnitude = logits.abs().clamp_min(1e-30)
        rest = torch.where(logits > 0, 1 - u, u)
        from_end = -torch.log1p(rest * torch.expm1(-magnitude)) / magnitude
        return torch.where(logits > 0, 1 - from_end, from_end).float()

    def _magnitude(self) -> tuple[Tensor, Tensor]:
        """Where |l| < 1, and |l|, 1 in its place there: no formula divides by zero."""
        is_small = self.logits.abs() < 1
        return is_small, self.logits.abs().masked_fill(is_small, 1.0)


class Gaussian(Likelihood):
    r"""p(x|z) = prod N(x; m, variance), one variance for all pixels.

    With variance 1/2 its negative logarithm is the squared error plus n/2 log(pi) for n pixels.

    Examples:
        >>> p = Gaussian(mean=torch.zeros(1, 2, 2), variance=0.5)
        >>> zeros, ones = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
        >>> round(float(p.log_prob(zeros) - p.log_prob(ones)), 4)  # the squared error
        4.0

    Args:
        mean: The means m, shape [..., C, H, W].
        variance: The variance of a pixel, in units of squared intensity.
    """

    def __init__(self, mean: Tensor, variance: float | Tensor) -> None:
        self._mean = mean
        self.variance = variance

    @property
    def mean(self) -> Tensor:
        """E[x|z] = m, shape [..., C, H, W]."""
        return self._mean

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, shape [...]."""
        squared_error = _sum((x - self._mean) ** 2)
        pixels = math.prod(self._mean.shape[-3:])
        return gaussian_log_prob(squared_error, pixels, self.variance)

    def log_probs(self, x: Tensor) -> Tensor:
        """log p of every value, nats, shape [..., C, H, W]."""
        return gaussian_log_prob((x - self._mean) ** 2, 1, self.variance)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x on the CPU, shape [..., C, H, W]."""
        noise = torch.randn(self._mean.shape, generator=generator)
        scale = torch.as_tensor(self.variance).detach().cpu().sqrt()
        return self._mean.cpu() + scale * noise


class Laplace(Likelihood):
    r"""p(x|z) = prod exp(-|x - m| / b) / 2b, one scale b = sqrt(variance / 2) for all pixels.

    Args:
        mean: The means m, shape [..., C, H, W].
        variance: The variance of a pixel, 2 b^2, in units of squared intensity.
    """

    def __init__(self, mean: Tensor, variance: float) -> None:
        self._mean = mean
        self.scale = math.sqrt(variance / 2)

    @property
    def mean(self) -> Tensor:
        """E[x|z] = m, shape [..., C, H, W]."""
        return self._mean

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats, shape [...]."""
        return _sum(self.log_probs(x))

    def log_probs(self, x: Tensor) -> Tensor:
        """log p of every value, nats, shape [..., C, H, W]."""
        return -(x - self._mean).abs() / self.scale - math.log(2 * self.scale)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x on the CPU, shape [..., C, H, W]."""
        centred = uniform(self._mean, generator) - 0.5
        return self._mean.cpu() - self.scale * centred.sign() * (-2 * centred.abs()).log1p()


class DiscretizedLogistic(Likelihood):
    r"""A probability for each of the 256 levels: a mixture of logistics, integrated over bins.

    P(v) = sum_k w_k [s((x + h - m_k) / b_k) - s((x - h - m_k) / b_k)] with x = v / 255, h = 1 / 510
    and s the sigmoid; the bin of v = 0 reaches to minus infinity, that of v = 255 to infinity. It
    sums to 1 over the levels, so that bits per dimension of 8-bit images are true.

    Args:
        logits: Of the weights w, shape [..., C, H, W, M].
        locations: Of the logistics, m, in units of intensity, the same shape.
        log_scales: log b, the same shape.

    Source: Salimans et al. 2017, https://arxiv.org/abs/1701.05517, each channel on its own
    """

    def __init__(self, logits: Tensor, locations: Tensor, log_scales: Tensor) -> None:
        self.log_weights = logits.log_softmax(-1)
        self.locations = locations
        self.log_scales = log_scales.clamp(*LOG_SCALE_RANGE)

    @property
    def mean(self) -> Tensor:
        """E[x|z], shape [..., C, H, W]."""
        return (self.log_weights.exp() * logistic_mean(self.locations, self.log_scales)).sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log P(x|z) in nats, shape [...]; x in whole levels."""
        return _sum(self.log_probs(x))

    def log_probs(self, x: Tensor) -> Tensor:
        """log P of every value, nats, shape [..., C, H, W]."""
        each = logistic_mass(x.unsqueeze(-1), self.locations, self.log_scales)
        return (self.log_weights + each).logsumexp(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x in whole levels on the CPU, shape [..., C, H, W]."""
        log_weights = self.log_weights.cpu()
        gumbel = -torch.log(-torch.log(uniform(log_weights, generator)))
        chosen = (log_weights + gumbel).argmax(-1, keepdim=True)
        m = self.locations.cpu().gather(-1, chosen).squeeze(-1)
        b = self.log_scales.cpu().gather(-1, chosen).squeeze(-1).exp()
        x = m + b * torch.logit(uniform(m, generator))
        return (x.clamp(0, 1) * (LEVELS - 1)).round() / (LEVELS - 1)


def logistic_mass(x: Tensor, locations: Tensor, log_scales: Tensor) -> Tensor:
    """log of the mass of a logistic in the bin of level x = v / 255, in nats, element by element.

    The bin of v = 0 reaches to minus infinity, that of v = 255 to infinity.
    """
    half, inverse = 0.5 / (LEVELS - 1), torch.exp(-log_scales)
    upper = (x + half - locations) * inverse
    lower = (x - half - locations) * inverse
    # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)), without cancellation.
    width = torch.log(-torch.expm1(-2 * half * inverse))
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + width
    each = torch.where(x < half, F.logsigmoid(upper), inside)
    return torch.where(x > 1 - half, F.logsigmoid(-lower), each)


def logistic_mean(locations: Tensor, log_scales: Tensor) -> Tensor:
    """Mean of x = v / 255 under a logistic integrated over bins, element by element."""
    levels = LEVELS - 1
    return rounded_mean(levels * locations, levels * log_scales.exp()) / levels


def gaussian_log_prob(squared_error: Tensor, pixels: int, variance: float | Tensor) -> Tensor:
    """log N of `pixels` values at that summed squared error: -SSE/(2v) - n/2 log(2 pi v), nats."""
    log_variance = variance.log() if isinstance(variance, Tensor) else math.log(variance)
    return gaussian_log_density(squared_error / variance, log_variance, pixels)


def gaussian_squared_error(log_px: float, pixels: int, variance: float) -> float:
    """The summed squared error SSE behind a log-probability: inverse of `gaussian_log_prob`."""
    return -2 * variance * (log_px - gaussian_log_density(0.0, math.log(variance), pixels))


class Head(nn.Module, ABC):
    """From a decoder's raw output [..., outputs * C, H, W] to the likelihood of x [..., C, H, W].

    The first C channels are the logits of the mean, or of the location, in every head.

    Args:
        variance: Of a pixel, for those that have a fixed one.
    """

    outputs = 1
    """Numbers of the raw output per value of the image."""
    is_mass = False
    """Whether p(x|z) is a mass of the 256 values of a pixel, and bits per dimension are defined."""

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.fixed_variance = variance

    @classmethod
    def channels(cls, channels: int) -> int:
        """Channels of the raw output for images of so many."""
        return channels * cls.outputs

    @abstractmethod
    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""


class BernoulliHead(Head):
    """Logits of a Bernoulli."""

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""
        return Bernoulli(output)


class ContinuousBernoulliHead(Head):
    """Logits of a continuous Bernoulli."""

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""
        return ContinuousBernoulli(output)


class GaussianHead(Head):
    """Logits of the mean of a Gaussian of fixed variance."""

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""
        return Gaussian(torch.sigmoid(output), self.fixed_variance)


class LearnedGaussianHead(Head):
    """Logits of the mean of a Gaussian; its variance is learned, the same for all pixels."""

    def __init__(self, variance: float) -> None:
        super().__init__(variance)
        self.logvar = nn.Parameter(torch.tensor(math.log(variance)))

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""
        return Gaussian(torch.sigmoid(output), self.logvar.exp())


class OptimalGaussian(Gaussian):
    """A Gaussian that scores images with the variance of the highest likelihood, their own.

    So it is in training; evaluation takes a running average of it, which whoever trains keeps in
    `OptimalGaussianHead.variance`. Draws have that variance as well.

    Source: Rybkin et al. 2021, https://arxiv.org/abs/2006.13202
    """

    def optimal_variance(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """The mean squared error of images: the variance of their highest likelihood, a scalar.

        Args:
            x: The images.
            observed: Which of their pixels count, bool [..., 1, H, W]; all where absent.
        """
        squares = (x - self.mean).square().detach()
        # At the optimum the derivative by the variance is zero: it may be taken as a constant.
        if observed is None:
            return squares.mean().clamp_min(1e-6)
        count = observed.expand_as(squares).sum().clamp_min(1)
        return (torch.where(observed, squares, 0.0).sum() / count).clamp_min(1e-6)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) in nats at the optimal variance, shape [...]."""
        return Gaussian(self.mean, self.optimal_variance(x)).log_prob(x)

    def log_prob_of(self, x: Tensor, observed: Tensor) -> Tensor:
        """log p of the observed pixels alone, nats, at the variance that is optimal for them."""
        variance = self.optimal_variance(x, observed)
        return Gaussian(self.mean, variance).log_prob_of(x, observed)


class OptimalGaussianHead(Head):
    """Logits of the mean: of an `OptimalGaussian` in training, of a `Gaussian` in evaluation."""

    variance: Tensor

    def __init__(self, variance: float) -> None:
        super().__init__(variance)
        self.register_buffer("variance", torch.tensor(variance))

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""
        mean = torch.sigmoid(output)
        return (OptimalGaussian if self.training else Gaussian)(mean, self.variance)

    def keep(self, variance: Tensor) -> None:
        """Move the running average a tenth of the way to the optimal variance of a batch."""
        self.variance.lerp_(variance, 0.1)


class LaplaceHead(Head):
    """Logits of the mean of a Laplace distribution of fixed variance."""

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output -> likelihood."""
        return Laplace(torch.sigmoid(output), self.fixed_variance)


class DiscretizedLogisticHead(Head):
    """Logit of the location, and log-scale, of one discretised logistic."""

    outputs = 2
    is_mass = True
    components = 1

    def forward(self, output: Tensor) -> Likelihood:
        """Raw output, ordered (location, log-scale, weight) x component x C -> likelihood."""
        parts = output.unflatten(-3, (self.outputs, -1)).movedim(-4, -1)
        locations, log_scales, *weights = parts.split(self.components, -1)
        logits = weights[0] if weights else torch.zeros_like(locations)
        return DiscretizedLogistic(logits, locations.sigmoid(), log_scales + START_LOG_SCALE)


class MixtureHead(DiscretizedLogisticHead):
    """Logits of the locations, log-scales and logits of the weights of several logistics."""

    outputs = 3 * COMPONENTS
    components = COMPONENTS


def _sum(values: Tensor) -> Tensor:
    """Sum over C, H, W."""
    return values.sum((-3, -2, -1))


def _polynomial(l: Tensor, within: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """c_0 + c_1 l^2 + c_2 l^4 + ...; of l = 0 where not `within`, as large powers overflow."""
    square = l.masked_fill(~within, 0.0) ** 2
    value = torch.full_like(square, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * square + coefficient
    return value


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform draws in (0, 1) on the CPU, of a tensor's shape.

    torch draws multiples of 2^-24, zero among them, whose logarithm is not finite: a zero becomes
    the middle of the 2^-24 that it stands for.
    """
    return torch.rand(like.shape, generator=generator).clamp_min(2**-25)
