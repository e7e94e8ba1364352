import pytest
import torch

from convvae import evaluate
from convvae.evaluate import evaluating, generate, mean_terms, reconstruct
from convvae.model import VAE


@pytest.fixture
def vae(tiny_model):
    return VAE(tiny_model)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (7, 1, 12, 10), dtype=torch.uint8, generator=generator)


def test_the_mode_is_put_back_also_after_an_error(vae):
    vae.train()
    seen = []

    def fail():
        with evaluating(vae):
            seen.extend([vae.training, (vae.encoder.conv1.weight * 2).requires_grad])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False, False]
    assert vae.training


def test_scoring_changes_nothing_in_the_model(vae, images):
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    mean_terms(vae.train(), images, seed=0)
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())


def test_the_same_seed_gives_the_same_number(vae, images):
    first, again, other = (mean_terms(vae, images, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.kl == other.kl
    assert first.log_px != other.log_px


def test_a_last_smaller_batch_weighs_what_it_holds(vae, images, monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 3)
    kls = [mean_terms(vae, image.unsqueeze(0), seed=0).kl.item() for image in images]
    assert mean_terms(vae, images, seed=0).kl.item() == pytest.approx(sum(kls) / 7, rel=1e-6)


def test_more_draws_estimate_the_same_bound(vae, images):
    one = [mean_terms(vae, images, seed=seed).bound.item() for seed in range(40)]
    many = mean_terms(vae, images, seed=0, mc_samples=400).bound.item()
    spread = torch.tensor(one).std().item()
    assert abs(sum(one) / 40 - many) < 5 * spread / 40**0.5 + 1e-3


def test_reconstructions_are_deterministic_and_use_the_mean(vae, images):
    first = reconstruct(vae, images)
    assert torch.equal(first, reconstruct(vae, images))
    assert first.shape == (7, 1, 12, 10)
    with evaluating(vae):
        mean = vae.decode(vae.encode(images / 255).mean).mean
    torch.testing.assert_close(first, mean)


def test_samples_are_a_function_of_the_seed(vae):
    assert torch.equal(generate(vae, 5, seed=1), generate(vae, 5, seed=1))
    assert not torch.equal(generate(vae, 5, seed=1), generate(vae, 5, seed=2))
    assert generate(vae, 5, seed=1).shape == (5, 1, 12, 10)
