import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_lines import option_class

import convvae
from convvae import data
from convvae.cli.common import LookOptions
from convvae.cli.compare import CompareOptions
from convvae.cli.console import FlagConsole
from convvae.cli.flags import as_flags, parse, take_option
from convvae.cli.main import COMMANDS, main
from convvae.cli.options import options_of
from convvae.config import Architecture, TrainConfig
from convvae.errors import ConfigError, ConvvaeError, UsageError
from convvae.evaluation import doctor


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
        ([], "Missing: DATA (Images: a name such as mnist, "),
        (["--limit", "3"], "Missing: DATA (Images: "),
        (["--no-preview"], "Missing: DATA (Images: "),
        (["mnist", "--bogus", "3"], "there is no flag --bogus (see"),
        (["mnist", "--latentdims", "3"], "no flag --latentdims (did you mean --latent-dims?)"),
        (["mnist", "--latent_dim=3"], "no flag --latent-dim (did you mean --latent-dims?)"),
        (["mnist", "-x"], "there is no flag -x (see"),
        (["mnist", "--epochs", "many"], "--epochs: 'many' is not a whole number"),
        (["mnist", "--lr", "fast"], "--lr: 'fast' is not a number"),
        (["mnist", "--groups", "2", "a"], "--groups: 'a' is not a whole number"),
        (["mnist", "--epochs"], "--epochs: expected one argument"),
        (["mnist", "--limit", "--seed", "3"], "--limit: expected one argument"),
        (["mnist", "--network", "resnet"], "--network: no 'resnet'; there are upsample, "),
        (["mnist", "--network", "pold"], "--network: no 'pold' (did you mean pooled?)"),
        (["mnist", "--image-size", "big"], "--image-size: 'big' is not a size"),
        (["mnist", "--preview=yes"], "--preview"),
        (["mnist", "other"], "'other' is one word too many"),
    ],
)
def test_a_bad_flag_is_one_line_with_a_next_step(words, message, capsys):
    with pytest.raises(UsageError) as caught:
        train_flags(*words)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert text.endswith("(see convvae train --help)")
    assert capsys.readouterr() == ("", "")


def test_a_flag_of_several_values_leaves_the_last_word_where_one_is_missing():
    config = train_flags("--network", "ladder", "--groups", "2", "4", "mnist")
    assert (config.data, config.groups) == ("mnist", (2, 4))
    config = train_flags("mnist", "--network", "ladder", "--groups", "2", "4")
    assert (config.data, config.groups) == ("mnist", (2, 4))


def test_positional_words_may_stand_between_flags():
    words = ["--limit", "3", "run", "--seed", "4", "digits", "--skip-bad"]
    options = parse(LookOptions, words, "convvae look")
    assert (options.model, options.data) == ("run", "digits")
    assert (options.limit, options.seed, options.skip_bad) == (3, 4, True)
    with pytest.raises(UsageError, match=r"no flag --no-skip-bad \(did you mean --skip-bad\?\)"):
        parse(LookOptions, ["run", "--no-skip-bad"], "convvae look")


def test_several_positional_words_may_stand_between_flags():
    for line in ("a b c --limit 3", "--limit 3 a b c", "a --limit 3 b c"):
        options = parse(CompareOptions, line.split(), "convvae compare")
        assert (options.runs, options.limit) == (("a", "b", "c"), 3), line
    with pytest.raises(UsageError, match="no flag --limits"):
        parse(CompareOptions, ["a", "b", "--limits", "3"], "convvae compare")


@pytest.mark.parametrize("value", ["-1", "-.5", "-1e-3", "-1E3"])
@pytest.mark.parametrize("form", ["--beta {}", "--beta={}"])
def test_a_minus_makes_no_flag_of_a_number(form, value):
    with pytest.raises(ConfigError, match=r"beta: .*greater than or equal to 0 \(found -"):
        train_flags("mnist", *form.format(value).split())


def test_words_after_two_dashes_are_no_flags():
    assert train_flags("--epochs", "3", "--", "--my_folder").data == "--my_folder"


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


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("lower `batch_size`, please", "lower --batch-size, please"),
        ("use `split='none'` or `variance=0.1`", "use --split none or --variance 0.1"),
        ("leave them out with `skip_bad=True`", "leave them out with --skip-bad"),
        ("`bias_correction=False` contradicts", "--no-bias-correction contradicts"),
        ("see `convvae train --help`", "see `convvae train --help`"),
        ("of 'a=b' and a_b", "of 'a=b' and a_b"),
    ],
)
def test_settings_of_a_message_become_flags(said, shown):
    assert as_flags(said) == shown


@pytest.mark.parametrize(
    ("make", "words", "setting", "flag"),
    [
        (
            lambda: TrainConfig.checked({"data": "digits", "mmd": 1, "prior": "flow"}, "here"),
            ["train", "digits", "--mmd", "1", "--prior", "flow"],
            "use `prior='normal'`",
            "use --prior normal",
        ),
        (
            lambda: TrainConfig(data="digits", latent_dims=100).model((8, 8), 1),
            ["train", "digits", "--latent-dims", "100"],
            "lower `latent_dims`",
            "lower --latent-dims",
        ),
        (
            lambda: data.load("digits", "train", prepare=data.Preparation(split="0.5")),
            ["train", "digits", "--split", "0.5"],
            "leave out `split`",
            "leave out --split",
        ),
        (
            lambda: TrainConfig.checked({"data": "digits", "image_size": 7}, "here"),
            ["train", "digits", "--image-size", "7"],
            "enlarge them with `image_size`",
            "enlarge them with --image-size",
        ),
    ],
)
def test_an_error_names_the_setting_in_python_and_the_flag_on_the_command_line(
    make, words, setting, flag, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConvvaeError) as caught:
        make()
    assert setting in str(caught.value)
    assert main(words) == type(caught.value).exit_code
    said = capsys.readouterr().err
    assert flag in said
    assert setting not in said


def test_messages_of_the_library_mark_settings_that_exist():
    """A misspelt mark would become a flag that no command has."""
    rooms = Path(convvae.__file__).parent
    declared = "".join(
        path.read_text() for room in ("config", "cli") for path in rooms.glob(f"{room}/*.py")
    )
    marked = {
        name
        for path in rooms.rglob("*.py")
        for line in path.read_text().splitlines()
        if '"' in line and '"""' not in line
        for name in re.findall(r"`([a-z][a-z_]*)=[^`]*`", line)
    }
    assert {"split", "network", "objective", "overwrite", "features"} <= marked
    # `train` takes --resume out of the line itself.
    for name in marked - {"text", "resume"}:
        assert re.search(rf'^    {name}: |Flag\(name="{name}"', declared, re.MULTILINE), name


def texts(path):
    """The strings of a module that are no docstrings, those of a field included."""
    tree = ast.parse(path.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def test_no_text_of_the_library_holds_a_flag():
    """It would be wrong in Python: the library names settings, and the command line rewrites."""
    rooms = Path(convvae.__file__).parent
    flags = {
        flag
        for command in COMMANDS
        for option in options_of(option_class(command), {})
        for flag in (*option.flags, "--resume")
    }
    aliases = {"--nimg-channels", "--batchsize"}
    found = {
        (str(path.relative_to(rooms)), word)
        for path in rooms.rglob("*.py")
        if path.parent.name != "cli"
        for text in texts(path)
        for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
    }
    assert {word for _, word in found} & flags <= aliases, found
    assert {path for path, word in found if word in aliases} == {"config/settings.py"}


def test_what_the_library_says_while_it_works_has_flags_on_the_console(capsys):
    images = torch.randint(0, 255, (20, 1, 8, 8), dtype=torch.uint8)
    (remark,) = doctor.of_images(images, Architecture(likelihood="bernoulli"))
    assert "`likelihood='continuous-bernoulli'`" in str(remark)
    FlagConsole().print(str(remark), soft_wrap=True, highlight=False, markup=False)
    said = capsys.readouterr().out
    assert "(--binarize dynamic in training" in said
    assert "use --likelihood continuous-bernoulli" in said


def test_settings_are_of_use_without_the_command_line():
    code = "import sys, convvae.config; sys.exit('convvae.cli' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
