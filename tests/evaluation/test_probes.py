import warnings

import numpy as np
import pytest
import torch

from convvae.evaluation import probes
from convvae.evaluation.estimates import Undefined
from convvae.evaluation.probes import probe


@pytest.fixture
def latents():
    """Three clouds in two latents; and a test point or more in each."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    labels = torch.arange(3).repeat(20)
    z = centers[labels] + 0.3 * torch.randn(60, 2, generator=generator)
    return z[:45], labels[:45], z[45:], labels[45:]


def test_clouds_apart_are_told_apart(latents):
    found = probe(*latents)
    assert found.linear == (1.0, 0.0)
    assert found.neighbours == (1.0, 0.0)
    assert (found.train_images, found.test_images, found.classes) == (45, 15, 3)
    assert found.converged


def test_labels_without_a_relation_are_told_by_chance(latents):
    generator = torch.Generator().manual_seed(1)
    train, test = torch.randn(2, 900, 2, generator=generator)
    labels, others = torch.randint(3, (2, 900), generator=generator)
    found = probe(train, labels, test, others)
    for accuracy in (found.linear, found.neighbours):
        assert accuracy.mean == pytest.approx(1 / 3, abs=0.06)
        spread = (accuracy.mean * (1 - accuracy.mean) / 899) ** 0.5
        assert accuracy.standard_error == pytest.approx(spread, rel=1e-6)


def test_the_five_nearest_vote():
    train = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [10.0]])
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    # The nearest alone would say 0; of the five nearest, three say 1.
    found = probe(train, labels, torch.tensor([[0.0]]), torch.tensor([1]))
    assert found.neighbours == (1.0, None)


def test_the_neighbours_are_those_of_all_distances():
    random = np.random.default_rng(4)
    train, test = random.normal(size=(80, 3)), random.normal(size=(30, 3))
    labels, truth = random.integers(0, 2, 80), random.integers(0, 2, 30)
    squared = ((test[:, None] - train) ** 2).sum(-1)
    votes = labels[np.argsort(squared, 1)[:, :5]].mean(1) > 0.5
    found = probe(*(torch.from_numpy(part) for part in (train, labels, test, truth)))
    assert found.neighbours.mean == (votes == truth).mean()


def test_of_images_at_the_same_distance_the_first_ones_vote():
    """Twenty latents, 0.1 to either side along each: all at one distance from the middle."""
    sides = torch.cat([torch.eye(20), -torch.eye(20)])
    for middle in (0.0, 0.3, 77.7):
        test = torch.full((1, 20), middle, dtype=torch.double)
        train = 0.1 * sides.double() + middle
        for first in (0, 1):
            labels = torch.full((40,), 1 - first)
            labels[[2, 4]] = labels[0] = first  # three of the first five
            found = probe(train, labels, test, torch.tensor([first]))
            assert found.neighbours.mean == 1.0, (middle, first)


def test_a_tie_of_votes_goes_to_the_smaller_label():
    train = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [90.0]])
    for labels in ([7, 7, 3, 3, 5, 5], [5, 3, 3, 7, 7, 5]):
        found = probe(train, torch.tensor(labels), torch.tensor([[0.0]]), torch.tensor([3]))
        assert found.neighbours.mean == 1.0


def test_a_label_that_training_lacks_counts_as_wrong(latents):
    train, labels, test, _ = latents
    found = probe(train, labels, test, torch.full((len(test),), 7))
    assert found.linear.mean == found.neighbours.mean == 0


def test_what_has_no_meaning_is_not_defined(latents):
    train, labels, test, others = latents
    for arguments, reason in (
        ((train, None, test, others), "no labels"),
        ((train, labels, test, None), "no labels"),
        ((train[:4], labels[:4], test, others), "at least 5 training images, found 4"),
        ((train, torch.ones_like(labels), test, others), "the same label"),
        ((train, labels, test * torch.nan, others), "not a number"),
    ):
        found = probe(*arguments)
        assert isinstance(found, Undefined)
        assert reason in found.not_defined


def test_a_regression_that_stops_early_says_so(latents, monkeypatch):
    monkeypatch.setattr(probes, "MAX_STEPS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not probe(*latents).converged
