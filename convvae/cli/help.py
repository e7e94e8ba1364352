"""How the help of a command is laid out: its flags in groups, and `none` for what is left open."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Collection, Sequence

from convvae.cli.options import Option

GROUPS: dict[str, frozenset[str]] = {
    name: frozenset(flags.split())
    for name, flags in {
        "model": "network latent_dims max_filters depth groups group_channels fold likelihood "
        "variance posterior prior prior_components head_bias output_bias sampler "
        "init condition temperature hold top label",
        "data": "data data_dir limit image_size crop channels split part skip_bad validation "
        "augment binarize binarize_seed rec_testdata normal normal_part normal_limit abnormal "
        "mask noise labels_from",
        "optimisation": "epochs patience batch_size drop_last optimizer lr weight_decay "
        "bias_correction schedule clip_norm skip_norm ema_images",
        "objective": "objective beta kl_schedule kl_warmup free_bits capacity mmd mc_samples "
        "alpha labelled",
        "measurement": "samples probe factors quality features score false_alarms "
        "completions steps toward away method strength",
        "run": "recipe seed device precision compile batch_statistics save_every rollbacks",
        "output": "out outfile outdir shards shard_size overwrite form formats json_file as_json "
        "separate count rows "
        "only pair worst heatmaps calibrate shown html port browser log_every preview "
        "report tensorboard",
    }.items()
}
"""Group of help -> the settings in it, of every command; in the order in which help shows them."""

REPEATED = frozenset({"latent_dims", "max_filters", "channels"})
"""What a model file knows and the tutorials' command lines say again."""
REPEATED_GROUP = "tutorials'"
REPEATED_WORDS = (
    "The model file knows these. They are here for the tutorials' command lines, and a value is "
    "only checked against the model."
)


_INDENT = 24
"""Columns before what is said of a flag."""
_NARROWEST = 11


def group_of(setting: str, command: Collection[str]) -> str | None:
    """The group of help in which a setting stands; None for one that stands by itself.

    Args:
        setting: Its name.
        command: The names of all settings of the command.
    """
    if setting in REPEATED and "model" in command:
        return REPEATED_GROUP
    return next((name for name, members in GROUPS.items() if setting in members), None)


def fill(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """Give a parser the options of a command, in the groups of help.

    It reads words, or whether a switch is on; what a line does not say it leaves out.

    Args:
        parser: It.
        options: The options; positional ones stand before the groups.
    """
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.description = _wrapped(parser.description or "", 0)
    names = {option.name for option in options}
    places = [option for option in options if option.rules.positional]
    words = [place.metavar if place.count == 1 else f"{place.metavar} ..." for place in places]
    shown = [
        word if place.required else f"[{word}]" for word, place in zip(words, places, strict=True)
    ]
    parser.usage = " ".join(("%(prog)s [-h] [OPTIONS]", *shown))
    for place in places:
        _add(parser.add_argument, place)
    for group in (*GROUPS, REPEATED_GROUP):
        flags = [option for option in options if not option.rules.positional]
        members = [option for option in flags if group_of(option.name, names) == group]
        if members:
            words = _wrapped(REPEATED_WORDS, 2) if group == REPEATED_GROUP else None
            section = parser.add_argument_group(f"{group} options", words)
            for option in members:
                _add(section.add_argument, option)


def _add(add: Callable[..., object], option: Option) -> None:
    said = _wrapped(f"{option.words} {option.default}", _INDENT).replace("%", "%%")
    shared = {"help": said, "default": argparse.SUPPRESS}
    if option.rules.positional:
        # None may be there: a required one that is missing gets better words than argparse's.
        count = "?" if option.count == 1 else "*"
        add(option.name, nargs=count, metavar=option.metavar, **shared)
    elif option.kind is bool:
        action = argparse.BooleanOptionalAction if option.rules.negatable else "store_true"
        add(*option.flags, dest=option.name, action=action, **shared)
    else:
        count = None if option.count == 1 else "*"
        add(*option.flags, dest=option.name, nargs=count, metavar=option.metavar, **shared)


def _wrapped(text: str, indent: int) -> str:
    """A text in lines of the terminal; argparse would cut `continuous-bernoulli` at its hyphen."""
    width = max(shutil.get_terminal_size().columns - indent - 2, _NARROWEST)
    return textwrap.fill(text, width, break_on_hyphens=False)
