import copy
import math

import pytest
import torch

from convvae.config import TrainConfig
from convvae.errors import ModelFileError
from convvae.model.objectives import draw, elbo, loss
from convvae.training.learner import Learner, TrainingProgress, without_bias_correction
from convvae.training.schedules import (
    StepSettings,
    kl_capacity,
    kl_weight,
    learning_rate,
    step_settings,
)

CPU = torch.device("cpu")
BETA = 0.5


def learner(**values):
    values = {"precision": "float32", **values}
    config = TrainConfig(data="digits", latent_dims=3, max_filters=8, **values)
    return Learner(config, config.model((12, 10), 1), CPU, 100)


def batch(seed=0, size=6):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, 1, 12, 10, generator=generator)
    return x, torch.randn(1, size, 3, generator=generator)


def weights(one):
    return torch.cat([p.detach().flatten() for p in one.vae.parameters()])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", {0.0: 1.0, 0.5: 1.0, 1.0: 1.0}),
        ("cosine", {0.0: 1.0, 0.5: 0.5, 1.0: 0.0}),
        ("one-cycle", {0.0: 0.04, 0.15: 0.52, 0.3: 1.0, 0.65: 0.5, 1.0: 0.0}),
    ],
)
def test_schedules(schedule, rates):
    config = TrainConfig(data="digits", lr=2.0, schedule=schedule)
    for progress, factor in rates.items():
        assert learning_rate(config, progress) == pytest.approx(2.0 * factor, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [
        ("constant", {0: 2.0, 500: 2.0}),
        ("linear", {0: 0.0, 50: 1.0, 100: 2.0, 1000: 2.0}),
        ("cyclical", {0: 0.0, 62.5: 1.0, 125: 2.0, 249: 2.0, 250: 0.0, 1000: 0.0}),
    ],
)
def test_kl_schedules(schedule, weights):
    config = TrainConfig(data="digits", beta=2.0, kl_schedule=schedule, kl_warmup=100)
    for images, weight in weights.items():
        assert kl_weight(config, images, images / 1000) == pytest.approx(weight, abs=1e-12)


def test_the_capacity_rises_over_its_warm_up():
    config = TrainConfig(data="digits", capacity=10.0, kl_warmup=100)
    assert [kl_capacity(config, images) for images in (0, 50, 100, 1000)] == [0.0, 5.0, 10.0, 10.0]
    assert step_settings(config, 50, 1000).capacity == 5.0
    assert kl_capacity(TrainConfig(data="digits"), 50) == 0.0


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_a_step_is_the_optimisers_step_on_the_loss(optimizer):
    one = learner(optimizer=optimizer, weight_decay=0.1)
    other = copy.deepcopy(one.vae)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[optimizer]
    reference = kind(other.parameters(), lr=0.02, weight_decay=0.1, fused=False)
    for seed in range(3):
        x, eps = batch(seed)
        one.step(x, eps, StepSettings(0.02, BETA, 0))
        reference.zero_grad()
        loss(elbo(other, x, eps), BETA).backward()
        reference.step()
    # The weights themselves differ where a gradient is zero but for rounding, as of a bias that
    # batch normalisation takes away again: Adam divides such a gradient by its own size.
    x, eps = batch(9)
    torch.testing.assert_close(elbo(one.vae, x, eps), elbo(other, x, eps), rtol=1e-4, atol=1e-4)


def test_clipping_bounds_the_gradient():
    one = learner(clip_norm=0.01)
    one.step(*batch(), StepSettings(0.0, BETA, 0))
    norm = torch.cat([p.grad.flatten() for p in one.vae.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_the_average_follows_the_weights_with_its_half_life():
    one = learner(ema_images=6)
    assert one.average is not None
    assert one.weights is one.average
    start = one.vae.encoder.conv1.weight.detach().clone()
    one.step(*batch(), StepSettings(0.1, BETA, 10_000))
    now = one.vae.encoder.conv1.weight.detach()
    torch.testing.assert_close(one.average.encoder.conv1.weight, (start + now) / 2)
    steps = one.vae.encoder.bn1.num_batches_tracked
    assert one.average.encoder.bn1.num_batches_tracked == steps == 1


def test_without_an_average_the_weights_are_the_trained_ones():
    one = learner()
    assert one.weights is one.vae


def test_sums_weigh_each_image_the_same():
    one, progress = learner(), TrainingProgress()
    terms = []
    for size in (6, 2):
        x, eps = batch(size, size)
        terms.append(elbo(copy.deepcopy(one.vae), x, eps))
        one.step(x, eps, StepSettings(0.0, BETA, 0))
        progress.epoch_images += size
    expected = torch.cat([t.log_px for t in terms]).mean().item()
    assert one.means(progress).log_px.item() == pytest.approx(expected, rel=1e-5)


def test_zero_head_biases():
    for head in ("proj_mu", "proj_logvar"):
        assert not getattr(learner(head_bias="zero").vae.encoder, head).bias.any()
        assert getattr(learner().vae.encoder, head).bias.any()
    pooled = learner(head_bias="zero", network="pooled").vae.encoder
    assert not pooled.proj_mu[-1].bias.any()
    assert pooled.proj_mu[0].bias.any()


@pytest.mark.parametrize("network", ["upsample", "transposed", "pooled"])
def test_a_start_at_the_mean_pixel(network):
    one = learner(network=network, ema_images=100)
    one.start_at(torch.tensor([0.2]))
    for vae in (one.vae, one.average):
        assert vae is not None
        assert vae.decoder.output_bias.sigmoid().tolist() == pytest.approx([0.2])


def test_the_seed_decides_the_weights():
    assert torch.equal(weights(learner(seed=1)), weights(learner(seed=1)))
    assert not torch.equal(weights(learner(seed=1)), weights(learner(seed=2)))


@pytest.mark.parametrize(
    "values", [{}, {"ema_images": 50}, {"optimizer": "adam"}, {"precision": "bfloat16"}]
)
def test_saved_and_loaded_it_continues_to_the_bit(values, tmp_path):
    one = learner(**values)
    for seed in range(3):
        one.step(*batch(seed), StepSettings(0.01, BETA, 6 * seed))
    progress = TrainingProgress(epoch=1, batch=3, images=18, epoch_images=18, seconds=0.5)
    one.save(tmp_path / "state", progress)
    other = learner(**values, seed=99)
    assert other.load(tmp_path / "state") == progress
    for each in (one, other):
        for seed in range(3, 6):
            each.step(*batch(seed), StepSettings(0.01, BETA, 6 * seed))
    assert torch.equal(weights(one), weights(other))
    assert torch.equal(one.sums, other.sums)
    for name, value in one.weights.state_dict().items():
        assert torch.equal(value, other.weights.state_dict()[name]), name


def test_a_state_of_other_settings_is_refused(tmp_path):
    learner().save(tmp_path / "state", TrainingProgress())
    config = TrainConfig(data="digits", latent_dims=4, max_filters=8)
    with pytest.raises(ModelFileError, match="does not fit the run's settings") as caught:
        Learner(config, config.model((12, 10), 1), CPU, 100).load(tmp_path / "state")
    assert "\n" not in str(caught.value)


def test_uncorrected_steps_are_those_of_adam_without_bias_correction():
    factors = [without_bias_correction(step) for step in (1, 2, 10_000)]
    b1, b2 = 0.9, 0.999
    assert factors[0] == pytest.approx((1 - b1) / (1 - b2) ** 0.5)
    assert factors[1] == pytest.approx((1 - b1**2) / (1 - b2**2) ** 0.5)
    assert factors[2] == pytest.approx(1.0, abs=1e-4)

    one, other = learner(bias_correction=False, weight_decay=0.0), learner()
    x, eps = batch()
    loss(elbo(other.vae, x, eps), BETA).backward()
    for parameter in other.vae.parameters():
        gradient = parameter.grad
        assert gradient is not None
        parameter.data -= 0.01 * 0.1 * gradient / ((0.001 * gradient**2) ** 0.5 + 1e-8)
    one.step(x, eps, StepSettings(0.01, BETA, 0))
    torch.testing.assert_close(elbo(one.vae, x, eps), elbo(other.vae, x, eps), rtol=2e-3, atol=2e-2)


def test_a_learner_knows_when_a_weight_is_not_finite():
    one = learner()
    assert one.is_finite()
    one.vae.encoder.bn1.running_var.data[0] = float("inf")
    assert not one.is_finite()


def test_a_position_moves_to_the_next_epoch():
    progress = TrainingProgress(epoch=2, batch=5, images=300, epoch_images=100, seconds=3.0)
    progress.next_epoch()
    assert progress == TrainingProgress(epoch=3, images=300)
    assert math.isclose(progress.seconds, 0.0)


def test_bfloat16_is_near_float32_and_keeps_float32_weights():
    losses = []
    for precision in ("float32", "bfloat16"):
        one = learner(precision=precision)
        losses.append([one.step(*batch(s), StepSettings(0.01, BETA, 0)).item() for s in range(5)])
        assert {p.dtype for p in one.vae.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.005)


def test_the_learner_keeps_the_average_of_the_optimal_variance():
    one = learner(likelihood="gaussian-optimal", lr=1e-9, variance=0.3)
    x, eps = batch()
    p = draw(one.vae, x, eps).p
    assert one.vae.head.variance.item() == pytest.approx(0.3)  # drawing alone changes nothing
    one.step(x, eps, StepSettings(rate=1e-9, beta=1.0, images=0))
    error = (x - p.mean).square().mean().item()
    assert one.vae.head.variance.item() == pytest.approx(0.9 * 0.3 + 0.1 * error)
    assert one.vae.state_dict()["head.variance"].item() == one.vae.head.variance.item()
