"""Directions between groups of codes, and images moved along them."""

import numpy as np
import pytest
import torch

from convvae.config import Condition, ModelConfig
from convvae.data import ImageSet
from convvae.errors import ConfigError, UsageError
from convvae.evaluation.directions import check_unconditional, direction, edit, groups, some_of
from convvae.evaluation.encode import decode, posterior_means
from convvae.evaluation.groups import reconstruct_from_top
from convvae.evaluation.reconstruction import reconstruct
from convvae.model.vae import VAE


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


def labelled(labels, classes=None):
    images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    return ImageSet(images, torch.tensor(labels), "mine", "train", classes=classes)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VAE(ModelConfig(image_size=(12, 10), channels=1, latent_dims=3, max_filters=8)).eval()


@pytest.fixture
def pixels():
    return torch.randint(256, (5, 1, 12, 10), dtype=torch.uint8)


def test_strength_1_leads_from_mean_to_mean():
    away, to = noise(400, 3), noise(100, 3) + torch.tensor([3.0, 0.0, -1.0])
    found = direction(to, away)
    assert torch.allclose(away.mean(0) + found.step, to.mean(0), atol=1e-6)
    assert (found.inside, found.outside) == (100, 400)
    # A plane midway between Gaussians a distance d apart has Phi(d / 2) on each side.
    expected = float(torch.special.ndtr(torch.tensor(10.0).sqrt() / 2))
    assert found.parted == pytest.approx(expected, abs=0.03)


def test_the_normal_of_a_logistic_regression_leaves_out_what_only_goes_along():
    # Where the groups differ in latent 0 and share a wide spread along (1, 1), the plane that parts
    # them best has the normal S^-1 (m_1 - m_0), which is not the difference of the means.
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    spread = noise(20_000, 2) @ torch.linalg.cholesky(covariance).T
    step = torch.tensor([1.0, 0.0]).double()
    to, away = spread[:10_000] + step, spread[10_000:]
    best = torch.linalg.solve(covariance, step)
    normal = best / best.norm()
    found = direction(to, away, "logistic").step.double()
    assert torch.nn.functional.cosine_similarity(found, normal, dim=0) > 0.999
    # As far along the normal as the means lie apart in it.
    assert float(found.norm()) == pytest.approx(float(normal @ step), rel=0.05)
    assert direction(to, away, "logistic").parted > direction(to, away).parted + 0.1


def test_groups_of_very_different_sizes_weigh_the_same():
    to, away = noise(3000, 2) + torch.tensor([2.0, 0.0]), noise(3000, 2)
    few = direction(to[:100], away, "logistic").step
    assert torch.nn.functional.cosine_similarity(few, torch.tensor([1.0, 0.0]), dim=0) > 0.95


def test_the_scale_of_the_codes_changes_nothing_but_the_step():
    to, away = noise(500, 3) + torch.tensor([1.0, 0.5, 0.0]), noise(500, 3)
    for method in ("means", "logistic"):
        small = direction(1e-6 * to, 1e-6 * away, method)
        usual = direction(to, away, method)
        assert torch.allclose(1e6 * small.step, usual.step, rtol=1e-3, atol=1e-3)
        assert small.parted == usual.parted


def test_which_images_are_of_a_label():
    images = labelled([2, 0, 1, 0], classes=("cat", "dog", "cow"))
    inside, outside = groups(images, "cat")
    assert inside.tolist() == [False, True, False, True]
    assert outside.tolist() == [True, False, True, False]
    _, outside = groups(images, "cat", "dog")
    assert outside.tolist() == [False, False, True, False]
    # What has no label is held against nothing.
    some = labelled([0, 1, 2], classes=("cat", "dog", "unlabelled"))
    assert groups(some, "cat")[1].tolist() == [False, True, False]
    assert groups(labelled([7, 3]), "3")[0].tolist() == [False, True]


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (labelled([0, 1], ("cat", "dog")), ("cats",), r"label 'cats' \(did you mean cat\?\); they"),
        (labelled([0, 1]), ("0", "7"), "none of the images of mine has the label '7'; they have 0"),
        (labelled([4, 4]), ("4",), "'4' needs images of another label to come from"),
        (labelled([4, 5]), ("4", "4"), "'4' needs images of another label to come from"),
        (
            ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), None, "plain", "train"),
            ("a",),
            "images of plain have no labels .* or name other ones with `labels_from`",
        ),
    ],
)
def test_labels_that_give_no_direction(images, labels, says):
    with pytest.raises(ConfigError, match=says):
        groups(images, *labels)


def test_codes_that_give_no_direction():
    same = torch.ones(4, 2)
    for method in ("means", "logistic"):
        with pytest.raises(ConfigError, match="lie in one place: the model tells nothing"):
            direction(same, same, method)
    with pytest.raises(ConfigError, match="infinite or not a number"):
        direction(torch.full((2, 2), torch.nan), same)


def test_some_are_drawn_of_those_that_are_chosen():
    chosen = torch.arange(100) % 3 == 0
    places = some_of(chosen, 10, seed=1)
    assert len(set(places.tolist())) == 10
    assert bool(chosen[places].all())
    assert sorted(some_of(chosen, 99, seed=1).tolist()) == chosen.nonzero()[:, 0].tolist()
    assert not torch.equal(places, some_of(chosen, 10, seed=2))


def test_an_image_is_decoded_at_its_code_and_a_step_from_it(model, pixels):
    step = torch.tensor([0.5, -1.0, 0.0])
    found = edit(model, pixels, step, [0.0, 2.0])
    assert found.images.shape == (2, 5, 1, 12, 10)
    assert torch.allclose(found.images[0], reconstruct(model, pixels), atol=1e-6)
    z = posterior_means(model, pixels)[0]
    assert torch.equal(found.z, z)
    assert torch.allclose(found.images[1], decode(model, z + 2 * step), atol=1e-6)


def test_a_ladder_is_moved_in_its_outline():
    torch.manual_seed(0)
    config = ModelConfig(
        network="ladder", image_size=(16, 16), channels=1, groups=(1, 2, 1), group_channels=8,
        max_filters=16,
    )  # fmt: skip
    vae = VAE(config).eval()
    images = torch.randint(256, (3, 1, 16, 16), dtype=torch.uint8)
    found = edit(vae, images, torch.ones(config.outline), [0.0, 1.0])
    held = sum(group.start + group.size <= config.outline for group in config.plan)
    assert held < len(config.plan)
    assert torch.allclose(found.images[0], reconstruct_from_top(vae, images, held), atol=1e-5)
    assert not torch.allclose(found.images[0], found.images[1])


def test_a_model_that_is_told_labels_is_refused():
    condition = Condition(labels=("a", "b"), counts=(1, 1))
    config = ModelConfig(
        image_size=(8, 8), channels=1, latent_dims=2, max_filters=4, condition=condition
    )
    with pytest.raises(UsageError, match="use `convvae generate` with `label`, or the choice"):
        check_unconditional(VAE(config))
