"""Models that are told several columns of their images: names and numbers."""

import pytest
import torch

from convvae.config import Category, Condition, ModelConfig, Number, TrainConfig
from convvae.data import ImageSet
from convvae.errors import ConfigError
from convvae.evaluation.bounds import image_terms
from convvae.evaluation.encode import generate
from convvae.evaluation.label_evidence import label_evidence
from convvae.model.checkpoint import ModelMetadata, load_model, save_model
from convvae.model.conditions import (
    condition_of,
    conditions,
    given_labels,
    given_labels_of,
    with_labels,
)
from convvae.model.vae import VAE
from convvae.parts import NETWORK_NAMES

SIZES = ["2", "3", "4", "2", "3", "4", "2"]
COLOURS = ["red", "red", "blue", "blue", "red", "red", "blue"]


def images(**more):
    pixels = torch.randint(0, 256, (7, 1, 12, 10), dtype=torch.uint8)
    columns = {"size": SIZES, "colour": COLOURS, **more}
    labels = torch.tensor([0, 0, 1, 1, 0, 0, 1])
    return ImageSet(pixels, labels, "pets", "test", classes=("cat", "dog"), columns=columns)


def model(network="upsample", columns=("label", "colour", "size"), **settings):
    size = {} if network == "ladder" else {"latent_dims": 3}
    config = ModelConfig(
        image_size=(12, 10),
        channels=1,
        network=network,
        max_filters=8,
        group_channels=2,
        condition=condition_of(images(), columns),
        **(size | settings),
    )
    vae = VAE(config).eval()
    with torch.no_grad():
        for weights in vae.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    return vae


def test_names_are_ones_among_zeros_and_numbers_are_standardised():
    condition = condition_of(images(), ("label", "colour", "size"))
    label, colour, size = condition.columns
    assert (label.labels, colour.labels) == (("cat", "dog"), ("blue", "red"))
    values = torch.tensor([float(word) for word in SIZES], dtype=torch.float64)
    assert size.mean == pytest.approx(float(values.mean()))
    assert size.std == pytest.approx(float(values.std(correction=0)))
    assert (size.quantiles[0], size.quantiles[5], size.quantiles[-1]) == (2, 3, 4)
    y = conditions(model().config, images())
    assert y.shape == (7, 5)
    assert y[:, :4].tolist()[2] == [0, 1, 1, 0]
    torch.testing.assert_close(y[:, 4], ((values - values.mean()) / size.std).float())
    assert y[:, 4].std(correction=0) == pytest.approx(1)
    assert condition.combinations == ((0, 1), (1, 0))
    assert condition.counts == (4, 3)


def test_what_an_image_was_told_is_read_back():
    condition = condition_of(images(), ("colour", "size"))
    for row, colour, size in zip(conditions(model().config, images()), COLOURS, SIZES, strict=True):
        assert condition.values(row[2:].tolist()) == {"colour": colour, "size": size}


def test_numbers_are_names_where_that_is_asked_for():
    assert isinstance(condition_of(images(), ("size",)).columns[0], Number)
    sizes = condition_of(images(), ("size:category",))
    assert sizes.columns == (Category(name="size", labels=("2", "3", "4")),)
    assert sizes.words == ("size:category",)
    assert sizes.labels == ("2", "3", "4")


@pytest.mark.parametrize("network", NETWORK_NAMES.built_in)
def test_every_column_changes_what_every_network_makes_of_an_image(network):
    vae, pets = model(network), images()
    before = {"label": "cat", "colour": "red", "size": "3"}
    others = {"label": "dog", "colour": "blue", "size": "4"}
    bound = image_terms(given_labels(vae, [before]), pets.images, seed=0).bound
    for name, value in others.items():
        told = given_labels(vae, [before | {name: value}])
        assert not torch.allclose(image_terms(told, pets.images, seed=0).bound, bound, rtol=1e-6)
    own = image_terms(given_labels_of(vae, pets), pets.images, seed=0).bound
    torch.testing.assert_close(own[1], bound[1], rtol=1e-5, atol=1e-3)


def test_the_prior_of_a_number_moves_with_it():
    vae = model(columns=("size",), prior="conditional")
    low, high = (given_labels(vae, [size]).prior.parameters_of()[0] for size in ("2", "4"))
    middle = given_labels(vae, ["3"]).prior.parameters_of()[0]
    torch.testing.assert_close((low + high) / 2, middle)
    assert not torch.allclose(low, high)


def test_columns_that_nobody_names_are_drawn_as_they_are_in_training():
    vae = with_labels(model(), 2000, seed=0)
    colour, label = vae.y[:, 2:4].argmax(1), vae.y[:, :2].argmax(1)
    assert ((colour == 1) == (label == 0)).all(), "only pairs that training images have"
    assert float((label == 0).double().mean()) == pytest.approx(4 / 7, abs=0.05)
    rows = [{"label": "cat", "colour": "red", "size": size} for size in "24"]
    low, high = (vae.config.condition.row(row)[4] for row in rows)
    assert low <= vae.y[:, 4].min() < -0.9
    assert 0.9 < vae.y[:, 4].max() <= high
    told = with_labels(model(), 50, seed=0, known={"colour": "blue", "size": "3"})
    assert (told.y[:, 1] == 1).all()
    assert (told.y[:, 4] == told.y[0, 4]).all()
    assert generate(told, 50, seed=0).shape == (50, 1, 12, 10)


def test_log_px_is_summed_over_the_combinations_of_labels():
    pets = images(colour=[*COLOURS[:6], "red"])  # the last: dog and red, as no training image
    vae = model(columns=("label", "colour"))
    found = label_evidence(vae, pets, samples=2, seed=0)
    assert found.labels == 2
    assert found.accuracy.mean <= 6 / 7
    assert torch.isfinite(torch.tensor(found.gain.mean))


def test_a_file_knows_its_columns_and_one_of_before_is_read(tmp_path):
    vae = model("pooled")
    facts = ModelMetadata(model=vae.config, data="pets", epochs=1, images=7, versions={})
    save_model(tmp_path / "pets.safetensors", vae, facts)
    again, metadata = load_model(tmp_path / "pets.safetensors")
    assert metadata.model.condition == vae.config.condition
    pets = images()
    ours, theirs = (
        image_terms(given_labels_of(v, pets), pets.images, seed=0) for v in (vae, again)
    )
    assert torch.equal(ours.bound, theirs.bound)
    old = Condition.checked({"labels": ["cat", "dog"], "counts": [2, 1]}, "file")
    assert old == Condition(
        columns=(Category(name="label", labels=("cat", "dog")),),
        combinations=((0,), (1,)),
        counts=(2, 1),
    )
    assert TrainConfig.checked({"data": "x", "condition": "label"}, "run").condition == ("label",)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"colour": "green"}, r"does not know the colour 'green'.*; it knows blue, red"),
        ({"colour": "3"}, r"does not know the colour '3'; it knows blue, red"),
        ({"size": "large"}, r"size is a number, in training from 2 to 4, and 'large' is none"),
        ({"size": "nan"}, r"'nan' is none"),
        ({"shape": "round"}, r"not told of a column 'shape'; it is told label, colour, size"),
    ],
)
def test_values_that_cannot_be_told_are_refused(values, said):
    whole = {"label": "cat", "colour": "red", "size": "3"}
    with pytest.raises(ConfigError, match=said):
        given_labels(model(), [whole | values])
    with pytest.raises(ConfigError, match=said):
        with_labels(model(), 5, seed=0, known=values)


def test_what_is_not_whole_is_refused():
    condition = model().config.condition
    with pytest.raises(ConfigError, match="told colour, size too; give a value of each"):
        given_labels(model(), [{"label": "cat"}])
    with pytest.raises(ConfigError, match=r"'red' does not say which; write it as label=VALUE"):
        condition.read(["red"])
    with pytest.raises(ConfigError, match="size is given twice"):
        condition.read(["size=2", "size=3"])
    with pytest.raises(ConfigError, match="no training image has label dog, colour red together"):
        with_labels(model(), 5, seed=0, known={"label": "dog", "colour": "red"})
    with pytest.raises(ConfigError, match="give one `label`"):
        model(columns=("colour",)).config.condition.read(["red", "blue"])


def test_images_that_lack_a_column_or_whose_number_is_one_are_refused():
    with pytest.raises(ConfigError, match="told the column age of each image, and pets has none"):
        condition_of(images(), ("age",))
    with pytest.raises(ConfigError, match="age is 3 of all training images of pets"):
        condition_of(images(age=["3"] * 7), ("age",))
    with pytest.raises(ConfigError, match="each once"):
        TrainConfig.checked({"data": "x", "condition": ["size", "size:category"]}, "train")
    with pytest.raises(ConfigError, match="one place in each column"):
        Condition.checked(
            {"columns": [{"name": "a", "labels": ["b"]}], "combinations": [[1]], "counts": [1]}, "f"
        )
