"""What is printed of labels and samples; the bounds are tested through the command line."""

import pytest

from convvae.evaluation.estimates import Estimate, Undefined
from convvae.evaluation.probes import Probes
from convvae.evaluation.sample_quality import Comparison, SampleQuality
from convvae.evaluation.sample_quality.measures import Neighbourhoods
from convvae.evaluation.scorecard import as_json, part_lines

FEW = Undefined("needs at least 6 real images")


@pytest.fixture
def train():
    return Comparison(9, 1.5, Estimate(0.25, 0.125), Neighbourhoods(0.5, 0.75, FEW, FEW))


def quality(samples, train):
    return SampleQuality("space-v1", "two pixels", 1234, samples, train)


def test_samples_stand_beside_training_images(train):
    samples = Comparison(7, 2.25, FEW, Neighbourhoods(0.125, 0.25, FEW, FEW))
    title, header, *rows = part_lines(quality(samples, train))
    assert title == "sample quality against 1,234 test images in space-v1 (two pixels)"
    assert header.split() == ["samples", "7", "training", "9"]
    assert rows[0].split()[:4] == ["Frechet", "distance", "2.25", "1.50"]
    assert rows[1].split()[:6] == ["kernel", "distance", "-", "0.2500", "±", "0.1250"]
    assert rows[2].split()[:3] == ["precision", "0.1250", "0.5000"]
    assert rows[6] == "  - not defined: needs at least 6 real images"


def test_samples_that_are_no_numbers_leave_the_training_images(train):
    lines = part_lines(quality(Undefined("all wrong"), train))
    assert lines[1] == "  of the samples not defined: all wrong"
    assert lines[3].split()[:3] == ["Frechet", "distance", "1.50"]


def test_a_regression_that_stopped_early_is_said():
    accuracy = Estimate(0.5, 0.25)
    lines = part_lines(Probes(accuracy, Estimate(1.0, None), 10, 1, 2, converged=False))
    assert "50.00 ± 25.00 %" in lines[1]
    assert "100.00 %" in lines[2]
    assert "stopped before its optimum" in lines[3]
    assert "stopped" not in "".join(part_lines(Probes(accuracy, accuracy, 10, 5, 2, True)))


def test_json_is_by_name_all_the_way_down(train):
    found = as_json({"sample_quality": quality(FEW, train), "probes": Undefined("no labels")})
    assert found["sample_quality"]["samples"] == {"not_defined": FEW.not_defined}
    assert found["sample_quality"]["training_images"]["kernel_distance"] == {
        "mean": 0.25,
        "standard_error": 0.125,
    }
    assert found["probes"] == {"not_defined": "no labels"}
