"""pythae: its BetaVAE with the same network as custom encoder and decoder, and its BaseTrainer.

    python -m benchmarks.workers.pythae --images 1280

pythae halves the squared error and averages over the batch; its BetaVAE with beta 1/2 minimises
(squared error + KL) / 2, the same loss up to a factor, which AdamW ignores. Images are resized and
made float beforehand, as its BaseDataset wants them.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import BetaVAE, BetaVAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor

from benchmarks.workers import common, pytorch

BETA = 0.5


class Encoder(BaseEncoder):
    """The same encoder, in pythae's terms."""

    def __init__(self) -> None:
        super().__init__()
        self.network = pytorch.Encoder()

    def forward(self, x: Tensor) -> ModelOutput:
        """Run the encoder."""
        mu, logvar = self.network(x)
        return ModelOutput(embedding=mu, log_covariance=logvar)


class Decoder(BaseDecoder):
    """The same decoder, in pythae's terms."""

    def __init__(self) -> None:
        super().__init__()
        self.network = pytorch.Decoder()

    def forward(self, z: Tensor) -> ModelOutput:
        """Run the decoder."""
        return ModelOutput(reconstruction=self.network(z))


class Clock(TrainingCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_step_end(self, training_config: BaseTrainerConfig, **_: Any) -> None:  # noqa: ANN401
        """A step ended."""
        self.ends.append(time.perf_counter())


def main() -> None:
    """Measure."""
    job = common.parse()
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    x = torch.from_numpy(common.resized_images(job)).unsqueeze(1) / 255
    vae = BetaVAE(
        BetaVAEConfig((1, common.SIDE, common.SIDE), common.LATENTS, beta=BETA),
        Encoder(),
        Decoder(),
    )
    clock, losses = Clock(), []
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=job.batch_size,
            num_epochs=1,
            optimizer_cls="AdamW",
            optimizer_params={"weight_decay": common.WEIGHT_DECAY},
            learning_rate=common.LEARNING_RATE,
            no_cuda=True,
        )
        dataset = BaseDataset(x, torch.zeros(len(x)))
        trainer = BaseTrainer(vae, dataset, training_config=settings, callbacks=[clock])
        vae.register_forward_hook(
            lambda _model, _inputs, output: losses.append(output.loss.detach())
        )
        setup_seconds = job.setup_seconds()
        trainer.train()
    timed = torch.stack(losses[common.WARM_UP :])
    common.report(
        "pythae",
        job,
        seconds=clock.ends[-1] - clock.ends[common.WARM_UP - 1],
        setup_seconds=setup_seconds,
        parameters=pytorch.count_parameters(vae),
        loss=float(timed.mean()) / BETA,
        packages=["pythae", "torch", "numpy"],
    )


if __name__ == "__main__":
    main()
