"""Train the classifier in whose features samples of MNIST-like models are judged.

    CONVVAE_DATA=FOLDER python -m benchmarks.classifier [--epochs 10] [--seed 0]

It writes the weights to a new file, and what they are worth to results/classifier.json. The package
ships one such file under a version name and a digest: another training is another feature space, in
which no number can be compared with those of before.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from benchmarks import report
from convvae import data, runtime
from convvae.data.pixels import to_unit
from convvae.evaluation.sample_quality.classifier import FEATURES, DigitClassifier
from convvae.files import atomic

BATCH = 128
PEAK_RATE = 5e-3
SHIFT = 2
"""Pixels by which a training image is moved, at most, each way."""
DROPOUT = 0.3
"""Share of the features left out before the digit is told, in training."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classifier", description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="train and test on the first so many images")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("CONVVAE_DATA"))
    parser.add_argument("--weights", type=Path, default=Path("features.safetensors"))
    parser.add_argument("--out", type=Path, default=report.RESULTS / "classifier.json")
    return parser.parse_args(arguments)


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by whole pixels, the same size, black moving in; [B, 1, H, W]."""
    batch, _, height, width = x.shape
    down, right = torch.randint(2 * SHIFT + 1, (2, batch, 1), generator=generator)
    rows = (down + torch.arange(height)).unsqueeze(-1)
    columns = (right + torch.arange(width)).unsqueeze(-2)
    padded = F.pad(x, (SHIFT, SHIFT, SHIFT, SHIFT)).squeeze(1)
    return padded[torch.arange(batch).view(-1, 1, 1), rows, columns].unsqueeze(1)


def train(images: Tensor, labels: Tensor, epochs: int, seed: int, out: Console) -> DigitClassifier:
    """Train by AdamW on shifted images, the learning rate rising and falling once.

    Args:
        images: uint8, shape [N, 1, 28, 28].
        labels: int64, shape [N].
        epochs: Passes over the images.
        seed: Of the weights, the order, the shifts and the dropout.
        out: Where to say how it goes.
    """
    device = torch.device("cpu")
    precision = runtime.pick_precision("auto", device)
    with runtime.seeded(seed, "classifier"):
        model = DigitClassifier().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05)
        steps = epochs * (len(images) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
        for epoch in range(epochs):
            began, total = time.monotonic(), 0.0
            generator = runtime.generator(seed, "order", epoch)
            order = torch.randperm(len(images), generator=generator)
            for chosen in order[: len(images) // BATCH * BATCH].split(BATCH):
                x = shifted(to_unit(images[chosen]), generator)
                with runtime.autocast(device, precision):
                    features = F.dropout(F.relu(model.features(x)), DROPOUT)
                    loss = F.cross_entropy(model.digits(features).float(), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(chosen)
            seconds = time.monotonic() - began
            report.say(out, f"epoch {epoch + 1}: loss {total / len(order):.4f}, {seconds:.0f} s")
    return model.eval()


def accuracy(model: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    """Share of images whose digit is told rightly, in evaluation mode and float32."""
    with torch.inference_mode():
        told = torch.cat([model(to_unit(part)).argmax(1) for part in images.split(1000)])
    return float((told == labels).double().mean())


def measure(options: argparse.Namespace, out: Console) -> tuple[DigitClassifier, dict[str, Any]]:
    """Train, and say what the classifier is worth on the test images."""
    words = ["--epochs", str(options.epochs), "--seed", str(options.seed)]
    words += ["--limit", str(options.limit)] if options.limit else []
    command = shlex.join(["python", "-m", "benchmarks.classifier", *words])
    result = report.begin("classifier", command, out)
    train_set, test_set = (
        data.load("mnist", split, data_dir=options.data_dir, limit=options.limit)
        for split in ("train", "test")
    )
    assert train_set.labels is not None
    assert test_set.labels is not None
    began = time.monotonic()
    model = train(train_set.images, train_set.labels, options.epochs, options.seed, out)
    return model, {
        **result,
        "versions": runtime.versions(),
        "threads": torch.get_num_threads(),
        "train_images": len(train_set),
        "test_images": len(test_set),
        "seconds": round(time.monotonic() - began, 1),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "features": FEATURES,
        "test_accuracy": accuracy(model, test_set.images, test_set.labels),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, and write the weights and the result."""
    options = parse(arguments)
    out = report.console()
    model, result = measure(options, out)
    plain = {name: value.contiguous() for name, value in model.state_dict().items()}
    with atomic(options.weights) as temporary:
        save_file(plain, temporary)
    result["sha256"] = hashlib.sha256(options.weights.read_bytes()).hexdigest()
    report.say(out, f"test accuracy {result['test_accuracy']:.4f}, sha256 {result['sha256']}")
    report.write(out, result, options.out)


if __name__ == "__main__":
    main()
