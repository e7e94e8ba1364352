"""The help of every command can be read: its flags in groups, no type's name for what is open."""

import re
from pathlib import Path

import command_lines
import pytest

from convvae.cli.flags import parse
from convvae.cli.help import GROUPS, REPEATED, REPEATED_GROUP, group_of
from convvae.cli.main import COMMANDS, main
from convvae.config import Frozen, TrainConfig
from convvae.parts import LIKELIHOOD_NAMES

SETTINGS = {command: command_lines.option_class(command).model_fields for command in COMMANDS}


def groups(command, width, monkeypatch, capsys):
    """Title -> content of each group of a command's help, in plain letters."""
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= width
    return dict(re.findall(r"^(\S[^\n]*):\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_flag_in_its_group(command, width, monkeypatch, capsys):
    shown, settings = groups(command, width, monkeypatch, capsys), SETTINGS[command]
    expected = ["options"]
    for name, field in settings.items():
        flag = command_lines.flag_of(name, field)
        group = f"{group_of(name, settings)} options" if flag else "positional arguments"
        assert re.search(rf"{flag}\b" if flag else rf"\b{name.upper()}\b", shown[group]), name
        expected.append(group)
    assert set(shown) == set(expected)
    order = [name for name in (*GROUPS, REPEATED_GROUP) if f"{name} options" in shown]
    assert list(shown)[-len(order) :] == [f"{name} options" for name in order] or not order


def test_every_setting_is_in_one_group_and_every_group_has_settings_of_a_command():
    known = {name for settings in SETTINGS.values() for name in settings}
    listed = [name for members in GROUPS.values() for name in members]
    assert len(listed) == len(set(listed))
    assert set(listed) <= known
    positional = {"model", "runs", "file", "folder"}
    assert known - set(listed) == positional


def test_what_the_model_file_knows_stands_last(monkeypatch, capsys):
    shown = groups("generate", 80, monkeypatch, capsys)
    assert list(shown)[-1] == "tutorials' options"
    assert "only checked against the model" in " ".join(shown["tutorials' options"].split())
    for name in REPEATED:
        assert group_of(name, SETTINGS["train"]) != REPEATED_GROUP


@pytest.mark.parametrize("command", COMMANDS)
def test_help_speaks_of_no_types_of_python(command, monkeypatch, capsys):
    text = "".join(groups(command, 120, monkeypatch, capsys).values())
    assert "None" not in text
    assert "(default: )" not in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_names_to_copy_are_not_cut_at_their_hyphens(width, monkeypatch, capsys):
    text = "".join(groups("train", width, monkeypatch, capsys).values())
    for name in LIKELIHOOD_NAMES:
        assert re.search(rf"(?<![\w-]){name}[,.]", text), name


class Open(Frozen):
    """Settings that may be left open."""

    limit: int | None = 3
    split: str | None = "auto"
    data_dir: Path | None = Path("a")
    pair: tuple[int, int] | None = (1, 2)
    groups: tuple[int, ...] | None = (1,)


@pytest.mark.parametrize("flag", ["limit", "pair", "groups"])
def test_none_undoes_a_setting(flag):
    assert getattr(parse(Open, [f"--{flag}", "none"], "convvae"), flag) is None
    assert getattr(parse(Open, [f"--{flag}", "None"], "convvae"), flag) is None


def test_none_is_a_word_where_words_are_free():
    assert parse(Open, ["--split", "none"], "convvae").split == "none"
    assert parse(Open, ["--data-dir", "none"], "convvae").data_dir == Path("none")
    assert parse(Open, ["--split", "None"], "convvae").split is None


def test_values_are_still_read():
    read = parse(Open, ["--limit", "4", "--pair", "5", "6", "--groups", "1", "2", "3"], "convvae")
    assert (read.limit, read.pair, read.groups) == (4, (5, 6), (1, 2, 3))


def test_a_recipes_setting_can_be_undone():
    config = parse(TrainConfig, ["digits", "--clip-norm", "none"], "convvae", {"clip_norm": 2.0})
    assert config.clip_norm is None
