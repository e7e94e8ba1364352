import inspect
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from convvae import data
from convvae.cli.main import main
from convvae.config import TrainConfig
from convvae.data.rows import image_shape
from convvae.errors import ConfigError, ImageSizeError
from convvae.estimator import SETTINGS, ConvVAE
from convvae.evaluation import bounds
from convvae.model.checkpoint import load_metadata, load_model
from convvae.training.run import train

TINY = {"latent_dims": 2, "max_filters": 8, "epochs": 2, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", limit=100)


@pytest.fixture(scope="module")
def pixels(digits):
    """uint8 [N, H, W]."""
    return digits.images[:, 0].numpy()


@pytest.fixture(scope="module")
def fitted(pixels):
    """A fitted estimator, shared: do not change it."""
    return ConvVAE(**TINY).fit(pixels)


def weights(estimator):
    return estimator.vae_.state_dict()


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_its_defaults_are_those_of_a_run():
    parameters = inspect.signature(ConvVAE).parameters
    for name in SETTINGS:
        assert parameters[name].default == TrainConfig.model_fields[name].default, name


def test_it_trains_to_the_weights_of_the_command(digits, fitted, tmp_path):
    settings = {key: value for key, value in TINY.items() if key != "random_state"}
    config = TrainConfig(
        data="digits",
        limit=100,
        seed=0,
        validation=0,
        preview=False,
        out=tmp_path / "run",
        **settings,
    )
    trained, _ = load_model(train(config).path)
    assert equal(weights(fitted), trained.state_dict())
    assert len(fitted.loss_curve_) == 2


def test_two_partial_fits_are_a_fit_of_two_epochs(pixels, fitted):
    parts = ConvVAE(**TINY).partial_fit(pixels).partial_fit(pixels)
    assert equal(weights(parts), weights(fitted))
    assert parts.loss_curve_ == fitted.loss_curve_


def test_a_ladder_is_trained_saved_and_loaded(pixels, tmp_path):
    chosen = {"network": "ladder", "groups": (1, 2), "group_channels": 1, "max_filters": 4}
    made = ConvVAE(**chosen, epochs=1, device="cpu", random_state=0).fit(pixels[:20])
    z = made.transform(pixels[:5])
    assert z.shape == (5, 4 + 2 * 16)  # the digits are 8x8: maps of 2x2 and of 4x4
    made.save(tmp_path / "ladder.safetensors")
    again = ConvVAE.load(tmp_path / "ladder.safetensors", pixel_range=(0, 255), device="cpu")
    assert {name: again.get_params()[name] for name in chosen} == chosen
    assert equal(weights(again), weights(made))
    np.testing.assert_array_equal(again.transform(pixels[:5]), z)


def moved(before, after):
    """How far the weights of one estimator are from those of another."""
    pairs = zip(weights(before).values(), weights(after).values(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs if a.is_floating_point())


def test_a_partial_fit_goes_by_the_learning_rate_set_since(pixels):
    one = ConvVAE(**TINY).partial_fit(pixels)
    before = {name: value.clone() for name, value in one.vae_.named_parameters()}
    one.set_params(lr=1e-6, weight_decay=0.0).partial_fit(pixels)
    # One step, of 100 images: Adam moves a weight by about lr.
    for name, value in one.vae_.named_parameters():
        assert (value - before[name]).abs().max() < 5e-6, name


@pytest.mark.parametrize("settings", [{"beta": 50.0}, {"objective": "beta-tc", "beta": 6.0}])
def test_a_partial_fit_minimises_the_objective_set_since(pixels, settings):
    one = ConvVAE(**TINY).partial_fit(pixels)
    again = ConvVAE(**TINY).partial_fit(pixels).partial_fit(pixels)
    one.set_params(**settings).partial_fit(pixels)
    assert moved(one, again) > 1e-4
    assert one.loss_curve_[0] == again.loss_curve_[0]
    assert one.loss_curve_[1] != again.loss_curve_[1]


def test_parameters_set_to_what_they_were_change_nothing(pixels, fitted):
    one = ConvVAE(**TINY).partial_fit(pixels)
    one.set_params(lr=0.5).set_params(lr=TINY.get("lr", 1e-3), epochs=7).partial_fit(pixels)
    assert equal(weights(one), weights(fitted))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"latent_dims": 3}, "latent_dims was 2 when the model was made and is 3"),
        ({"optimizer": "muon"}, "optimizer was adamw"),
        ({"ema_images": 100}, "ema_images was None"),
    ],
)
def test_what_needs_a_new_fit_is_refused_and_changes_nothing(pixels, settings, words):
    one, other = ConvVAE(**TINY).partial_fit(pixels), ConvVAE(**TINY).partial_fit(pixels)
    with pytest.raises(ConfigError, match=words):
        one.set_params(**settings).partial_fit(pixels)
    assert equal(weights(one), weights(other))


def test_a_fit_forgets_what_was_before(pixels, fitted):
    again = ConvVAE(**TINY).fit(pixels[:40]).fit(pixels)
    assert equal(weights(again), weights(fitted))


def test_a_pickle_continues_as_the_original_would(pixels):
    original = ConvVAE(**TINY).partial_fit(pixels)
    copy = pickle.loads(pickle.dumps(original))
    np.testing.assert_array_equal(original.transform(pixels), copy.transform(pixels))
    assert equal(weights(original.partial_fit(pixels)), weights(copy.partial_fit(pixels)))


def test_a_clone_is_not_fitted(fitted, pixels):
    with pytest.raises(NotFittedError):
        clone(fitted).transform(pixels)
    assert clone(fitted).get_params() == fitted.get_params()


@pytest.mark.parametrize("give", ["image", "channel", "flat", "torch", "float", "list"])
def test_any_form_of_the_same_pixels_gives_the_same(give, pixels, fitted):
    forms = {
        "image": pixels,
        "channel": pixels[:, None],
        "flat": pixels.reshape(100, -1),
        "torch": torch.tensor(pixels),
        "float": pixels.astype(np.float64),
        "list": pixels.tolist(),
    }
    np.testing.assert_array_equal(fitted.transform(forms[give]), fitted.transform(pixels))


def test_the_range_is_learned_from_the_first_images(pixels, fitted):
    scaled = pixels / 255 * 3 - 1
    again = ConvVAE(**TINY).fit(scaled)
    assert again.pixel_range_ == (-1.0, 2.0)
    assert equal(weights(again), weights(fitted))
    back = again.inverse_transform(again.transform(scaled))
    np.testing.assert_allclose(
        (back + 1) / 3, fitted.inverse_transform(fitted.transform(pixels)) / 255, atol=1e-5
    )
    np.testing.assert_array_equal(again.transform(scaled * 100), again.transform(clipped(scaled)))


def clipped(values):
    return np.clip(values * 100, -1, 2)


def test_a_range_that_was_given_is_kept_to(pixels):
    estimator = ConvVAE(**TINY, pixel_range=(0, 1)).fit(pixels / 255)
    assert estimator.pixel_range_ == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"from 0 to 255, outside of pixel_range \(0, 1\)"):
        estimator.transform(pixels)


def test_images_come_out_in_the_shape_and_range_of_the_fit(fitted, pixels):
    flat = ConvVAE(**TINY).fit(pixels.reshape(100, -1))
    z = flat.transform(pixels)
    assert z.shape == (100, 2)
    assert z.dtype == np.float32
    assert flat.inverse_transform(z).shape == (100, 64)
    assert fitted.inverse_transform(z).shape == (100, 8, 8)
    assert fitted.inverse_transform(z).max() > 1  # of 255, as the images were
    sample = fitted.sample(5, random_state=1)
    assert sample.shape == (5, 8, 8)
    np.testing.assert_array_equal(sample, fitted.sample(5, random_state=1))
    assert not np.array_equal(sample, fitted.sample(5, random_state=2))


def test_rows_that_are_no_square_are_padded():
    rows = np.random.default_rng(0).random((30, 70))
    estimator = ConvVAE(**TINY).fit(rows)
    assert estimator.image_shape_ == (1, 9, 9)
    assert estimator.inverse_transform(estimator.transform(rows)).shape == (30, 70)


@pytest.mark.parametrize(
    ("features", "given", "expected"),
    [
        (1, None, (1, 8, 8)),
        (64, None, (1, 8, 8)),
        (65, None, (1, 9, 9)),
        (784, None, (1, 28, 28)),
        (3072, (3, 32, 32), (3, 32, 32)),
        (80, (8, 10), (1, 8, 10)),
    ],
)
def test_the_layout_of_rows(features, given, expected):
    assert image_shape(features, given) == expected


def test_the_score_is_the_bound(fitted, pixels):
    images = torch.tensor(pixels[:, None])
    bound = bounds.image_terms(fitted.vae_, images, seed=0).bound
    np.testing.assert_array_equal(fitted.score_samples(pixels), bound.numpy())
    assert fitted.score(pixels) == pytest.approx(float(bound.mean()))
    np.testing.assert_allclose(fitted.score_samples(pixels[3:4]), bound[3:4], rtol=1e-5)


def test_what_it_saves_is_a_model_of_every_command(fitted, pixels, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    metadata = load_metadata(path)
    assert (metadata.epochs, metadata.images, metadata.bound) == (2, 200, None)
    assert main(["info", str(path)]) == 0
    assert main(["evaluate", str(path), "digits", "--limit", "20"]) == 0
    loaded = ConvVAE.load(path, pixel_range=(0, 255), device="cpu")
    np.testing.assert_array_equal(loaded.transform(pixels), fitted.transform(pixels))
    assert loaded.get_params()["max_filters"] == 8
    before = {name: value.clone() for name, value in weights(loaded).items()}
    assert not equal(weights(loaded.partial_fit(pixels)), before)
    assert main(["evaluate", str(path)]) == 4  # it does not know where its images are
    assert "no data set and no file or folder 'arrays'" in capsys.readouterr().err


def test_in_a_pipeline_and_a_grid(digits):
    X, y = digits.images.flatten(1).numpy(), digits.labels.numpy()
    pipeline = make_pipeline(ConvVAE(**TINY), LogisticRegression())
    assert 0 < pipeline.fit(X, y).score(X, y) <= 1
    assert list(pipeline[:-1].get_feature_names_out()) == ["convvae0", "convvae1"]
    grid = {"latent_dims": np.array([1, 3]), "beta": [1.0]}
    search = GridSearchCV(ConvVAE(**TINY), grid, cv=2).fit(X)
    assert search.best_params_["latent_dims"] in (1, 3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_the_course_is_printed_if_asked_for(pixels, capsys):
    ConvVAE(**TINY).set_params(verbose=True, output_bias="mean").fit(pixels)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines] == ["epoch 1 ", "epoch 2 "]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"max_filters": 9}, ConfigError, "max_filters: must be divisible by 4"),
        ({"epochs": 0}, ConfigError, "epochs"),
        ({"network": "no"}, ConfigError, "network"),
        ({"image_shape": (7, 9)}, ValueError, "63 values, but X has 64 features"),
        ({"image_shape": (4, 16)}, ImageSizeError, "4x16 pixels are too small"),
        ({"image_shape": (64,)}, ValueError, "not \\(64,\\)"),
        ({"pixel_range": (1, 0)}, ValueError, "must rise"),
        ({"pixel_range": (0, 1)}, ValueError, "from 0 to 255"),
    ],
)
def test_a_parameter_that_cannot_be_is_said_at_fit(change, error, words, pixels):
    estimator = ConvVAE(**{**TINY, **change})
    with pytest.raises(error, match=words):
        estimator.fit(pixels.reshape(100, -1))


def test_images_that_cannot_be_are_refused(fitted, pixels):
    with pytest.raises(ValueError, match="1 sample"):
        ConvVAE(**TINY).fit(pixels[:1])
    with pytest.raises(ValueError, match="NaN"):
        fitted.transform(np.full((2, 8, 8), np.nan))
    with pytest.raises(ValueError, match="channels come first"):
        ConvVAE(**TINY).fit(np.zeros((4, 8, 16, 3)))
    with pytest.raises(ValueError, match=r"shape \(4, 16\), but ConvVAE was fitted on"):
        fitted.transform(pixels.reshape(100, 4, 16))
    with pytest.raises(ValueError, match="3 columns, but the model has 2 latents"):
        fitted.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="81 features"):
        fitted.transform(np.zeros((2, 9, 9)))
