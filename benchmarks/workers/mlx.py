"""MLX on the CPU: mlx.nn and one compiled step.

    python -m benchmarks.workers.mlx --images 256

Images are resized beforehand and kept as bytes; a batch is one gather, made float inside the
compiled step. The first step, which traces and compiles, belongs to the setup.
"""

from __future__ import annotations

import time
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from benchmarks.workers import common
from benchmarks.workers.common import FILTERS, LATENTS


class VAE(nn.Module):
    """x [B, 64, 64, 1] -> reconstruction, mu, logvar; channels last."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = FILTERS
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, a, 3, stride=2, padding=1), nn.BatchNorm(a), nn.LeakyReLU()),
            *(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm(b), nn.LeakyReLU()),
            *(nn.Conv2d(b, c, 3, stride=2, padding=1), nn.BatchNorm(c), nn.LeakyReLU()),
        )
        self.mu = nn.Linear(8 * 8 * c, LATENTS)
        self.logvar = nn.Linear(8 * 8 * c, LATENTS)
        self.lin1 = nn.Linear(LATENTS, 8 * 8 * c)
        self.decoder = nn.Sequential(
            nn.Upsample(2),
            *(nn.Conv2d(c, b, 3, padding=1), nn.BatchNorm(b), nn.LeakyReLU()),
            nn.Upsample(2),
            *(nn.Conv2d(b, a, 3, padding=1), nn.BatchNorm(a), nn.LeakyReLU()),
            nn.Upsample(2),
            *(nn.Conv2d(a, 1, 3, padding=1), nn.Sigmoid()),
        )

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Encode, draw, decode."""
        h = self.encoder(x).reshape(len(x), -1)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + mx.exp(0.5 * logvar) * mx.random.normal(mu.shape)
        return self.decoder(self.lin1(z).reshape(-1, 8, 8, FILTERS[-1])), mu, logvar


def loss_function(vae: VAE, x: mx.array) -> mx.array:
    """Squared error + KL, summed over the batch."""
    y, mu, logvar = vae(x)
    return ((y - x) ** 2).sum() - 0.5 * (1 + logvar - mu**2 - mx.exp(logvar)).sum()


def main() -> None:
    """Measure."""
    mx.set_default_device(mx.cpu)
    job = common.parse()
    mx.random.seed(0)
    images = mx.array(common.resized_images(job)[..., None])
    vae = VAE().train()
    optimizer = optim.AdamW(
        common.LEARNING_RATE, weight_decay=common.WEIGHT_DECAY, bias_correction=True
    )
    optimizer.init(vae.trainable_parameters())
    loss_and_grad = nn.value_and_grad(vae, loss_function)
    state = [vae.state, optimizer.state, mx.random.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def train_step(batch: mx.array) -> mx.array:
        loss, grads = loss_and_grad(vae, batch.astype(mx.float32) / 255)
        optimizer.update(vae, grads)
        return loss

    mx.eval(train_step(images[: job.batch_size]), state)
    setup_seconds = job.setup_seconds()

    losses, began = [], 0.0
    for step, index in enumerate(common.batches(job, len(images))):
        if step == common.WARM_UP:
            began = time.perf_counter()
        loss = train_step(images[mx.array(index)])
        mx.eval(loss, state)
        losses.append(loss)
    common.report(
        "mlx",
        job,
        seconds=time.perf_counter() - began,
        setup_seconds=setup_seconds,
        parameters=sum(value.size for _, value in tree_flatten(vae.trainable_parameters())),
        loss=sum(loss.item() for loss in losses[common.WARM_UP :]) / job.images,
        packages=["mlx", "numpy"],
    )


if __name__ == "__main__":
    main()
