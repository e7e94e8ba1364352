"""Several processes that train one model, as torchrun and SLURM start them.

Every process holds the weights and all images; of each batch it computes a share, and the gradients
are averaged before the step (DistributedDataParallel). Order, noise and moves of the images are
those of a single process: functions of the seed and of the images seen, never of the processes, so
that their number may change whenever a run is resumed. The first process alone writes.

Source: Li et al. 2020, https://arxiv.org/abs/2006.15704
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convvae import runtime
from convvae.config import TrainConfig
from convvae.data.cache import check
from convvae.data.images import ImageSet
from convvae.errors import ConfigError, RanksError
from convvae.model.run_folder import RunFolder
from convvae.training.cuda_graph import Step, StepInputs, batch_of, make_step, observed_of
from convvae.training.heartbeat import heartbeat
from convvae.training.holdout import RunImages, load_run_images
from convvae.training.learner import Learner, TrainingProgress
from convvae.training.meeting import meeting_place
from convvae.training.ranks import Ranks, told
from convvae.training.schedules import StepSettings

MEETING = timedelta(seconds=40)
"""Within which all processes must have come together."""
CONNECTING = timedelta(seconds=10)
"""Within which they must have connected once they are there; gloo tries five times."""
PATIENCE = timedelta(minutes=30)
"""Within which a process must come to the next exchange."""
LONG_PATIENCE = timedelta(days=2)
"""The same, where one has images to fetch and to decode for the others."""
OF_THE_FIRST = {"tensorboard", "preview", "report"}
"""Settings of what the first process alone does."""
OF_A_PROCESS = {"device", "out", "data_dir", *OF_THE_FIRST}
"""Settings that need not be the same everywhere."""
_NEW = "forward_sync_buffers"
SYNC_BUFFERS = (
    _NEW if _NEW in signature(DistributedDataParallel).parameters else "broadcast_buffers"
)
"""Argument by which the first process sends its buffers before a step; torch 2.13 renamed it."""


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Come together with the other processes that torchrun or SLURM started, if there are any.

    Args:
        device: Name of where this process computes; NCCL connects GPUs, gloo all else.

    Raises:
        DeviceError: the device is not there.
        RanksError: they did not come together in time.
    """
    settings = launched(os.environ)
    if settings is None:
        yield Ranks()
        return
    os.environ.update(settings)
    on_gpu = runtime.pick_device(device).type == "cuda"
    with told():
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        place = meeting_place(rank, count, MEETING)
        backend = "nccl" if on_gpu else "gloo"
        dist.init_process_group(
            backend,
            store=place,
            rank=rank,
            world_size=count,
            timeout=MEETING if on_gpu else CONNECTING,
        )
        dist.barrier()
    try:
        with ExitStack() as around:
            local = os.environ.get("LOCAL_RANK")
            me = (rank, count, None if local is None else int(local))
            with told():
                group, slow = (dist.new_group(timeout=time) for time in (PATIENCE, LONG_PATIENCE))
                around.enter_context(heartbeat(*me[:2]))
            assert isinstance(group, dist.ProcessGroup)
            assert isinstance(slow, dist.ProcessGroup)
            yield Ranks(*me, group, Ranks(*me, slow))
    finally:
        dist.destroy_process_group()


def launched(environment: Mapping[str, str]) -> dict[str, str] | None:
    """What tells torch where the processes meet; None where this one was started alone.

    torchrun says it itself. Of SLURM's variables it is made: the tasks are the processes, and they
    meet on the node that the job was launched on, at a port that follows from the job's number.

    Raises:
        RanksError: SLURM does not say where, and MASTER_ADDR is not set.
    """
    if "WORLD_SIZE" in environment:
        return {} if int(environment["WORLD_SIZE"]) > 1 else None
    tasks = int(environment.get("SLURM_NTASKS", "1"))
    if tasks < 2 or "SLURM_PROCID" not in environment:
        return None
    place = environment.get("MASTER_ADDR") or environment.get("SLURM_LAUNCH_NODE_IPADDR")
    if place is None:
        raise RanksError(
            "SLURM started several tasks and does not say where they meet; set MASTER_ADDR to the "
            "name of the first node"
        )
    port = 20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000
    return {
        "WORLD_SIZE": str(tasks),
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": place,
        "MASTER_PORT": environment.get("MASTER_PORT", str(port)),
    }


def restarted(config: TrainConfig) -> Path | None:
    """The run folder to continue where torchrun starts the processes again after a failure.

    Raises:
        ConfigError: torchrun may restart, and would not find the run again.
    """
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) and config.out is None:
        raise ConfigError(
            "torchrun may start this training again, and finds it by its folder: name one in `out`"
        )
    if config.out is None or not int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        return None
    run = RunFolder(config.out)
    began = run.is_saved() or (run.config.is_file() and run.is_unused())
    return config.out if began else None


def check_settings(config: TrainConfig, ranks: Ranks) -> None:
    """Check that the processes agree, and that what is trained can be shared out.

    Raises:
        ConfigError: settings or versions differ, the batch cannot be divided, or the objective is
            a function of a batch as a whole.
    """
    if ranks.alone:
        return
    if config.rollbacks:
        raise ConfigError("`rollbacks` are of a training in one process; leave them out")
    if config.batch_size % ranks.count:
        raise ConfigError(
            f"a batch of {config.batch_size} images cannot be divided among {ranks.count} "
            "processes; choose `batch_size` a multiple of them"
        )
    whole = {
        f"objective {config.objective}": config.objective not in ("elbo", "iwae", "dreg"),
        "free_bits": config.free_bits > 0,
        "capacity": config.capacity is not None,
        "mmd": config.mmd > 0,
        "likelihood gaussian-optimal": config.likelihood == "gaussian-optimal",
        "prior vamp": config.prior == "vamp",
        "compile": config.compile == "on",
    }
    if taken := [name for name, used in whole.items() if used]:
        raise ConfigError(
            f"{taken[0]} needs a batch as a whole, or a step that is not divided, and this "
            f"training is shared by {ranks.count} processes; train in one process"
        )
    plain = config.model_dump(mode="json", exclude=OF_A_PROCESS)
    ranks.agree({**plain, "versions": runtime.versions()})


def images_of(config: TrainConfig, ranks: Ranks) -> RunImages:
    """The images of a run: decoded and checked once per machine, mapped by all of its processes.

    Raises:
        ConvvaeError: they cannot be loaded, each reason with its own class.
    """

    def pass_on() -> None:
        for known in ranks.all_of(check.known()):
            check.trust(known)

    return ranks.in_turn(lambda: load_run_images(config), ranks.is_first_here, pass_on)


def check_images(images: ImageSet, batches: list[Tensor], ranks: Ranks) -> None:
    """Check that the processes have the same images, and that each gets some of every batch.

    Raises:
        ConfigError: they have not, or the last batch is too small.
    """
    if len(batches[-1]) < ranks.count:
        raise ConfigError(
            f"the last batch of an epoch has {len(batches[-1])} images for {ranks.count} "
            "processes; use `drop_last`, or another `batch_size`"
        )
    step = max(1, len(images) // 64)
    some = images.read(torch.arange(0, len(images), step)).numpy()
    seen = hashlib.blake2b(some.data, digest_size=16).hexdigest()
    found = ranks.all_of((tuple(images.images.shape), seen))
    for place, other in enumerate(found):
        if other != found[0]:
            raise ConfigError(
                f"the processes have different images (process {place} from process 0); give all "
                "of them the same files"
            )


def share_state(learner: Learner, progress: TrainingProgress, ranks: Ranks) -> TrainingProgress:
    """Give every process the state and the position of the first.

    Raises:
        RanksError: another process is gone.
    """
    if ranks.alone:
        return progress
    tensors = learner.tensors() if ranks.is_first else {}
    outline = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    said = ranks.all_of((outline, asdict(progress), learner.sums_are_whole))
    outline, position, learner.sums_are_whole = said[0]
    with told():
        for name, (shape, dtype) in outline.items():
            if not ranks.is_first:
                tensors[name] = torch.empty(shape, dtype=dtype, device=learner.vae.device)
            # A tensor of another memory order is sent as a copy in the plain one.
            plain = tensors[name].contiguous()
            dist.broadcast(plain, 0, group=ranks.group)
            tensors[name] = plain
    if not ranks.is_first:
        learner.take(tensors)
    return TrainingProgress(**position)


class _Normalised(torch.autograd.Function):
    """weight x' + bias, x' = (x - mean) / sqrt(variance + eps), by all processes' statistics.

    One exchange forward, of each process's count, mean and sum of squares about it, which are put
    together as Chan, Golub & LeVeque 1983 have it (https://doi.org/10.1080/00031305.1983.10483115);
    one backward, of the sums of dy and dy x'. The passes over the images are PyTorch's own kernels.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        ranks: Ranks,
    ) -> tuple[Tensor, ...]:
        """[B, F, h, w] -> y of that shape, mean [F], variance [F], images times cells [1]."""
        own, spread = torch.batch_norm_update_stats(x, None, None, 0.0)
        count = x.new_full((1,), x.numel() / x.shape[1])
        found = ranks.gather(torch.cat([own, count * spread, count]))
        means, squares, counts = found.split([len(own), len(own), 1], 1)
        total = counts.sum(0)
        mean = (counts * means).sum(0) / total
        variance = (squares + counts * (means - mean).square()).sum(0) / total
        y = F.batch_norm(x, mean, variance, weight, bias, eps=eps)
        ctx.save_for_backward(x, weight, mean, variance, total)
        ctx.eps, ctx.ranks = eps, ranks
        ctx.mark_non_differentiable(mean, variance, total)
        return y, mean, variance, total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """The gradient of y -> that of x: weight scale (dy - mean dy - x' mean dy x')."""
        x, weight, mean, variance, total = ctx.saved_tensors
        dy, scale = grad_outputs[0], torch.rsqrt(variance + ctx.eps)
        _, along, plain = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, None, None, mean, scale, True, ctx.eps, [False, True, True]
        )
        factor = weight * scale
        # gloo gathers few numbers faster than it adds them up.
        sums = ctx.ranks.gather(torch.stack([along, plain])).sum(0)
        all_along, all_plain = sums * -factor / total
        dx = F.batch_norm(x, mean, variance, all_along, all_plain, eps=ctx.eps)
        return dx.addcmul_(dy, factor[:, None, None]), along, plain, None, None


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of the images of all processes.

    mean = sum x / n and variance = sum (x - mean)^2 / n over processes, images and cells, both
    differentiated through. torch has it for GPUs only (`SyncBatchNorm`).

    Args:
        like: The layer whose parameters and statistics are used.
        ranks: The processes.
    """

    def __init__(self, like: nn.BatchNorm2d, ranks: Ranks) -> None:
        super().__init__(like.num_features, like.eps, like.momentum)
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        self.ranks = ranks
        self.train(like.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, F, h, w] -> [B, F, h, w]."""
        if not self.training:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        found = _Normalised.apply(x, self.weight, self.bias, self.eps, self.ranks)
        assert isinstance(found, tuple)
        y, mean, variance, count = found
        self._remember(mean, variance, count)
        return y.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


def with_shared_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Put `SharedBatchNorm2d` in the place of every batch normalisation, parameters kept."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SharedBatchNorm2d(child, ranks))


class SharedStep:
    """A step on this process's share of a batch; the wish to stop becomes everybody's with it.

    Args:
        learner: What learns; `learner.ranks` are the processes.
        asked: Set where this process was asked to stop.
        stop: Set in all processes after the same step.
    """

    def __init__(self, learner: Learner, asked: threading.Event, stop: threading.Event) -> None:
        self.learner, self.latent_dims = learner, learner.vae.config.latent_dims
        self.ranks = learner.ranks
        self.asked, self.stop = asked, stop
        self.engine = f"{self.ranks.count} processes, {dist.get_backend()}"

    def __call__(self, pixels: Tensor, inputs: StepInputs, settings: StepSettings) -> Tensor:
        """Take the step; the images are this process's share, the inputs are of the whole batch."""
        whole, device = inputs.eps.shape[1], pixels.device
        self.learner.set_step(settings, whole)
        own = inputs.share(self.ranks.share(whole)).to(device)
        self.learner.stopping.fill_(float(self.asked.is_set()))
        with told(computing=True):
            x, observed = batch_of(pixels, own), observed_of(own)
            loss = self.learner.update(x, own.eps, whole, own.y, observed)
        if self.learner.stopping:
            self.stop.set()
        return loss


def step_of(learner: Learner, asked: threading.Event, stop: threading.Event) -> Step:
    """The step of this process: its share of each batch, or the whole one.

    Args:
        learner: What learns.
        asked: Set where this process was asked to stop.
        stop: Set in all processes after the same step; the same event where there is one process.
    """
    if learner.ranks.alone:
        return make_step(learner)
    # Local statistics: what each share has of the running ones is overwritten by the first
    # process's. Shared ones are equal everywhere already.
    buffers: dict[str, Any] = {}
    if learner.config.batch_statistics == "shared":
        with_shared_statistics(learner.vae, learner.ranks)
        buffers[SYNC_BUFFERS] = False
    learner.forward_pass = DistributedDataParallel(
        learner.forward_pass,
        process_group=learner.ranks.group,
        gradient_as_bucket_view=True,
        **buffers,
    )
    return SharedStep(learner, asked, stop)
