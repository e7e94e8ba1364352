"""One of several processes that train, or add up gradients: prints the seconds of the timed steps.

Called as `python -m benchmarks.workers.scaling ENGINE RECIPE THREADS BATCH STEPS`, with the
variables that torchrun sets in the environment. The pixels are random; recipe and network are
convvae's own. ENGINE is `convvae`, its own training step; `local`, the same where each process
normalises by the statistics of its own share; `plain`, the same network in a loop as
PyTorch's tutorial of DistributedDataParallel has it; or `reduce`, the sum of gradients alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.engine import CPU, SHAPES, model, settings
from benchmarks.workers.common import WARM_UP
from convvae import runtime
from convvae.data.pixels import to_unit
from convvae.model.objectives import elbo, loss
from convvae.model.vae import VAE
from convvae.training.cuda_graph import StepInputs
from convvae.training.distributed import joined, step_of
from convvae.training.learner import Learner
from convvae.training.ranks import Ranks
from convvae.training.schedules import StepSettings

Steps = Callable[[int], object]
"""Takes the step of a number."""


class Loss(nn.Module):
    """Images and noise -> the loss, so that DistributedDataParallel sees one forward pass."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """x [B, C, H, W] and eps [K, B, D] -> nats per image."""
        return loss(elbo(self.vae, x, eps))


def own(
    recipe: str, batch: int, images: Tensor, ranks: Ranks, *, statistics: str = "shared"
) -> Steps:
    """The step of `convvae train`, of which each process computes its share."""
    config = settings(recipe, "float32", batch).model_copy(update={"batch_statistics": statistics})
    learner = Learner(config, model(recipe), CPU, 60_000, ranks)
    step = step_of(learner, threading.Event(), threading.Event())

    def take(number: int) -> object:
        index = torch.randint(len(images), (batch,), generator=runtime.generator(number, "order"))
        shape = (config.mc_samples, batch, step.latent_dims)
        inputs = StepInputs(runtime.noise(shape, 0, "train", number))
        pixels = images[index[ranks.share(batch)]]
        return step(pixels, inputs, StepSettings(config.lr, config.beta, number * batch))

    return take


def plain(recipe: str, batch: int, images: Tensor, ranks: Ranks) -> Steps:
    """The same network in a plain loop: each process draws its own images and noise."""
    vae, share = VAE(model(recipe)), batch // ranks.count
    network = Loss(vae) if ranks.alone else DistributedDataParallel(Loss(vae))
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3)

    def take(_: int) -> object:
        x = to_unit(images[torch.randint(len(images), (share,))])
        optimizer.zero_grad()
        found = network(x, torch.randn(1, share, vae.config.latent_dims))
        found.backward()
        optimizer.step()
        return float(found.detach())  # as a loop that shows its loss does

    return take


def reduce(recipe: str, _batch: int, _images: Tensor, ranks: Ranks) -> Steps:
    """The sum of as many numbers as the network has parameters."""
    values = torch.zeros(VAE(model(recipe)).num_parameters())
    return lambda _: ranks.sum(values)


ENGINES = {
    "convvae": own,
    "local": partial(own, statistics="local"),
    "plain": plain,
    "reduce": reduce,
}


def main() -> None:
    """Take the steps."""
    engine, recipe, *numbers = sys.argv[1:]
    threads, batch, steps = map(int, numbers)
    torch.set_num_threads(threads)
    runtime.keep_freed_memory()
    shape = (batch * 20, *SHAPES[recipe])
    images = torch.randint(256, shape, generator=runtime.generator(0, "bytes")).to(torch.uint8)
    with joined("cpu") as ranks:
        take, began = ENGINES[engine](recipe, batch, images, ranks), 0.0
        for number in range(WARM_UP + steps):
            if number == WARM_UP:
                if not ranks.alone:
                    dist.barrier()
                began = time.perf_counter()
            take(number)
        if not ranks.alone:
            dist.barrier()
        print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
