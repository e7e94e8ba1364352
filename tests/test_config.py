import pytest
from pydantic import ValidationError

from convvae.config import ModelConfig, TrainConfig, parse_size
from convvae.errors import ConfigError, ImageSizeError, UsageError
from convvae.training.recipes import load_recipe, recipes


def checked(**values):
    return TrainConfig.checked({"data": "digits", **values}, "here")


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("48x80", (48, 80)), ("8X9", (8, 9))])
def test_sizes_are_height_by_width(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "8x", "a", "8x8x8", "6.5"])
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "epochs.*greater than or equal to 1.*found 0"),
        ({"batch_size": -4}, "batch_size.*found -4"),
        ({"max_filters": 6}, "max_filters.*divisible by 4, such as 4 or 8.*found 6"),
        ({"lr": float("nan")}, "lr.*finite"),
        (
            {"network": "resnet"},
            "network.*choose upsample, pooled, transposed, residual, ladder, or register",
        ),
        ({"colour": 1}, "colour"),
        ({"objective": "iwae", "beta": 2.0}, "no KL term of its own"),
        ({"objective": "dreg", "free_bits": 0.1}, "leave out `beta`, `kl_schedule`, `free_bits`"),
        ({"free_bits": 0.1, "prior": "mixture"}, "free_bits takes the latents one by one"),
        ({"objective": "beta-tc", "posterior": "full"}, "objective beta-tc takes the latents one"),
        ({"objective": "beta-tc", "mmd": 1.0}, "`mmd` goes with `objective='elbo'`"),
        ({"capacity": 5.0, "free_bits": 0.1}, "leave out `free_bits`"),
        ({"capacity": 5.0, "kl_schedule": "linear"}, "leave out `free_bits` and `kl_schedule`"),
        ({"mmd": 1.0, "prior": "flow"}, "use `prior='normal'`"),
        ({"objective": "dreg", "posterior": "flow"}, "use `objective='iwae'`"),
        ({"posterior": "flow", "latent_dims": 1}, "at least two"),
        (
            {"objective": "dreg", "mc_samples": 5},
            "batch normalisation of network upsample.*`network='residual'`, or `objective='iwae'`",
        ),
        ({"objective": "dreg", "network": "pooled"}, "network pooled mixes the draws"),
        (
            {"objective": "iwae", "likelihood": "gaussian-optimal", "mc_samples": 5},
            "use `likelihood='gaussian-learned'`",
        ),
        ({"prior": "vamp"}, "use `network='residual'`"),
        (
            {"prior": "vamp", "network": "residual", "posterior": "full"},
            "use `posterior='diagonal'`",
        ),
    ],
)
def test_a_bad_setting_is_one_line_with_its_name_rule_and_value(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        checked(**values)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("here: ")


@pytest.mark.parametrize("size", [32, (32, 32), [32, 32]])
def test_a_single_number_is_the_size_of_a_square(size):
    assert TrainConfig(data="digits", image_size=size).image_size == (32, 32)
    assert ModelConfig(image_size=size, channels=1).image_size == (32, 32)


@pytest.mark.parametrize("size", [True, 32.5, "32", (32,)])
def test_what_is_no_size_is_refused_from_python(size):
    with pytest.raises(ConfigError, match="image_size"):
        TrainConfig.checked({"data": "digits", "image_size": size}, "here")


@pytest.mark.parametrize("size", [(7, 64), (0, 0), (-8, 8)])
def test_images_below_eight_pixels_are_refused(size):
    with pytest.raises(ImageSizeError, match="at least 8"):
        checked().model(size, 1)


def test_more_latents_than_pixels_are_refused():
    with pytest.raises(ConfigError, match="65 latents for images of 64 values"):
        checked(latent_dims=65).model((8, 8), 1)
    assert checked(latent_dims=64).model((8, 8), 1).pixels == 64


def test_configurations_are_frozen():
    config = checked()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 3


def test_the_model_takes_over_the_choices_of_the_run():
    config = checked(network="pooled", latent_dims=3, likelihood="bernoulli", max_filters=8)
    assert config.model((28, 20), 3) == ModelConfig(
        network="pooled",
        latent_dims=3,
        max_filters=8,
        likelihood="bernoulli",
        image_size=(28, 20),
        channels=3,
    )


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_a_valid_configuration(name):
    config = checked(**load_recipe(name))
    assert config.epochs >= 1


def test_the_recipes_are_the_three_tutorials():
    mlx, lux, notebook = (checked(**load_recipe(n)) for n in ("mlx-cvae", "lux-cvae", "mnist-2d"))
    assert (mlx.epochs, mlx.batch_size, mlx.lr, mlx.seed) == (50, 128, 1e-3, 0)
    assert (mlx.latent_dims, mlx.max_filters, mlx.image_size) == (8, 64, (64, 64))
    assert (lux.weight_decay, lux.drop_last, lux.head_bias) == (1e-5, True, "zero")
    assert (notebook.network, notebook.likelihood, notebook.optimizer) == (
        "pooled", "bernoulli", "adam",
    )  # fmt: skip
    assert (notebook.lr, notebook.batch_size, notebook.epochs) == (1e-4, 32, 10)
    assert (notebook.mc_samples, notebook.latent_dims, notebook.image_size) == (3, 2, (28, 28))


def test_an_unknown_recipe_names_the_known_ones_and_the_closest():
    with pytest.raises(UsageError, match=r"mlx-cvae.*did you mean mlx-cvae\?"):
        load_recipe("mlx_cvae")


def test_the_fast_recipe_is_the_tutorials_model_and_loss():
    slow, fast = (
        TrainConfig.checked({"data": "mnist", **load_recipe(name)}, name)
        for name in ("mlx-cvae", "fast-cvae")
    )
    assert fast.model((64, 64), 1) == slow.model((64, 64), 1)
    assert (fast.beta, fast.batch_size, fast.image_size) == (slow.beta, 128, slow.image_size)
    assert fast.epochs < slow.epochs
