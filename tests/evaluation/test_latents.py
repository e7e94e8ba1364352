import math
import sys

import pytest
import torch

from convvae.config import ModelConfig
from convvae.errors import ConfigError, MissingExtraError
from convvae.evaluation import latents
from convvae.evaluation.encode import decode
from convvae.evaluation.latents import (
    COVERAGE,
    Codes,
    axis,
    class_means,
    interpolation,
    manifold,
    project,
    ranges,
    traversal,
)
from convvae.evaluation.reconstruction import reconstruct
from convvae.model.vae import VAE


@pytest.fixture
def vae(tiny_model):
    return VAE(tiny_model).eval()


@pytest.fixture
def images():
    return torch.randint(256, (7, 1, 12, 10), dtype=torch.uint8)


def test_codes_are_the_posterior_means_and_a_draw_around_each(vae, images):
    codes = latents.codes(vae, images)
    with torch.inference_mode():
        q = vae.encode(images / 255)
    assert torch.allclose(codes.mean, q.mean, atol=1e-6)
    assert not torch.allclose(codes.drawn, codes.mean, atol=1e-3)
    assert torch.equal(codes.drawn, latents.codes(vae, images).drawn)
    assert not torch.equal(codes.drawn, latents.codes(vae, images, seed=1).drawn)


def test_decoding_the_means_is_the_reconstruction(vae, images):
    means = latents.codes(vae, images).mean
    assert torch.allclose(decode(vae, means), reconstruct(vae, images), atol=1e-6)
    assert decode(vae, means[:6].view(2, 3, 3)).shape == (2, 3, 1, 12, 10)


def test_the_order_is_by_kl_and_by_the_variance_of_the_mean_where_there_is_none():
    mean = torch.tensor([[0.0, 5.0, 1.0], [0.0, -5.0, 2.0]])
    kl = torch.tensor([0.5, 0.1, 3.0])
    assert Codes(mean, mean, kl).order.tolist() == [2, 0, 1]
    assert Codes(mean, mean, None).order.tolist() == [1, 2, 0]
    assert Codes(mean[:1], mean[:1], None).order.tolist() == [0, 1, 2]


def test_ranges_hold_the_aggregate_posterior(vae):
    drawn = torch.stack([torch.linspace(-1, 1, 10_001), torch.linspace(0, 10, 10_001)], 1)
    low, high = ranges(vae, Codes(drawn, drawn, None))
    assert torch.allclose(high - low, COVERAGE * torch.tensor([2.0, 10.0]), atol=1e-2)
    assert torch.allclose(high + low, torch.tensor([0.0, 10.0]), atol=1e-2)


def test_ranges_of_few_images_are_those_of_the_prior(vae, images):
    low, high = ranges(vae, latents.codes(vae, images))
    expected = float(torch.special.ndtri(torch.tensor((1 + COVERAGE) / 2)))
    assert torch.allclose(high, torch.full((3,), expected), atol=0.15)
    assert torch.allclose(low, torch.full((3,), -expected), atol=0.15)


def test_a_traversal_moves_one_latent_between_its_bounds():
    base, bounds = torch.tensor([0.5, 0.25, 0.0]), torch.tensor([[-1.0, -2, -3], [1, 2, 3]])
    z = traversal(base, torch.tensor([2, 0]), bounds, 5)
    assert z[0, :, 2].tolist() == [-3, -1.5, 0, 1.5, 3]
    assert z[1, :, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert (z[0, :, :2] == base[:2]).all()
    assert (z[1, :, 1:] == base[1:]).all()


def test_a_straight_interpolation_has_even_steps():
    z = interpolation(torch.tensor([0.0, 2.0]), torch.tensor([4.0, 0.0]), 5)
    assert z.tolist() == [[0, 2], [1, 1.5], [2, 1], [3, 0.5], [4, 0]]


def test_a_spherical_interpolation_keeps_the_length_and_turns_evenly():
    a, b = torch.tensor([3.0, 0, 0]), torch.tensor([0.0, 0, 3])
    z = interpolation(a, b, 4, "spherical")
    assert torch.allclose(z.norm(dim=1), torch.full((4,), 3.0))
    angles = torch.atan2(z[:, 2], z[:, 0])
    assert torch.allclose(angles, torch.linspace(0, math.pi / 2, 4), atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0, 2.0], [2.0, 4.0]), ([1.0, 1.0], [-1.0, -1.0]), ([0.0, 0.0], [1.0, 3.0]), ([2.0], [5])],
)
def test_where_no_angle_is_defined_the_way_is_straight(a, b):
    a, b = torch.tensor(a), torch.tensor(b).float()
    assert torch.equal(interpolation(a, b, 5, "spherical"), interpolation(a, b, 5))


def test_the_axis_by_quantiles_holds_equal_shares_of_the_prior():
    assert axis(5).tolist() == [-3, -1.5, 0, 1.5, 3]
    shares = torch.special.ndtr(axis(4, "quantiles"))
    assert torch.allclose(shares, torch.tensor([0.125, 0.375, 0.625, 0.875]))
    assert axis(1).tolist() == [0]
    assert axis(1, "quantiles").tolist() == [0]


def test_the_manifold_rises_to_the_right_and_upwards():
    z = manifold(torch.tensor([9.0, 8.0, 7.0]), (2, 0), 3)
    assert z.shape == (3, 3, 3)
    assert z[0, 0].tolist() == [3, 8, -3]
    assert z[2, 2].tolist() == [-3, 8, 3]
    assert manifold(torch.zeros(1), (0,), 5).shape == (1, 5, 1)


def test_pca_finds_the_directions_of_most_variance():
    t = torch.linspace(-1, 1, 50)
    mean = torch.stack([0 * t, 3 * t + 1, 0.2 * t**2 - 2], 1)
    points = project(mean, "pca")
    assert torch.allclose(points[:, 0], 3 * t, atol=1e-4)
    assert torch.allclose(points[:, 1], 0.2 * (t**2 - (t**2).mean()), atol=1e-4)


@pytest.mark.parametrize(("count", "dims"), [(1, 1), (1, 4), (5, 1), (2, 256)])
def test_pca_of_few_images_and_few_latents(count, dims):
    points = project(torch.randn(count, dims), "pca")
    assert points.shape == (count, 2)
    assert points.isfinite().all()


def test_one_and_two_latents_are_taken_as_they_are():
    mean = torch.randn(5, 2)
    assert torch.equal(project(mean, "latents"), mean)
    assert torch.equal(project(mean[:, :1], "latents")[:, 0], mean[:, 0])
    with pytest.raises(ConfigError, match="3 latents"):
        project(torch.randn(5, 3), "latents")


@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_neighbours_stay_neighbours(method):
    centres = torch.eye(4).repeat_interleave(10, 0) * 50
    points = project(centres + torch.randn(40, 4), method)
    assert points.shape == (40, 2)
    distance = torch.cdist(points, points)
    distance.fill_diagonal_(math.inf)
    assert (distance.argmin(1) // 10 == torch.arange(40) // 10).all()


@pytest.mark.parametrize("method", ["tsne", "umap"])
@pytest.mark.parametrize("shape", [(4, 3), (9, 1)])
def test_what_neighbour_embeddings_cannot_take_is_said(method, shape):
    with pytest.raises(ConfigError, match="project with pca"):
        project(torch.randn(shape), method)


def test_umap_leaves_the_threads_of_pytorch_alone():
    threads = torch.get_num_threads()
    project(torch.randn(30, 3), "umap")
    assert torch.get_num_threads() == threads


def test_umap_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"convvae\[umap\]"):
        project(torch.randn(9, 3), "umap")


def test_class_means():
    mean = torch.tensor([[1.0], [3.0], [10.0]])
    classes, z = class_means(Codes(mean, mean, None), torch.tensor([7, 7, 2]))
    assert classes.tolist() == [2, 7]
    assert z.tolist() == [[10], [2]]


@pytest.mark.parametrize("channels", [1, 3])
def test_any_model_has_codes(channels):
    config = ModelConfig(
        image_size=(8, 16), channels=channels, latent_dims=4, max_filters=8, posterior="full"
    )
    images = torch.randint(256, (1, channels, 8, 16), dtype=torch.uint8)
    codes = latents.codes(VAE(config).eval(), images)
    assert codes.kl is None
    assert codes.mean.shape == codes.drawn.shape == (1, 4)
