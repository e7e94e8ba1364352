"""JAX on the CPU: flax.linen and optax, one compiled step with donated state.

    python -m benchmarks.workers.jax --images 1280

Images are resized beforehand and kept as bytes; a batch is one numpy gather, made float inside the
compiled step. The loop never waits for a loss: it is read when all steps are done.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from benchmarks.workers import common
from benchmarks.workers.common import FILTERS, LATENTS

OPTIMIZER = optax.adamw(common.LEARNING_RATE, weight_decay=common.WEIGHT_DECAY)


class VAE(nn.Module):
    """x [B, 64, 64, 1], key -> reconstruction, mu, logvar; channels last."""

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Encode, draw, decode."""
        for filters in FILTERS:
            x = nn.Conv(filters, (3, 3), strides=2, padding=1)(x)
            x = nn.leaky_relu(nn.BatchNorm(use_running_average=False)(x))
        h = x.reshape(len(x), -1)
        mu, logvar = nn.Dense(LATENTS)(h), nn.Dense(LATENTS)(h)
        z = mu + jnp.exp(0.5 * logvar) * jax.random.normal(key, mu.shape)
        h = nn.Dense(8 * 8 * FILTERS[-1])(z).reshape(-1, 8, 8, FILTERS[-1])
        for filters in (FILTERS[1], FILTERS[0]):
            h = nn.Conv(filters, (3, 3), padding=1)(upsample(h))
            h = nn.leaky_relu(nn.BatchNorm(use_running_average=False)(h))
        return nn.sigmoid(nn.Conv(1, (3, 3), padding=1)(upsample(h))), mu, logvar


def upsample(x: jax.Array) -> jax.Array:
    """Nearest neighbour, twice the height and width."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def start(batch_size: int) -> dict[str, Any]:
    """The first state of a training run."""
    key = jax.random.key(0)
    x = jnp.zeros((batch_size, common.SIDE, common.SIDE, 1))
    variables = jax.jit(VAE().init)(key, x, key)
    params, stats = variables["params"], variables["batch_stats"]
    return {"params": params, "stats": stats, "optimizer": OPTIMIZER.init(params), "key": key}


@partial(jax.jit, donate_argnums=0)
def train_step(state: dict[str, Any], images: jax.Array) -> tuple[dict[str, Any], jax.Array]:
    """One step on a batch of bytes [B, 64, 64]; the next state and the batch's loss."""
    x = images[..., None].astype(jnp.float32) / 255
    next_key, key = jax.random.split(state["key"])

    def loss_function(params: Any) -> tuple[jax.Array, Any]:  # noqa: ANN401
        variables = {"params": params, "batch_stats": state["stats"]}
        (y, mu, logvar), updated = VAE().apply(variables, x, key, mutable=["batch_stats"])
        kl = -0.5 * (1 + logvar - mu**2 - jnp.exp(logvar)).sum()
        return ((y - x) ** 2).sum() + kl, updated["batch_stats"]

    (loss, stats), grads = jax.value_and_grad(loss_function, has_aux=True)(state["params"])
    updates, optimizer = OPTIMIZER.update(grads, state["optimizer"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "stats": stats, "optimizer": optimizer, "key": next_key}, loss


def main() -> None:
    """Measure."""
    job = common.parse()
    images = common.resized_images(job)
    state = start(job.batch_size)
    parameters = sum(p.size for p in jax.tree.leaves(state["params"]))
    compiled = train_step.lower(state, images[: job.batch_size]).compile()
    jax.block_until_ready(state)
    setup_seconds = job.setup_seconds()

    losses, began = [], 0.0
    for step, index in enumerate(common.batches(job, len(images))):
        if step == common.WARM_UP:
            jax.block_until_ready(state)
            began = time.perf_counter()
        state, loss = compiled(state, images[index])
        losses.append(loss)
    jax.block_until_ready(state)
    common.report(
        "jax",
        job,
        seconds=time.perf_counter() - began,
        setup_seconds=setup_seconds,
        parameters=parameters,
        loss=float(sum(losses[common.WARM_UP :])) / job.images,
        packages=["jax", "jaxlib", "flax", "optax", "numpy"],
    )


if __name__ == "__main__":
    main()
