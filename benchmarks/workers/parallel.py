"""One of several processes that train together: prints the seconds of the timed steps.

Called as `python -m benchmarks.workers.parallel RANK PROCESSES PORT THREADS BATCH STEPS`. The
pixels are random; the recipe, the precision and the step are convvae's own.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.engine import CPU, model, settings
from benchmarks.workers.common import SIDE, WARM_UP
from convvae import runtime
from convvae.training.cuda_graph import PlainStep, StepInputs
from convvae.training.learner import Learner
from convvae.training.schedules import StepSettings


def average_gradients(learner: Learner, processes: int) -> None:
    """Have the optimiser's step begin with the mean of all processes' gradients."""
    weights = list(learner.vae.parameters())

    def hook(*_: Any) -> None:  # noqa: ANN401
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        total = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(total)
        parts = (total / processes).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    learner.optimizer.register_step_pre_hook(hook)


def main() -> None:
    """Take the steps."""
    rank, processes, port, threads, batch, steps = (int(word) for word in sys.argv[1:])
    torch.set_num_threads(threads)
    runtime.keep_freed_memory()
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    config = settings(runtime.pick_precision("auto", CPU), batch)
    learner = Learner(config, model(), CPU, 60_000)
    if processes > 1:
        average_gradients(learner, processes)
    shape = (batch * 100, 1, SIDE, SIDE)
    images = torch.randint(256, shape, generator=runtime.generator(rank, "bytes")).to(torch.uint8)
    step = PlainStep(learner)
    began = 0.0
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            dist.barrier()
            began = time.perf_counter()
        index = torch.randint(len(images), (batch,))
        step(
            images[index],
            StepInputs(torch.randn(1, batch, config.latent_dims)),
            StepSettings(config.lr, 1.0, number * batch),
        )
    dist.barrier()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
