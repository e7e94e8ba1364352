"""A score chosen by normal images alone."""

import pytest
import torch

from convvae.anomalies import choosing
from convvae.anomalies.choosing import aurocs, made_abnormal
from convvae.config import ModelConfig
from convvae.data import ImageSet
from convvae.model.vae import VAE

SIZE = (12, 10)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    config = ModelConfig(image_size=SIZE, channels=1, latent_dims=2, max_filters=8)
    return VAE(config).eval()


@pytest.fixture
def images():
    """A bar at the top of noise, of a length of its own: uint8 [80, 1, 12, 10]."""
    generator = torch.Generator().manual_seed(1)
    found = torch.randint(40, (80, 1, *SIZE), generator=generator, dtype=torch.uint8)
    for place, length in enumerate(torch.randint(4, 9, (80,), generator=generator).tolist()):
        found[place, 0, 1:3, 1:length] = 250
    return found


def test_made_images_have_their_pixels_in_other_places(images):
    made = made_abnormal(images, 3)
    assert made.keys() == {"turned", "shuffled", "pasted", "erased"}
    for name, found in made.items():
        assert found.shape == images.shape
        assert (found != images).flatten(1).any(1).float().mean() > 0.9
        assert torch.equal(found, made_abnormal(images, 3)[name])
    for name in ("turned", "shuffled"):
        pixels = made[name].flatten(1).sort(1).values
        assert torch.equal(pixels, images.flatten(1).sort(1).values)
    assert torch.equal(made["shuffled"][:, :, :6, :5], images[:, :, 6:, 5:])
    changed = (made["erased"] != images).flatten(1).any(1)
    middle = images.flatten(1).median(1).values.view(-1, 1, 1, 1)
    assert torch.where(made["erased"] == images, middle, made["erased"]).eq(middle).all()
    assert changed.float().mean() > 0.9
    assert not torch.equal(made["pasted"], made_abnormal(images, 4)["pasted"])
    square = images[..., :10, :]
    assert torch.equal(made_abnormal(square, 3)["turned"], square.rot90(1, (2, 3)))


def test_scores_are_ranked_by_what_normal_images_alone_say(vae, images):
    chosen = torch.ones(80, dtype=torch.bool)
    chosen[60:] = False
    found = aurocs(vae, ImageSet(images, None, "mine", "test"), chosen, seed=0, samples=2)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found.keys() == {
        *("bound", "importance_bound", "squared_error", "latent_distance", "corrected_error"),
        *("dissimilarity", "neighbours", "combination"),
    }
    assert all(0 <= auroc <= 1 for auroc in found.values())
    other = images.clone()
    other[60:] = 255 - other[60:]
    again = aurocs(vae, ImageSet(other, None, "mine", "test"), chosen, seed=0, samples=2)
    assert again == found


def test_the_best_score_comes_first(vae, images, monkeypatch):
    """A score that sees how bright the upper half is, against one that sees nothing."""

    def judged(x, *_):
        bright = x[:, :, :6].double().flatten(1).mean(1)
        return {"squared_error": torch.zeros(len(x)), "bound": -bright}

    monkeypatch.setattr(choosing, "measure_images", lambda _, some, **__: some)
    monkeypatch.setattr(choosing, "scores", judged)
    monkeypatch.setattr(
        choosing,
        "Calibration",
        type("Any", (), {"of": lambda _: type("Any", (), {"reference": 0})}),
    )
    every = torch.ones(80, dtype=torch.bool)
    found = aurocs(vae, ImageSet(images, None, "mine", "test"), every, seed=0, samples=1)
    assert [*found] == ["bound", "squared_error"]
    assert found["squared_error"] == 0.5
    assert found["bound"] > 0.7
