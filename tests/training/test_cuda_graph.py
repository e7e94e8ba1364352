"""Recorded steps, the recording replaced by plain calls: what a graph does is the GPU's matter."""

import pytest
import torch

from convvae.config import Condition, TrainConfig
from convvae.training.cuda_graph import WARM_UP_STEPS, CapturedStep, PlainStep, make_step
from convvae.training.learner import Learner
from convvae.training.loop import inputs_of
from convvae.training.schedules import step_settings

CPU = torch.device("cpu")
BATCH = 6


class Recorder:
    """Stands in for a CUDA graph: records without running, and runs when replayed."""

    def __init__(self):
        self.recorded = 0
        self.replayed = 0

    def __call__(self, work):
        self.recorded += 1

        def replay():
            self.replayed += 1
            work()

        return replay


def learner(**values):
    config = TrainConfig(
        data="digits", latent_dims=3, max_filters=8, precision="float32", batch_size=BATCH, **values
    )
    return Learner(config, config.model((12, 10), 1), CPU, 100)


def images():
    return torch.randint(
        256, (40, 1, 12, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def run(step, config, sizes, y=None):
    """Take steps of those batch sizes; their losses."""
    device = step.plain.learner.vae.device if hasattr(step, "plain") else step.learner.vae.device
    pixels = images().to(device)
    seen, losses = 0, []
    for number, size in enumerate(sizes):
        generator = torch.Generator().manual_seed(number)
        index = torch.randperm(40, generator=generator)[:size]
        inputs = inputs_of(config, size, 3, (1, 12, 10), seen)
        inputs = inputs._replace(y=None if y is None else y[index].to(device))
        settings = step_settings(config, seen, sum(sizes))
        losses.append(step(pixels[index.to(device)], inputs, settings))
        seen += size
    return torch.stack(losses)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"schedule": "cosine", "bias_correction": False},
        {"ema_images": 12, "clip_norm": 0.1},
        {"optimizer": "muon", "kl_schedule": "linear", "kl_warmup": 30},
        {"augment": "flip-shift"},
        {"augment": "flip", "binarize": "dynamic"},
    ],
)
def test_replayed_steps_are_the_plain_ones_to_the_bit(settings):
    one, other, recorder = learner(**settings), learner(**settings), Recorder()
    sizes = [BATCH] * 7 + [2] + [BATCH] * 2
    plain = run(PlainStep(one), one.config, sizes)
    captured = run(CapturedStep(other, recorder), other.config, sizes)
    assert torch.equal(plain, captured)
    for (name, a), b in zip(
        one.weights.state_dict().items(), other.weights.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert torch.equal(one.sums, other.sums)
    assert recorder.recorded == 1
    assert recorder.replayed == len(sizes) - WARM_UP_STEPS - 1


def test_moved_images_are_what_is_learnt_from():
    one, other = learner(augment="flip-shift"), learner()
    sizes = [BATCH] * 2
    moved = run(PlainStep(one), one.config, sizes)
    assert not torch.equal(moved, run(PlainStep(other), other.config, sizes))


def test_a_returned_loss_is_not_overwritten_by_the_next_step():
    one = learner()
    losses = run(CapturedStep(one, Recorder()), one.config, [BATCH] * 6)
    assert len(set(losses.tolist())) == 6


def test_a_cpu_takes_plain_steps():
    step = make_step(learner())
    assert isinstance(step, PlainStep)
    assert step.engine == "eager"


if torch.cuda.is_available():  # not skipped elsewhere: without a GPU there is nothing to test

    def test_a_cuda_graph_learns_what_plain_steps_learn():
        device = torch.device("cuda")
        config = learner().config
        ends = []
        for kind in (PlainStep, CapturedStep):
            one = Learner(config, config.model((12, 10), 1), device, 100)
            ends.append(run(kind(one), config, [BATCH] * 8 + [2]))
        torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-4)


def test_replayed_steps_are_told_the_labels_of_their_own_images():
    condition = Condition(labels=("a", "b"), counts=(1, 1))
    y = torch.eye(2)[torch.arange(40) % 2]

    def told():
        config = TrainConfig(
            data="digits", latent_dims=3, max_filters=8, batch_size=BATCH, condition="label"
        )
        return Learner(config, config.model((12, 10), 1, condition), CPU, 100)

    one, other, third = told(), told(), told()
    sizes = [BATCH] * 5 + [2]
    plain = run(PlainStep(one), one.config, sizes, y)
    captured = run(CapturedStep(other, Recorder()), other.config, sizes, y)
    assert torch.equal(plain, captured)
    swapped = run(PlainStep(third), third.config, sizes, y.flip(1))
    assert not torch.equal(plain, swapped)
