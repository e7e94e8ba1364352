import math

import pytest
import torch

from convvae.evaluation import encode
from convvae.evaluation.bounds import image_terms, importance_bounds, mean_terms
from convvae.evaluation.encode import evaluating, generate
from convvae.evaluation.estimates import Estimate, Undefined
from convvae.evaluation.evaluate import evaluate
from convvae.evaluation.reconstruction import reconstruct
from convvae.images.ssim import ssim
from convvae.model.vae import VAE


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
    monkeypatch.setattr(encode, "BATCH", 3)
    kls = [mean_terms(vae, image.unsqueeze(0), seed=0).kl.item() for image in images]
    # A latent's KL is a small difference of terms near 1, each rounded to 2^-24.
    rounding = 4 * vae.config.latent_dims * 2**-24
    as_batches = (sum(kls[:3]) / 3 + sum(kls[3:6]) / 3 + kls[6]) / 3
    assert abs(as_batches - sum(kls) / 7) > 10 * rounding
    assert mean_terms(vae, images, seed=0).kl.item() == pytest.approx(sum(kls) / 7, abs=rounding)


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


def test_terms_of_images_average_to_the_mean_terms(vae, images):
    terms = image_terms(vae, images, seed=3, mc_samples=2)
    assert terms.log_px.shape == terms.kl.shape == (7,)
    mean = mean_terms(vae, images, seed=3, mc_samples=2)
    torch.testing.assert_close(terms.log_px.mean(), mean.log_px)
    torch.testing.assert_close(terms.kl.mean(), mean.kl)


def test_an_estimate_is_the_mean_and_its_standard_error():
    values = torch.tensor([1.0, 2.0, 6.0], dtype=torch.double)
    found = Estimate.of(values)
    assert found.mean == 3.0
    assert found.standard_error == pytest.approx((7 / 3) ** 0.5)
    assert Estimate.of(values[:1]) == (1.0, None)


def test_an_evaluation_agrees_with_its_parts(vae, images):
    seen = []
    found = evaluate(vae, images, seed=1, samples=8, progress=seen.append)
    assert sum(seen) == 7
    assert found.bound.mean == pytest.approx(found.log_px.mean - found.kl.mean)
    assert found.bound.mean == pytest.approx(mean_terms(vae, images, seed=1).bound.item())
    weighted = importance_bounds(vae, images, samples=8, seed=1)
    assert found.importance_weighted == Estimate.of(weighted)
    assert sum(found.kl_per_latent) == pytest.approx(found.kl.mean, rel=1e-4)
    error = (reconstruct(vae, images) - images / 255).square().mean().item()
    assert found.squared_error.mean == pytest.approx(error, rel=1e-5)
    assert found.psnr == pytest.approx(-10 * math.log10(error), rel=1e-5)
    assert found.bits_per_dim is None  # a density has none


def test_similarity_is_that_of_the_reconstructions_where_the_window_fits(vae, images, tiny_model):
    assert evaluate(vae, images, seed=0).ssim == Undefined(
        "images of 12x10 are smaller than its 11x11 window"
    )
    large = images.repeat(1, 1, 1, 2)
    vae = VAE(tiny_model.model_copy(update={"image_size": (12, 20)}))
    expected = Estimate.of(ssim(large / 255, reconstruct(vae, large)))
    assert evaluate(vae, large, seed=0).ssim == pytest.approx(expected)


def test_bits_per_dim_are_of_binary_images_alone(tiny_model, images):
    vae = VAE(tiny_model.model_copy(update={"likelihood": "bernoulli"}))
    assert evaluate(vae, images, seed=0).bits_per_dim is None
    binary = (images > 127).to(torch.uint8) * 255
    found = evaluate(vae, binary, seed=0)
    assert found.bits_per_dim == pytest.approx(-found.bound.mean / (120 * math.log(2)))


def test_units_are_active_where_the_posterior_mean_varies(vae, images):
    with torch.no_grad():
        for head in (vae.encoder.proj_mu, vae.encoder.proj_logvar):
            head.weight.zero_()
            head.bias.zero_()
        vae.encoder.proj_mu.weight[1].fill_(100.0)
    found = evaluate(vae, images, seed=0)
    assert found.active_units == 1
    assert found.kl_per_latent[0] == found.kl_per_latent[2] == 0
    assert found.kl_per_latent[1] > 0


def test_one_image_has_no_standard_error(vae, images):
    found = evaluate(vae, images[:1], seed=0, samples=3)
    assert found.bound.standard_error is None
    assert found.active_units == 0


def test_memory_of_an_importance_weighted_bound_does_not_grow_with_k(vae, images, monkeypatch):
    largest = []
    decode = VAE.decode
    monkeypatch.setattr(
        VAE, "decode", lambda self, z: largest.append(z[..., 0].numel()) or decode(self, z)
    )
    for samples in (60, 400):
        largest.clear()
        importance_bounds(vae, images, samples=samples, seed=0)
        assert max(largest) <= encode.BATCH
