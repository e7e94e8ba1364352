import pytest
import torch

from convvae import data
from convvae.data import ImageSet
from convvae.data.pixels import binarize_once, to_unit
from convvae.distributions import FullGaussian
from convvae.errors import ImageSizeError
from convvae.evaluation.bounds import image_terms
from convvae.evaluation.encode import (
    Encodings,
    batches,
    decoded_batches,
    encode,
    evaluating,
    map_posteriors,
    marginal_logvar,
    posterior_means,
    stream_encodings,
)
from convvae.evaluation.reconstruction import reconstruct
from convvae.model.vae import VAE


@pytest.fixture
def vae(tiny_model):
    return VAE(tiny_model)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (9, 1, 12, 10), dtype=torch.uint8, generator=generator)


def test_the_numbers_are_those_of_an_evaluation(vae, images):
    found = encode(vae, images, seed=3)
    terms = image_terms(vae, images, seed=3)
    torch.testing.assert_close(found.bound, terms.bound)
    torch.testing.assert_close(found.kl, terms.kl)
    torch.testing.assert_close(found.mu, posterior_means(vae, images)[0])
    error = (reconstruct(vae, images) - to_unit(images)).square().mean((1, 2, 3))
    torch.testing.assert_close(found.squared_error, error.double())
    with evaluating(vae):
        q = vae.encode(to_unit(images))
    torch.testing.assert_close(found.logvar, q.logvar)


def test_a_set_is_encoded_in_its_order_whatever_the_batches(vae, images, monkeypatch):
    whole = encode(vae, images, seed=0)
    monkeypatch.setattr("convvae.evaluation.encode.BATCH", 4)
    done = []
    source = ImageSet(images, None, "mine", "test", names=[f"{n}.png" for n in range(9)])
    parts = list(stream_encodings(vae, source, seed=0, progress=done.append))
    assert [len(part.mu) for part in parts] == done == [4, 4, 1]
    for one, other in zip(Encodings.cat(parts), whole, strict=True):
        torch.testing.assert_close(one, other)


def test_numbers_are_of_any_number_of_images(vae, images, monkeypatch):
    whole = encode(vae, images, seed=0)
    sizes = []
    forward = vae.encode
    monkeypatch.setattr(vae, "encode", lambda x: sizes.append(len(x)) or forward(x))
    monkeypatch.setattr("convvae.evaluation.encode.BATCH", 4)
    for one, other in zip(encode(vae, images, seed=0), whole, strict=True):
        torch.testing.assert_close(one, other)
    assert sizes == [4, 4, 1]


def test_a_model_in_training_is_put_back_between_batches(vae, images):
    vae.train()
    for made in (
        map_posteriors(vae, images.split(4), lambda q: (vae.training, q.location.requires_grad)),
        ((False, images.requires_grad) for images in decoded_batches(vae, torch.zeros(3, 3))),
    ):
        for found in made:
            assert found == (False, False)
            assert vae.training
            assert torch.is_grad_enabled()


def test_images_are_resized_a_batch_at_a_time(vae, monkeypatch):
    monkeypatch.setattr("convvae.evaluation.encode.BATCH", 4)
    source = data.load("digits", "test", limit=10)
    parts = list(batches(vae, source))
    assert [part.shape for part in parts] == [(4, 1, 12, 10), (4, 1, 12, 10), (2, 1, 12, 10)]
    assert torch.equal(torch.cat(parts), data.resize(source.images, (12, 10)))


def test_black_and_white_pixels_are_those_of_an_evaluation(vae, images, monkeypatch):
    monkeypatch.setattr("convvae.evaluation.encode.BATCH", 4)
    source = ImageSet(images, None, "mine", "test")
    parts = torch.cat(list(batches(vae, source, 7)))
    assert torch.equal(parts, binarize_once(images, "test", 7))


def test_images_of_other_channels_are_refused(vae):
    colour = ImageSet(torch.zeros(2, 3, 12, 10, dtype=torch.uint8), None, "mine", "test")
    with pytest.raises(ImageSizeError, match="3 channels"):
        next(stream_encodings(vae, colour, seed=0))


def test_the_variance_of_a_full_covariance_is_that_of_its_draws():
    generator = torch.Generator().manual_seed(0)
    q = FullGaussian(torch.zeros(1, 3), torch.tensor([[0.5, -1, 0]]), torch.tensor([[2.0, -1, 3]]))
    draws = q.rsample(torch.randn(200_000, 1, 3, generator=generator))
    found = marginal_logvar(q, lambda count: torch.zeros(count, 1, 3))
    torch.testing.assert_close(found, draws.var(0).log(), atol=0.02, rtol=0)


def test_the_variance_of_a_flow_is_that_of_its_draws(tiny_model, images):
    vae = VAE(tiny_model.model_copy(update={"posterior": "flow"}))
    found = encode(vae, images, seed=0)
    with evaluating(vae):
        q = vae.encode(to_unit(images))
        draws = q.rsample(torch.randn(4000, 9, 3))
    torch.testing.assert_close(found.logvar, draws.var(0).log(), atol=0.8, rtol=0)
    again = encode(vae, images[4:5], seed=0)
    torch.testing.assert_close(again.logvar, found.logvar[4:5])
