import hashlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import load

from convvae import data
from convvae.errors import ChecksumError, MissingExtraError, UsageError
from convvae.evaluation import distances
from convvae.evaluation.encode import generate
from convvae.evaluation.estimates import Undefined
from convvae.evaluation.sample_quality import (
    compare,
    feature_space,
    features,
    measures,
    sample_quality,
)
from convvae.evaluation.sample_quality.classifier import DigitClassifier
from convvae.evaluation.sample_quality.features import (
    FeatureSpace,
    InceptionFeatures,
    MnistFeatures,
)
from convvae.evaluation.sample_quality.measures import (
    frechet_distance,
    kernel_distance,
    neighbourhoods,
    unbiased_mmd,
)
from convvae.images.sheets import to_uint8
from convvae.model.vae import VAE

CPU = torch.device("cpu")


def draws(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.double)


def exactly(mean, root, count=50, seed=0):
    """Points whose mean and covariance (root root^T) are exactly those."""
    u = draws(count, len(mean), seed=seed)
    u -= u.mean(0)
    u = torch.linalg.solve_triangular(torch.linalg.cholesky(u.T.cov()), u.T, upper=False).T
    return torch.tensor(mean, dtype=torch.double) + u @ root.T


# --- The Frechet distance ------------------------------------------------------------------------


def test_frechet_distance_of_axis_aligned_gaussians():
    a = exactly([0.0, 0.0, 0.0], torch.diag(torch.tensor([1.0, 2.0, 3.0]).double()))
    b = exactly([1.0, -2.0, 0.0], torch.diag(torch.tensor([4.0, 2.0, 0.5]).double()), 70, seed=1)
    expected = 1 + 4 + (1 - 4) ** 2 + 0 + (3 - 0.5) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_is_the_formula_with_the_root_of_a_product():
    root_a, root_b = draws(4, 4, seed=2), draws(4, 4, seed=3)
    a, b = exactly([0.0] * 4, root_a), exactly([0.5] * 4, root_b, seed=5)
    cov_a, cov_b = (root_a @ root_a.T).numpy(), (root_b @ root_b.T).numpy()
    overlap = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = 4 * 0.25 + np.trace(cov_a + cov_b - 2 * overlap)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_equal_and_of_flat_sets():
    a = draws(30, 5)
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-12)
    flat = torch.ones(30, 5)  # constant images: no spread at all
    assert frechet_distance(flat, flat + 2) == pytest.approx(5 * 4)


def test_frechet_distance_needs_more_images_than_features():
    assert isinstance(frechet_distance(draws(6, 5), draws(7, 5)), float)
    for sizes in ((5, 7), (7, 5), (1, 1)):
        found = frechet_distance(*(draws(size, 5) for size in sizes))
        assert found == Undefined("needs at least 6 images of each set")


# --- The kernel distance -------------------------------------------------------------------------


def test_kernel_distance_of_a_block_is_the_sum_over_pairs():
    x, y = draws(4, 3).numpy(), draws(5, 3, seed=1).numpy()

    def k(p, q):
        return (float(p @ q) / 3 + 1) ** 3

    within_x = [k(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if i != j]
    within_y = [k(p, q) for i, p in enumerate(y) for j, q in enumerate(y) if i != j]
    across = [k(p, q) for p in x for q in y]
    expected = np.mean(within_x) + np.mean(within_y) - 2 * np.mean(across)
    found = unbiased_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_of_points():
    a, b = torch.ones(40, 2), torch.zeros(40, 2)
    found = kernel_distance(a, b, torch.Generator().manual_seed(0))
    assert found.mean == pytest.approx(2**3 + 1 - 2)  # k(1,1) + k(0,0) - 2 k(1,0)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_unbiased_and_its_error_is_that_of_repetition():
    found = [
        kernel_distance(draws(60, 3, seed=seed), draws(40, 3, seed=1000 + seed), torch.Generator())
        for seed in range(200)
    ]
    means = torch.tensor([estimate.mean for estimate in found])
    errors = torch.tensor([estimate.standard_error for estimate in found])
    assert abs(means.mean()) < 4 * means.std() / 200**0.5
    assert (means < 0).any()
    assert errors.square().mean().sqrt() == pytest.approx(means.std().item(), rel=0.25)


def test_kernel_distance_uses_large_sets_in_blocks_of_at_most_a_thousand(monkeypatch):
    sizes = []
    block = measures.unbiased_mmd
    monkeypatch.setattr(
        measures, "unbiased_mmd", lambda x, y: sizes.append((len(x), len(y))) or block(x, y)
    )
    kernel_distance(draws(11_500, 2), draws(300, 2), torch.Generator())
    assert sizes == [(958, 25)] * 12


def test_kernel_distance_needs_two_images_a_block():
    generator = torch.Generator()
    assert not isinstance(kernel_distance(draws(20, 2), draws(20, 2), generator), Undefined)
    assert kernel_distance(draws(19, 2), draws(90, 2), generator) == Undefined(
        "needs at least 20 images of each set"
    )


# --- Neighbourhoods ------------------------------------------------------------------------------


def points(*values):
    return torch.tensor(values).unsqueeze(1)


def test_neighbourhoods_by_hand():
    real = points(0.0, 1.0, 2.0, 3.0, 4.0, 5.0)  # 3rd neighbours: 3 2 2 2 2 3; 5th: 5 4 3 3 4 5
    found = neighbourhoods(real, points(-3.0, 2.5, 7.5, 20.0, 20.0, 20.0, 20.0))
    # -3 is on the edge of the ball of 0, 2.5 is inside, 7.5 in that of 5; the others are far away.
    assert found.precision == 3 / 7
    # Of the 5-balls, -3 lies in those of 0 and 1, 2.5 in all six, 7.5 in those of 4 and 5.
    assert found.density == pytest.approx((2 + 6 + 2) / (5 * 7))
    assert found.coverage == 1
    # The balls of the four equal samples are points; the others reach far: -3 to 20.
    assert found.recall == 1


def test_recall_and_coverage_by_hand():
    real = points(0.0, 1.0, 2.0, 3.0, 4.0, 50.0, 60.0)  # 5th neighbours: 50 49 48 47 46 49 59
    found = neighbourhoods(real, points(0.0, 0.0, 0.0, 0.0))
    assert found.recall == 1 / 7  # four equal samples: balls of radius 0
    assert found.precision == 1
    assert found.coverage == 5 / 7  # 0 is 50 from 50, and 60 from 60
    assert found.density == pytest.approx(5 * 4 / (5 * 4))


def brute_force(real, generated):
    def radius(points, k):
        squared = ((points[:, None] - points) ** 2).sum(-1)
        return np.sort(squared, 1)[:, k]

    squared = ((real[:, None] - generated) ** 2).sum(-1)
    three, five = radius(real, 3)[:, None], radius(real, 5)[:, None]
    return (
        (squared <= three).any(0).mean(),
        (squared <= radius(generated, 3)).any(1).mean(),
        (squared <= five).sum() / (5 * len(generated)),
        (squared <= five).any(1).mean(),
    )


@pytest.mark.parametrize("pairs", [1, 100, 10_000_000])
def test_neighbourhoods_are_those_of_all_pairs_whatever_the_block(pairs, monkeypatch):
    monkeypatch.setattr(distances, "PAIRS_AT_ONCE", pairs)
    real, generated = draws(40, 3), 0.7 * draws(30, 3, seed=1) + 0.8
    found = neighbourhoods(real, generated)
    assert found == pytest.approx(brute_force(real.numpy(), generated.numpy()))
    assert len(set(found)) == 4
    assert all(0 < value < 1 for value in found)


@pytest.mark.parametrize("offset", [0.0, 0.3, 77.7])
def test_points_on_the_edge_of_a_ball_are_in_it(offset):
    """Points on a lattice, all whose distances are equal to others: counted in whole numbers."""
    random = np.random.default_rng(3)
    real, generated = random.integers(0, 4, (40, 5)), random.integers(0, 4, (35, 5))
    expected = brute_force(real, generated)
    found = neighbourhoods(*(torch.from_numpy(0.1 * part + offset) for part in (real, generated)))
    assert found == pytest.approx(expected, rel=1e-12)


def test_equal_sets_and_sets_far_apart():
    real = draws(50, 4) + 1000  # far from the origin: rounding must not count
    precision, recall, density, coverage = neighbourhoods(real, real.clone())
    assert (precision, recall, coverage) == (1, 1, 1)
    assert density == pytest.approx(6 / 5)  # every ball holds its own point and five others
    assert neighbourhoods(real, real + 100) == (0, 0, 0, 0)


def test_constant_images_are_all_alike():
    same = torch.full((8, 4), 0.3)
    assert neighbourhoods(same, same) == pytest.approx((1, 1, 8 / 5, 1))
    assert neighbourhoods(same, same + 0.1) == (0, 0, 0, 0)


def test_a_set_no_larger_than_k_has_no_balls():
    few = neighbourhoods(draws(4, 2), draws(3, 2))
    assert isinstance(few.precision, float)
    assert few.recall == Undefined("needs at least 4 generated images")
    for value in (few.density, few.coverage):
        assert value == Undefined("needs at least 6 real images")
    one = neighbourhoods(draws(1, 2), draws(1, 2))
    assert all(isinstance(value, Undefined) for value in one)


# --- Feature spaces ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist_space():
    return feature_space("mnist", 1, CPU)


def test_the_shipped_classifier_is_the_one_that_was_measured(mnist_dir):
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "classifier.json"
    recorded = json.loads(results.read_text())
    assert MnistFeatures.sha256 == recorded["sha256"]
    path = Path(features.__file__).parent / f"{MnistFeatures.name}.safetensors"
    assert path.stat().st_size < 1_000_000
    assert recorded["test_accuracy"] >= 0.99
    model = DigitClassifier().eval()
    model.load_state_dict(load(path.read_bytes()))
    test = data.load("mnist", "test", data_dir=mnist_dir, limit=1000)
    with torch.inference_mode():
        told = model(test.images / 255).argmax(1)
    assert (told == test.labels).double().mean() >= 0.99


def test_mnist_features_of_an_image_do_not_depend_on_its_company_or_size(mnist_space):
    images = data.load("digits", "test", limit=8).images
    large = data.resize(images, (28, 28))
    together = mnist_space(large)
    assert together.shape == (8, mnist_space.features)
    assert together.dtype == torch.double
    torch.testing.assert_close(mnist_space(large[3:4])[0], together[3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mnist_space(images), together)


def test_other_weights_under_the_same_name_are_refused(monkeypatch):
    monkeypatch.setattr(MnistFeatures, "sha256", "0" * 64)
    with pytest.raises(ChecksumError, match="convvae-mnist-features-v1"):
        feature_space("mnist", 1, CPU)


def test_a_space_refuses_images_that_it_was_not_made_for():
    with pytest.raises(UsageError, match="3 channels; use `features='inception'`"):
        feature_space("mnist", 3, CPU)
    with pytest.raises(UsageError, match="2 channels"):
        feature_space("inception", 2, CPU)


class StandIn(torch.nn.Module):
    """Takes torch-fidelity's place: the mean colour, 2,048 times."""

    def __init__(self, name, features_list, feature_extractor_weights_path):
        super().__init__()
        assert (name, features_list) == ("inception-v3-compat", ["2048"])
        assert Path(feature_extractor_weights_path).read_bytes() == b"weights"

    def forward(self, x):
        assert x.dtype == torch.uint8
        assert x.shape[1] == 3
        return (x.float().mean((1, 2, 3)).unsqueeze(1).expand(-1, 2048),)


@pytest.fixture
def fidelity(monkeypatch, tmp_path):
    """torch-fidelity in name, its weights in the cache."""
    package = types.ModuleType("torch_fidelity")
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = StandIn
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path))
    monkeypatch.setattr(InceptionFeatures, "sha256", hashlib.sha256(b"weights").hexdigest())
    weights = tmp_path / "inception" / InceptionFeatures.url.rpartition("/")[2]
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    return weights


def test_inception_gets_three_channels_of_bytes(fidelity):
    images = torch.randint(0, 256, (5, 1, 9, 9), dtype=torch.uint8)
    found = feature_space("inception", 1, CPU)(images)
    assert found.shape == (5, 2048)
    torch.testing.assert_close(found[:, 0].float(), images.float().mean((1, 2, 3)))
    assert feature_space("inception", 3, CPU)(images.expand(-1, 3, -1, -1)).equal(found)


def test_inception_with_other_weights_is_refused_before_they_are_read(fidelity):
    fidelity.write_bytes(b"something else")
    with pytest.raises(ChecksumError, match="delete it"):
        feature_space("inception", 3, CPU)


def test_inception_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'convvae\[fidelity\]'"):
        feature_space("inception", 3, CPU)


# --- A model's samples ---------------------------------------------------------------------------


class Corners(FeatureSpace):
    """Two pixels as features: few enough for small sets."""

    name, features, what = "corners-v1", 2, "two pixels"

    def __call__(self, images):
        return images[:, 0, [0, -1], [0, -1]].double()


@pytest.fixture
def real():
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (30, 1, 12, 10), dtype=torch.uint8, generator=generator)


def test_samples_are_those_of_the_generator_and_are_compared_as_any_set(tiny_model, real):
    vae, space, seen = VAE(tiny_model), Corners(), []
    found = sample_quality(vae, real, real[:25], space, count=40, seed=3, progress=seen.append)
    assert sum(seen) == 30 + 25 + 40
    drawn = space(to_uint8(generate(vae, 40, seed=3)))
    assert found.samples == compare(space(real), drawn, seed=3)
    assert found.training_images == compare(space(real), space(real[:25]), seed=3)
    assert (found.samples.images, found.training_images.images, found.real_images) == (40, 25, 30)
    assert found.feature_space == "corners-v1"


def test_samples_that_are_no_numbers_have_no_quality(tiny_model, real):
    vae = VAE(tiny_model)
    with torch.no_grad():
        vae.decoder.output_bias.fill_(torch.nan)
    found = sample_quality(vae, real, real, Corners(), count=5, seed=0)
    assert found.samples == Undefined("the model's samples are infinite or not a number")
    assert found.training_images.frechet_distance == pytest.approx(0, abs=1e-9)
