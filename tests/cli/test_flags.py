from pathlib import Path

import pytest

from convvae.cli.flags import parse, take_option
from convvae.config import TrainConfig
from convvae.errors import ConfigError, UsageError


def train_flags(*words, **defaults):
    return parse(TrainConfig, list(words), "convvae train", defaults)


def test_flags_are_the_fields_in_either_spelling():
    assert train_flags("mnist", "--max-filters", "32") == train_flags("mnist", "--max_filters=32")
    assert train_flags("mnist", "--batchsize=9") == train_flags("mnist", "--batch_size", "9")


def test_kinds_of_values():
    config = train_flags(
        "mnist", "--image-size", "48x80", "--clip-norm", "1.5", "--no-preview", "--out", "a/b"
    )
    assert (config.image_size, config.clip_norm, config.preview) == ((48, 80), 1.5, False)
    assert config.out == Path("a/b")
    assert train_flags("mnist", "--image-size=64").image_size == (64, 64)


def test_defaults_stand_in_and_flags_override_them():
    config = train_flags("mnist", "--lr", "0.5", epochs=7, lr=0.1, image_size=(64, 64))
    assert (config.epochs, config.lr, config.image_size) == (7, 0.5, (64, 64))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing"),
        (["mnist", "--bogus", "3"], "--bogus"),
        (["mnist", "--latentdims", "3"], "--latentdims"),
        (["mnist", "--epochs", "many"], "--epochs"),
        (["mnist", "--network", "resnet"], "resnet"),
        (["mnist", "--image-size", "big"], "'big' is not a size"),
    ],
)
def test_a_bad_flag_is_one_line_with_a_next_step(words, message):
    with pytest.raises(UsageError) as caught:
        train_flags(*words)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert "convvae train --help" in text


def test_a_value_out_of_range_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"convvae train: epochs: .*found 0"):
        train_flags("mnist", "--epochs", "0")


def test_help_shows_every_field_with_its_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        train_flags("--help")
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--resume RUN" in text
    for name, field in TrainConfig.model_fields.items():
        if name != "data":
            assert f"--{name.replace('_', '-')}" in text
        assert field.description
        assert field.description.split(".")[0].split(";")[0][:30] in text


def test_options_are_taken_out_in_both_spellings():
    args = ["a", "--resume", "run", "b", "--recipe=x"]
    assert take_option(args, "--resume") == "run"
    assert take_option(args, "--recipe") == "x"
    assert take_option(args, "--resume") is None
    assert args == ["a", "b"]
    with pytest.raises(UsageError, match="--resume needs a value"):
        take_option(["--resume"], "--resume")


def test_native_undoes_a_recipes_size():
    assert train_flags("mnist", "--image-size", "native", image_size=(64, 64)).image_size is None


def test_paths_of_the_user_are_written_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert train_flags("mnist", "--out=~/run").out == Path("/home/someone/run")
