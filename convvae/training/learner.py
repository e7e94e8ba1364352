"""What changes during training: weights, their average, the optimiser's state, the progress."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn

from convvae import runtime
from convvae.config import SEMI_SUPERVISED, ModelConfig, TrainConfig, describe
from convvae.distributions.likelihoods import OptimalGaussian, OptimalGaussianHead
from convvae.errors import ModelFileError
from convvae.model.checkpoint import load_tensors, save_tensors
from convvae.model.objectives import Means, draw, training_loss
from convvae.model.semi_supervised import joint, semi_supervised_loss
from convvae.model.vae import VAE
from convvae.networks import BottomUp
from convvae.training.muon import Muon
from convvae.training.ranks import Ranks
from convvae.training.schedules import StepSettings

LARGEST_FLOAT = torch.finfo(torch.float32).max
BETAS = (0.9, 0.999)
"""Decay of Adam's first and second moment."""


@dataclass
class TrainingProgress:
    """Where a run stands, and the sums over the epoch under way."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Batches finished in the epoch under way."""
    images: int = 0
    """Images seen since the start of the run."""
    epoch_images: int = 0
    """Images seen in the epoch under way."""
    seconds: float = 0.0
    """Time spent in the epoch under way."""
    best_epoch: int = 0
    """Epoch that did best on the validation images; 0 where none are held out."""
    best_loss: float | None = None
    """Their loss then, at the full weights of the objective."""
    rollbacks: int = 0
    """Returns to a saved state after a loss that was not finite; each halves the step."""

    @property
    def step_factor(self) -> float:
        """Factor on the learning rate: a half for every return."""
        return 0.5**self.rollbacks

    def go_to(self, other: TrainingProgress) -> None:
        """Stand where another one does."""
        vars(self).update(vars(other))

    def next_epoch(self) -> None:
        """Stand at the start of the next epoch."""
        self.epoch += 1
        self.batch, self.epoch_images, self.seconds = 0, 0, 0.0

    def is_best(self, loss: float) -> bool:
        """Remember the epoch just finished if its loss is the lowest so far; whether it is."""
        if self.best_loss is not None and loss >= self.best_loss:
            return False
        self.best_epoch, self.best_loss = self.epoch, loss
        return True


_POSITION = TypeAdapter(TrainingProgress)


def without_bias_correction(step: int) -> float:
    r"""Factor on the learning rate that undoes Adam's bias correction at a step, from 1.

    Corrected, the update is lr m / (1 - b1^t) / sqrt(v / (1 - b2^t)); uncorrected, lr m / sqrt(v).

    Source: Kingma & Ba 2015, section 3, https://arxiv.org/abs/1412.6980
    """
    first, second = BETAS
    return (1 - first**step) / math.sqrt(1 - second**step)


def averaging_share(half_life: int, images: int, batch: int) -> float:
    """How far a step moves the average towards the weights, with a half-life counted in images.

    The half-life is at most 5% of the images seen, so that the start is forgotten.

    Source: Karras et al. 2022, appendix, https://arxiv.org/abs/2206.00364
    """
    return 1 - 0.5 ** (batch / min(half_life, 0.05 * images))


class ForwardPass(nn.Module):
    """A batch to its loss and sums: a module, so that several processes can share its gradient.

    Args:
        config: Which objective.
        vae: The model.
        count: Number of training images N.
    """

    def __init__(self, config: TrainConfig, vae: VAE, count: int) -> None:
        super().__init__()
        self.config, self.vae, self.count = config, vae, count

    def forward(
        self,
        x: Tensor,
        eps: Tensor,
        beta: Tensor,
        capacity: Tensor,
        y: Tensor | None = None,
        observed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, C, H, W], eps [K, B, D] -> loss, in nats per image; sums of log_px and kl.

        Given y [B, C], those are of p(x|y); given observed, bool [B, 1, H, W], of those pixels; of
        the objective semi-supervised, see `Joint`.
        """
        if self.config.objective == SEMI_SUPERVISED and y is not None:
            found = joint(self.vae, x, eps, y, observed)
            log_px, kl = (term.detach().sum() for term in found.terms)
            return semi_supervised_loss(found, beta, self.config.alpha), log_px, kl
        vae = (self.vae if y is None else self.vae.given(y)).observing(observed)
        head = vae.head
        draws = draw(vae, x, eps)
        if isinstance(draws.p, OptimalGaussian) and isinstance(head, OptimalGaussianHead):
            head.keep(draws.p.optimal_variance(x, observed))
        loss = training_loss(self.config, vae, draws, beta, capacity, self.count)
        return loss, draws.terms.log_px.detach().sum(), draws.terms.kl.detach().sum()


class Learner:
    """A model in training.

    Args:
        config: The run, its device and precision resolved.
        model: The architecture.
        device: Where to compute.
        count: Number of training images N, which the total correlation depends on.
        ranks: The processes that train together; else this one alone.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: ModelConfig,
        device: torch.device,
        count: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self.ranks = ranks or Ranks()
        self.count = count
        with runtime.seeded(config.seed, "weights"):
            vae = VAE(model)
        if config.head_bias == "zero":
            _zero_head_bias(vae)
        vae.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.vae = vae.train()
        self.average = copy.deepcopy(self.vae).eval() if config.ema_images else None
        self.rate, self.beta, self.capacity, self.share = torch.zeros(4, device=device).unbind()
        self.forward_pass: nn.Module = ForwardPass(config, self.vae, count)
        self.optimizer = _optimizer(config, self.vae, self.rate)
        self.sums = torch.zeros(3, device=device, dtype=_wide(device))
        """Sums of log_px, kl and the loss minimised over the images of the epoch under way."""
        self.sums_are_whole = True
        """Whether the last of them has every image: older states lack it, see `take`."""
        self.skipped = torch.zeros((), device=device, dtype=torch.int64)
        """Steps left out in the epoch under way, their gradient beyond `skip_norm`."""
        self.finite_steps = torch.zeros((), device=device, dtype=torch.int64)
        """Steps of the epoch under way before the first whose loss was not finite."""
        self.stopping = torch.zeros((), device=device)
        """Set before a step: 1 if this process was asked to stop. After it: by all processes."""

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Set the decoder's last bias so that p(x|z) starts near a mean pixel.

        Args:
            mean: Mean intensity of each channel, shape [C], in [0, 1].
        """
        for vae in (self.vae, self.average):
            if vae is not None:
                logits = mean.clamp(0.01, 0.99).logit().to(vae.device)
                # A ladder has a bias for each of the pixels that it folds into a cell.
                bias = vae.decoder.output_bias[: len(mean)]
                bias.copy_(logits.view(-1, *[1] * (bias.ndim - 1)).expand_as(bias))

    @property
    def weights(self) -> VAE:
        """The model to use: the averaged one if the run averages, else the trained one."""
        return self.average or self.vae

    def step(
        self,
        x: Tensor,
        eps: Tensor,
        settings: StepSettings,
        y: Tensor | None = None,
        observed: Tensor | None = None,
    ) -> Tensor:
        """Take one step on a batch and return its loss (a scalar on the device, nats per image).

        Args:
            x: Images, shape [B, C, H, W], in [0, 1].
            eps: Standard normal noise, shape [K, B, D].
            settings: Where the run stands.
            y: What is known of the images, shape [B, C]; None of an unconditional model.
            observed: Which of their pixels are there, bool [B, 1, H, W]; None where all are.
        """
        self.set_step(settings, len(x))
        return self.update(x, eps, y=y, observed=observed)

    def set_step(self, settings: StepSettings, batch: int) -> None:
        """Set what differs between steps, the images and their noise apart.

        Args:
            settings: Where the run stands.
            batch: Images in the batch to come.
        """
        rate = settings.rate
        if not self.config.bias_correction:
            rate *= without_bias_correction(settings.images // self.config.batch_size + 1)
        self.rate.fill_(min(rate, LARGEST_FLOAT))
        self.beta.fill_(min(settings.beta, LARGEST_FLOAT))
        self.capacity.fill_(min(settings.capacity, LARGEST_FLOAT))
        if self.config.ema_images is not None:
            share = averaging_share(self.config.ema_images, settings.images + batch, batch)
            self.share.fill_(share)

    def update(
        self,
        x: Tensor,
        eps: Tensor,
        whole: int | None = None,
        y: Tensor | None = None,
        observed: Tensor | None = None,
    ) -> Tensor:
        """The step itself, with the settings set before: nothing in it waits for the device.

        Args:
            x: Images, shape [B, C, H, W], in [0, 1].
            eps: Standard normal noise, shape [K, B, D].
            whole: Images of the batch, of which these are the share of this process; else B.
            y: What is known of the images, shape [B, C]; None of an unconditional model.
            observed: Which of their pixels are there, bool [B, 1, H, W]; None where all are.

        Returns:
            The loss of the whole batch, a scalar on the device, nats per image.
        """
        whole = whole or len(x)
        with runtime.autocast(x.device, self.config.precision):
            batch_loss, log_px, kl = self.forward_pass(
                x, eps, self.beta, self.capacity, y, observed
            )
        self.optimizer.zero_grad()
        # Of the processes' gradients the mean is taken: each counts as much as it has images.
        (batch_loss * (len(x) * self.ranks.count / whole)).backward()
        if not self._skips():
            self.optimizer.step()
            if self.average is not None:
                self._update_average(self.average)
        value = batch_loss.detach()
        parts = self.ranks.sum(torch.stack([log_px, kl, value * len(x), self.stopping]))
        self.sums += parts[:3]
        self.stopping.copy_(parts[3])
        # Counted on the device: a look at every loss would wait for it.
        self.finite_steps += self.sums.isfinite().all()
        return value if self.ranks.alone else parts[2] / whole

    def _skips(self) -> bool:
        """Clip the gradient; and whether its norm is such that the step is to be left out."""
        config = self.config
        if config.clip_norm is None and config.skip_norm is None:
            return False
        norm = nn.utils.clip_grad_norm_(self.vae.parameters(), config.clip_norm or math.inf)
        # A norm that is not a number is not at most anything.
        if config.skip_norm is None or norm <= config.skip_norm:
            return False
        self.skipped += 1
        return True

    def means(self, progress: TrainingProgress) -> Means:
        """Means over the epoch under way, in training mode, while the weights changed."""
        log_px, kl, loss = (self.sums / progress.epoch_images).cpu()
        return Means(loss, log_px, kl)

    def is_finite(self) -> bool:
        """Whether every weight and running average is a finite number."""
        state = self.vae.state_dict().values()
        return all(bool(value.isfinite().all()) for value in state)

    @torch.no_grad()
    def _update_average(self, average: VAE) -> None:
        """Move the average towards the weights by the share set before."""
        for mean, value in zip(
            average.state_dict().values(), self.vae.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value, self.share)
            else:
                mean.copy_(value)

    def start_epoch(self) -> None:
        """Begin the sums over an epoch."""
        for total in (self.sums, self.skipped, self.finite_steps):
            total.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """All that continuing needs: weights, average, the optimiser's state, sums."""
        tensors = {f"vae.{name}": value for name, value in self.vae.state_dict().items()}
        if self.average is not None:
            state = self.average.state_dict()
            tensors |= {f"average.{name}": value for name, value in state.items()}
        for name, parameter in self.vae.named_parameters():
            state = self.optimizer.state[parameter]
            tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
        return tensors | {"sums": self.sums, "skipped": self.skipped}

    def save(self, path: Path, progress: TrainingProgress) -> None:
        """Write all that continuing needs, whole or not at all."""
        save_tensors(path, self.tensors(), {"position": asdict(progress)})

    def load(self, path: Path) -> TrainingProgress:
        """Take over what `save` wrote, and return the progress.

        Raises:
            ModelFileError: the file is damaged or belongs to another run.
        """
        tensors, header = load_tensors(path)
        try:
            progress = _POSITION.validate_json(json.dumps(header["position"]))
            self.take(tensors)
            self.finite_steps.fill_(progress.batch)
            return progress
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, ValidationError):
                raise ModelFileError(f"{path}: position: {describe(error)}") from error
            reason = " ".join(str(error).split())
            raise ModelFileError(
                f"{path} does not fit the run's settings ({reason}); was config.json edited?"
            ) from error

    def take(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave, on whatever device.

        A state of before the losses were summed has the sums of log_px and kl only. The loss of the
        images before it is then taken for -log_px + beta kl, which is what the plain objective
        at a constant weight had minimised, and `sums_are_whole` is False.

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: a tensor has another shape.
        """

        def part(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}."
            return {n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)}

        self.vae.load_state_dict(part("vae"))
        if self.average is not None:
            self.average.load_state_dict(part("average"))
        for name, parameter in self.vae.named_parameters():
            for key, value in part(f"optimizer.{name}").items():
                # The fused optimiser reads a moment in its parameter's memory layout.
                like = parameter.detach() if value.shape == parameter.shape else value
                moment = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
                self.optimizer.state[parameter][key] = moment.copy_(value)
        log_px, kl, *loss = tensors["sums"]
        self.sums_are_whole = bool(loss)
        loss = loss or [self.config.beta * kl - log_px]
        self.sums.copy_(torch.stack([log_px, kl, *loss]))
        # Files of runs from before steps could be left out do not have it.
        self.skipped.copy_(tensors.get("skipped", torch.zeros_like(self.skipped)))


def _optimizer(config: TrainConfig, vae: VAE, rate: Tensor) -> torch.optim.Optimizer:
    """The optimiser of a run; its learning rate is a tensor, which a recorded step can read."""
    weights, capturable = vae.parameters(), rate.is_cuda
    decay = config.weight_decay
    if config.optimizer == "muon":
        return Muon(weights, lr=rate, betas=BETAS, weight_decay=decay, capturable=capturable)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    return kind(
        weights, lr=rate, betas=BETAS, weight_decay=decay, fused=True, capturable=capturable
    )


def _zero_head_bias(vae: VAE) -> None:
    """Zero the biases of the last linear layers before mu and logvar."""
    if isinstance(vae.encoder, BottomUp):
        return  # its heads start at zero altogether
    for head in (vae.encoder.proj_mu, vae.encoder.proj_logvar):
        last = [layer for layer in head.modules() if isinstance(layer, nn.Linear)][-1]
        nn.init.zeros_(last.bias)


def _wide(device: torch.device) -> torch.dtype:
    """The widest float of a device, for sums over an epoch."""
    return torch.float32 if device.type == "mps" else torch.float64
