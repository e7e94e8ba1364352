"""One process of several that train together; its first word is what it does."""

import json
import os
import sys
import threading
from datetime import timedelta
from pathlib import Path

import torch

from convvae import data
from convvae.cli.main import main
from convvae.config import ModelConfig, TrainConfig
from convvae.data.pixels import to_unit
from convvae.training import distributed
from convvae.training.learner import Learner
from convvae.training.schedules import StepSettings

NETWORKS = ("upsample", "ladder")


def gradients(out, count):
    """Gradients and statistics of two networks after a step on `count` images, in float64."""
    with distributed.joined("cpu") as ranks:
        found = {network: of_network(network, int(count), ranks) for network in NETWORKS}
        if ranks.is_first:
            Path(out).write_text(json.dumps(found))


def of_network(network, count, ranks):
    config = TrainConfig(data="digits", batch_size=12, optimizer="adam", network=network)
    latents = {} if network == "ladder" else {"latent_dims": 3}
    model = ModelConfig(network=network, channels=1, image_size=(8, 8), max_filters=8, **latents)
    images = data.load("digits", "train", limit=count).images
    noise = torch.Generator().manual_seed(1)
    eps = torch.randn(1, count, model.latent_dims, dtype=torch.double, generator=noise)
    learner = Learner(config, model, torch.device("cpu"), count, ranks)
    learner.vae.double()
    distributed.step_of(learner, threading.Event(), threading.Event())
    learner.set_step(StepSettings(0.0, 1.0, 0), count)
    own = ranks.share(count)
    loss = learner.update(to_unit(images[own]).double(), eps[:, own], count)
    found = {name: value.grad.tolist() for name, value in learner.vae.named_parameters()}
    found |= {name: value.tolist() for name, value in learner.vae.named_buffers()}
    return found | {"loss": float(loss)}


def train(out):
    """A training whose learning rate is another in each process."""
    rate = 0.1 * (1 + int(os.environ["RANK"]))
    sys.exit(main(["train", "digits", "--cpu", "--lr", str(rate), "--out", out]))


def alone(out):
    """The first of two processes, and the other one never comes."""
    os.environ["WORLD_SIZE"] = "2"
    distributed.MEETING = timedelta(seconds=1)
    sys.exit(main(["train", "digits", "--cpu", "--out", out]))


if __name__ == "__main__":
    {"gradients": gradients, "train": train, "alone": alone}[sys.argv[1]](*sys.argv[2:])
