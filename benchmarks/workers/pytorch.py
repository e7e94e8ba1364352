"""PyTorch as tutorials write it: a Dataset of PIL images, a DataLoader, a plain loop.

    python -m benchmarks.workers.pytorch --images 1280 [--workers 2]

Every image is opened and resized by Pillow each time it is needed, NCHW float32, nearest Upsample
and Conv2d, torch's default AdamW, and `loss.item()` after every step.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.workers import common
from benchmarks.workers.common import FILTERS, LATENTS, SIDE


class Encoder(nn.Module):
    """x [B, 1, 64, 64] -> mu, logvar, each [B, D]."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = FILTERS
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, a, 3, stride=2, padding=1), nn.BatchNorm2d(a), nn.LeakyReLU()),
            *(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.LeakyReLU()),
            *(nn.Conv2d(b, c, 3, stride=2, padding=1), nn.BatchNorm2d(c), nn.LeakyReLU()),
            nn.Flatten(),
        )
        self.mu = nn.Linear(c * 8 * 8, LATENTS)
        self.logvar = nn.Linear(c * 8 * 8, LATENTS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the encoder."""
        h = self.layers(x)
        return self.mu(h), self.logvar(h)


class Decoder(nn.Module):
    """z [B, D] -> image [B, 1, 64, 64]."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = FILTERS
        self.layers = nn.Sequential(
            nn.Linear(LATENTS, c * 8 * 8),
            nn.Unflatten(1, (c, 8, 8)),
            nn.Upsample(scale_factor=2),
            *(nn.Conv2d(c, b, 3, padding=1), nn.BatchNorm2d(b), nn.LeakyReLU()),
            nn.Upsample(scale_factor=2),
            *(nn.Conv2d(b, a, 3, padding=1), nn.BatchNorm2d(a), nn.LeakyReLU()),
            nn.Upsample(scale_factor=2),
            *(nn.Conv2d(a, 1, 3, padding=1), nn.Sigmoid()),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Run the decoder."""
        return self.layers(z)


class VAE(nn.Module):
    """The whole model."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x -> reconstruction, mu, logvar."""
        mu, logvar = self.encoder(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar


def loss_function(reconstruction: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Squared error + KL, summed over the batch."""
    squared_error = ((reconstruction - x) ** 2).sum()
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
    return squared_error + kl


class Digits(Dataset[Tensor]):
    """MNIST as PIL images, made into tensors one at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.fromarray(self.images[index])
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image, dtype=np.float32) / 255).unsqueeze(0)


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def main() -> None:
    """Measure."""
    job = common.parse()
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    digits = Digits(common.read_images(job.data_dir, job.images + common.WARM_UP * job.batch_size))
    loader = DataLoader(digits, job.batch_size, shuffle=True, num_workers=job.workers)
    vae = VAE().train()
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=common.LEARNING_RATE, weight_decay=common.WEIGHT_DECAY
    )
    setup_seconds = job.setup_seconds()

    losses, began = [], 0.0
    for step, x in enumerate(loader):
        if step == common.WARM_UP:
            began = time.perf_counter()
        reconstruction, mu, logvar = vae(x)
        loss = loss_function(reconstruction, x, mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    common.report(
        "pytorch-workers" if job.workers else "pytorch",
        job,
        seconds=time.perf_counter() - began,
        setup_seconds=setup_seconds,
        parameters=count_parameters(vae),
        loss=sum(losses[common.WARM_UP :]) / job.images,
        packages=["torch", "numpy", "pillow"],
    )


if __name__ == "__main__":
    main()
