"""The VAE: encode an image to q(z|x), decode a latent to p(x|z), and the prior p(z).

Of a conditional one, which is told y of each image: q(z|x,y), p(x|z,y), and p(z|y) or p(z).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convvae.config import ModelConfig
from convvae.distributions import (
    HEADS,
    PRIORS,
    ConditionalFlow,
    ConditionalNormal,
    DiagonalGaussian,
    FullGaussian,
    Likelihood,
    Posterior,
    Prior,
    VampPrior,
    kl_divergence,
)
from convvae.errors import ConfigError
from convvae.model.ladder import LadderPosterior, LadderPrior
from convvae.networks import NETWORKS, BottomUp, Classifier, Decoder, Encoder, TopDown, wide
from convvae.parts import PARTS_OF_A_MODEL

LOGVAR_RANGE = (-20.0, 10.0)
"""Log-variances are clamped to this range, so that exp(logvar) neither overflows nor vanishes."""

PLANES = 4
"""Channels beside an image's own in which an encoder is told its label, each of one value."""


class Draw(NamedTuple):
    """K draws of z per image from q(z|x), and what follows from them."""

    q: Posterior
    """The posterior."""
    z: Tensor
    """The draws, shape [K, B, D]."""
    p: Likelihood
    """p(x|z), over x of shape [K, B, C, H, W]."""
    kl: Tensor
    """KL(q(z|x) || p(z)), nats, shape [B]: exact where it has a closed form, else by the draws."""
    log_ratio: Callable[[], Tensor]
    """log p(z) - log q(z|x) of each draw, nats, shape [K, B], computed when it is asked for."""
    kl_per_group: Tensor | None
    """The part of each group of a ladder in the KL, shape [L, B]; None of other networks."""


class VAE(nn.Module):
    """A convolutional variational autoencoder.

    A conditional one is a family of VAEs, one for each y: `vae.given(y)` is that of images whose y
    is known, with this same face, and everything that takes a model takes it. An encoder sees y as
    constant planes beside the image, a decoder beside z, a ladder in the state at its top.

    It knows no objective, optimiser or file. In training mode batch normalisation uses the
    statistics of the batch, in evaluation mode (`vae.eval()`) its running averages.

    Source: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; conditional, Sohn, Lee & Yan
    2015, https://papers.nips.cc/paper/5775

    Examples:
        >>> vae = VAE(ModelConfig(image_size=(28, 28), channels=1, latent_dims=2))
        >>> q = vae.encode(torch.rand(5, 1, 28, 28))
        >>> p = vae.decode(q.location)
        >>> p.mean.shape
        torch.Size([5, 1, 28, 28])
    """

    encoder: Encoder | BottomUp
    decoder: Decoder | TopDown
    prior: Prior

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.head = HEADS[config.likelihood](config.variance)
        self.flow = None
        self.y: Tensor | None = None
        self.observed: Tensor | None = None
        self.planes = None
        if config.condition is not None:
            self.planes = nn.Linear(config.condition.size, PLANES, bias=False)
        if config.network == "ladder":
            self._make_ladder()
        else:
            self._make_pair()
        self.classifier = None
        if config.classifier:
            filters, channels = config.max_filters, config.channels
            self.classifier = Classifier(config.image_size, channels, filters, self._told)

    def _make_ladder(self) -> None:
        config, outputs = self.config, self.head.channels(self.config.channels)
        width, fold = config.max_filters, config.fold
        self.encoder = BottomUp(config.plan, self._inputs, width, fold)
        self.decoder = TopDown(config.plan, config.image_size, outputs, width, fold, self._told)
        self.prior = LadderPrior(self.decoder)

    def _make_pair(self) -> None:
        config, dims = self.config, self.config.latent_dims
        pair = NETWORKS[config.network]
        more = {"depth": config.depth} if pair.has_depth else {}
        spread = dims * (dims + 1) // 2 if config.posterior == "full" else dims
        self.encoder = pair.encoder(
            config.image_size, self._inputs, config.max_filters, dims, spread, **more
        )
        outputs, inputs = self.head.channels(config.channels), dims + self._told
        self.decoder = pair.decoder(config.image_size, outputs, config.max_filters, inputs, **more)
        self.flow = ConditionalFlow(dims) if config.posterior == "flow" else None
        self.prior = self._make_prior()

    @property
    def _told(self) -> int:
        """Numbers of y; 0 of an unconditional model."""
        return 0 if self.config.condition is None else self.config.condition.size

    @property
    def _inputs(self) -> int:
        """Channels that the encoder sees: those of the images, and those of the label."""
        return self.config.channels + (PLANES if self._told else 0)

    def _make_prior(self) -> Prior:
        config = self.config
        if config.prior == "conditional":
            return ConditionalNormal(config.latent_dims, self._told)
        if config.prior == "vamp":
            shape = (config.channels, *config.image_size)
            return VampPrior(config.latent_dims, config.prior_components, shape, self._components)
        return PRIORS[config.prior](config.latent_dims, config.prior_components)

    def _components(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar of images' posteriors, which a VampPrior mixes."""
        q = self.encode(images)
        assert isinstance(q, DiagonalGaussian)
        return q.mu, q.logvar

    def given(self, y: Tensor) -> VAE:
        """The model of images whose y is known; it shares weights and mode with this one.

        Args:
            y: A row for each of N images, shape [N, C], which are then given in that order and all
                at once (`at` takes some of them); or one row [1, C], for any number of images.
        """
        made = copy.copy(self)
        made._modules = dict(self._modules)
        made.y = y.to(next(self.parameters()))
        # A graph for export has some of the parts only.
        decoder, prior = self._modules.get("decoder"), self._modules.get("prior")
        if isinstance(decoder, TopDown):
            made.decoder = decoder.given(made.y)
            made.prior = LadderPrior(made.decoder)
        elif isinstance(prior, ConditionalNormal):
            made.prior = prior.given(made.y)
        return made

    def observing(self, observed: Tensor | None) -> VAE:
        """The model of images of which some pixels are missing: `log_px` leaves them out.

        The encoder sees what is put in their place, which is 0 wherever images come from `data`.

        Args:
            observed: Which pixels of each of N images are there, bool [N, 1, H, W], as `given`
                takes y; None where all are.

        Source: Mattei & Frellsen 2019, https://arxiv.org/abs/1812.02633
        """
        if observed is None:
            return self
        made = copy.copy(self)
        made.observed = observed.to(self.device)
        return made

    def at(self, rows: slice | Tensor) -> VAE:
        """The model of some of the images of which something is known; itself where nothing is.

        Args:
            rows: Their places.
        """
        made = self if self.y is None or len(self.y) == 1 else self.given(self.y[rows])
        return made if self.observed is None else made.observing(self.observed[rows])

    def log_px(self, p: Likelihood, x: Tensor) -> Tensor:
        """log p(x|z) of images, of their observed pixels where some are missing: nats, [..., B].

        Args:
            p: p(x|z), from `decode`.
            x: Images, shape [B, C, H, W].

        Raises:
            ConfigError: pixels are missing, and a likelihood of one's own cannot leave them out.
        """
        return p.log_prob(x) if self.observed is None else p.log_prob_of(x, self.observed)

    @property
    def known(self) -> Tensor | None:
        """What is known of the images, shape [B, C] or [1, C]; None of an unconditional model.

        Raises:
            ConfigError: the model is conditional, and no y is given.
        """
        if self._told and self.y is None:
            raise ConfigError(
                "the model was trained with the labels of its images, and none is given; choose "
                "images that have labels, or name one with `label`"
            )
        return self.y

    def _seen(self, x: Tensor) -> Tensor:
        """What the encoder sees of images: they, and beside them planes of their labels."""
        y = self.known
        if self.planes is None or y is None:
            return x
        planes = self.planes(y)[:, :, None, None]
        return torch.cat((x, planes.expand(x.shape[0], -1, *x.shape[-2:])), 1)

    def encode(self, x: Tensor) -> Posterior:
        """Images x [B, C, H, W] in [0, 1] -> posterior q(z|x) over z [B, D]."""
        x = self._seen(x)
        if self.config.network == "ladder":
            assert isinstance(self.decoder, TopDown)
            return LadderPosterior(self.decoder, self.encoder(x))
        mu, spread = self.encoder(x)
        mu, spread, dims = wide(mu), wide(spread), self.config.latent_dims
        logvar = spread[:, :dims].clamp(*LOGVAR_RANGE)
        if self.config.posterior == "full":
            return FullGaussian(mu, logvar, spread[:, dims:])
        base = DiagonalGaussian(mu, logvar)
        return base if self.flow is None else self.flow(base)

    def classify(self, x: Tensor) -> Tensor:
        """Images x [B, C, H, W] in [0, 1] -> log q(y|x) of every label, nats.

        Raises:
            ConfigError: the model has no classifier.
        """
        if self.classifier is None:
            raise ConfigError("the model has no q(y|x); train with `objective='semi-supervised'`")
        return self.classifier(x)

    def draw(self, q: Posterior, eps: Tensor) -> Draw:
        """Draw z ~ q(z|x) with all that follows from it: p(x|z), and how q differs from p(z).

        Args:
            q: Posteriors of B images, from `encode`.
            eps: Standard normal noise, shape [K, B, D].
        """
        if isinstance(q, LadderPosterior):
            found = q.descend(eps)
            kl = found.kl.mean(1)
            p = self.head(wide(found.output))
            return Draw(q, found.z, p, kl.sum(0), lambda: found.log_ratio, kl)
        z = q.rsample(eps)
        kl = kl_divergence(q, self.prior, z)
        return Draw(q, z, self.decode(z), kl, lambda: self.prior.log_prob(z) - q.log_prob(z), None)

    def decode(self, z: Tensor) -> Likelihood:
        """Latents z [..., D] -> likelihood p(x|z) over x [..., C, H, W].

        Of a ladder, z may end after any of its groups: those left out take the means of their
        priors.
        """
        y, shape = self.known, z.shape[:-1]
        if y is not None and not self.config.plan:
            # A single row is for a z without a batch as well.
            z = torch.cat((z, (y if shape else y[0]).expand(*shape, -1)), -1)
        output = self.decoder(z.reshape(-1, z.shape[-1]))
        return self.head(wide(output.reshape(*shape, *output.shape[1:])))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def _repr_html_(self) -> str:
        """What a notebook shows: the settings of the model and its size."""
        config = self.config.model_dump(mode="json")
        config["image_size"] = "x".join(str(side) for side in self.config.image_size)
        lines = "".join(f"<tr><th>{name}<td>{value}" for name, value in config.items())
        size = f"{self.num_parameters():,} trainable parameters"
        return f"<p>VAE, {size}, on {self.device}</p><table>{lines}</table>"


def unfilled(config: ModelConfig) -> VAE:
    """A model to read weights into: none are drawn, which takes longer than to read them.

    Flows, which cannot be made without values, and parts of one's own are made with them.
    """
    if has_own_parts(config) or "flow" in (config.posterior, config.prior):
        return VAE(config)
    with torch.device("meta"):
        vae = VAE(config)
    return vae.to_empty(device="cpu")


def has_own_parts(config: ModelConfig) -> bool:
    """Whether a part of a model is none of convvae's."""
    return any(getattr(config, names.setting) not in names.built_in for names in PARTS_OF_A_MODEL)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors; nothing is allocated.

    Raises:
        RuntimeError: a tensor would have more numbers than can be counted.
    """
    with torch.device("meta"):
        state = VAE(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def misfit(config: ModelConfig, tensors: Mapping[str, Tensor]) -> str | None:
    """How tensors differ from those of a model, before it is made; None if they do not.

    The settings of a stranger's file may be those of a model of any size. Flows are left out, which
    cannot be made without values: their sizes follow from the others. So are models with parts of
    one's own, which need not be able to do so either.
    """
    if has_own_parts(config):
        return None
    if len(config.plan) > len(tensors):
        return f"{len(config.plan):,} groups of latents, and {len(tensors):,} tensors"
    flows = {"posterior": "diagonal", "prior": "normal"}
    plain = {name: other for name, other in flows.items() if getattr(config, name) == "flow"}
    try:
        expected = tensor_shapes(config.model_copy(update=plain))
    except RuntimeError as error:
        return str(error)
    for name, shape in expected.items():
        found = list(tensors[name].shape) if name in tensors else "absent"
        if found != list(shape):
            return f"{name} is {found} in the file and {list(shape)} in the model that it describes"
    return None
