import math

import pytest
import torch

from convvae.anomalies.calibration import Calibration, detection, judge, p_values, threshold
from convvae.anomalies.scores import NEIGHBOUR_RANK, SCORES, Measured, latent_distance, measure
from convvae.data import ImageSet
from convvae.errors import ModelFileError
from convvae.evaluation.bounds import importance_bounds
from convvae.evaluation.encode import Encodings, encode
from convvae.model.vae import VAE


@pytest.fixture
def vae(tiny_model):
    return VAE(tiny_model)


@pytest.fixture
def source():
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (9, 1, 12, 10), dtype=torch.uint8, generator=generator)
    return ImageSet(images, None, "mine", "test")


def none(count):
    return torch.zeros(count, dtype=torch.bool)


def measured(values, dims=2):
    """Images whose every number is the given one; the latents lie on a line."""
    values = torch.tensor(values, dtype=torch.float64)
    mu = values.float().unsqueeze(1).repeat(1, dims)
    encodings = Encodings(mu, mu, -values, values, values)
    equal = torch.zeros(len(values), 2, dtype=torch.double)
    return Measured(encodings, -values, equal, values, values, values)


def test_what_is_measured_is_what_an_evaluation_says(vae, source):
    found = measure(vae, source, seed=2, samples=4)
    encodings = encode(vae, source.images, seed=2)
    assert all(torch.equal(*pair) for pair in zip(found.encodings, encodings, strict=True))
    weighted = importance_bounds(vae, source.images, samples=4, seed=2)
    assert torch.equal(found.importance_bound, weighted)


def test_a_damaged_model_is_said(vae, source):
    with torch.no_grad():
        next(vae.decoder.parameters()).fill_(math.nan)
    with pytest.raises(ModelFileError, match="not a finite number"):
        measure(vae, source, seed=0, samples=1)


def test_a_p_value_counts_the_normal_images_that_score_as_high():
    normal = torch.tensor([3.0, 1.0, 2.0, 2.0])
    score = torch.tensor([0.0, 2.0, 2.5, 9.0])
    expected = torch.tensor([5 / 5, 4 / 5, 2 / 5, 1 / 5], dtype=torch.float64)
    torch.testing.assert_close(p_values(score, normal, none(4)), expected)


def test_a_normal_image_is_held_against_the_others():
    normal = torch.tensor([3.0, 1.0, 2.0, 2.0])
    for place in range(4):
        others = torch.cat([normal[:place], normal[place + 1 :]])
        alone = p_values(normal[place : place + 1], others, none(1))
        together = p_values(normal, normal, ~none(4))[place : place + 1]
        torch.testing.assert_close(alone, together)


def test_false_alarms_are_as_rare_as_was_asked_for():
    """The mean over many calibrations of 49 images, not one of them: rate 0.1 exactly."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, 50, generator=generator, dtype=torch.float64)
    rates = [bool(p_values(row[:1], row[1:], none(1)) <= 0.1) for row in draws]
    assert sum(rates) / len(rates) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.29, 0.5])
def test_above_the_threshold_is_flagged_and_nothing_else(rate):
    normal = torch.arange(99.0).double()
    limit = threshold(normal, rate)
    score = torch.arange(-1, 101, 0.5).double()
    assert torch.equal(score > limit, p_values(score, normal, none(len(score))) <= rate)


def test_too_few_normal_images_give_no_threshold():
    assert threshold(torch.arange(19.0), 0.05) is not None
    assert threshold(torch.arange(18.0), 0.05) is None
    assert not (p_values(torch.tensor([99.0]), torch.arange(18.0), none(1)) <= 0.05).any()


def test_the_latent_distance_leaves_an_image_itself_out():
    normal = torch.tensor([[0.0], [1], [2], [3], [4], [5], [100]])
    far = latent_distance(torch.tensor([[0.0], [200.0]]), normal, none(2))
    assert far.tolist() == [4.0, 198.0]
    own = latent_distance(normal, normal, ~none(7))
    assert own.tolist() == [5, 4, 3, 3, 4, 5, 99]


def test_the_latent_distance_of_equal_images_is_nothing():
    generator = torch.Generator().manual_seed(2)
    same = torch.randn(20, 7, generator=generator).repeat(6, 1)
    assert latent_distance(same, same, ~none(120)).tolist() == [0.0] * 120


def test_detection_is_that_of_the_ranks():
    score = torch.tensor([4.0, 3, 2, 1])
    abnormal = torch.tensor([True, False, True, False])
    found = detection(score, score > 3.5, abnormal)
    assert found.auroc == 0.75
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert (found.detected, found.false_alarms) == (0.5, 0.0)
    assert detection(score, score > 3.5, none(4)) is None
    assert detection(score, score > 3.5, ~none(4)) is None


def test_every_score_is_high_where_an_image_is_abnormal():
    normal, found = measured([float(n) for n in range(30)]), measured([5.0, 1000.0])
    abnormal = torch.tensor([False, True])
    judgements = judge(found, Calibration.of(normal), abnormal, 0.05, 2)
    assert judgements.keys() == SCORES.keys()
    for name, judgement in judgements.items():
        assert judgement.flagged.tolist() == [False, True], name
        assert judgement.detection.auroc == 1.0
        assert judgement.p[1] == pytest.approx(1 / 31)


def test_images_calibrate_each_other_without_those_that_are_abnormal():
    found = measured([*range(40), 500.0, 600.0])
    abnormal = torch.tensor([False] * 40 + [True] * 2)
    judgement = judge(found, ~abnormal, abnormal, 0.05, 42)["bound"]
    assert judgement.p[-1] == judgement.p[-2] == pytest.approx(1 / 41)
    assert judgement.p[39] == pytest.approx(1 / 40)
    assert int(judgement.flagged[:40].sum()) == 2
    unlabelled = judge(found, ~none(42), None, 0.05, 42)["bound"]
    assert unlabelled.p[-1] == pytest.approx(1 / 42)
    assert unlabelled.detection is None


def test_images_that_only_calibrate_are_not_judged():
    found = measured([float(n) for n in range(50)])
    member = torch.arange(50) >= 30
    whole = judge(found, member, None, 0.05, 50)
    for name, judgement in judge(found, member, None, 0.05, 10).items():
        assert len(judgement.score) == len(judgement.p) == len(judgement.flagged) == 10
        assert torch.equal(judgement.p, whole[name].p[:10])
        assert judgement.threshold == whole[name].threshold


def test_chosen_images_are_the_same_in_black_and_white_as_in_company(vae, source, monkeypatch):
    monkeypatch.setattr("convvae.evaluation.encode.BATCH", 4)
    chosen = torch.tensor([False] * 4 + [True, False, True, False, True])
    whole = measure(vae, source, seed=0, samples=2, binarize_seed=3)
    some = measure(vae, source, seed=0, samples=2, binarize_seed=3, chosen=chosen)
    for one, other in zip(some.encodings, whole.encodings, strict=True):
        torch.testing.assert_close(one, other[chosen])
    torch.testing.assert_close(some.importance_bound, whole.importance_bound[chosen])


def test_a_latent_distance_to_too_few_is_left_out():
    few, enough = (Calibration.of(measured([0.0] * count)) for count in (NEIGHBOUR_RANK, 6))
    lacking = judge(measured([1.0]), enough, None, 0.05, 1).keys() - judge(
        measured([1.0]), few, None, 0.05, 1
    )
    assert lacking == {"latent_distance", "neighbours", "combination"}
