"""Command lines made from the flags themselves: valid, at a limit, malformed, contradictory.

Every option class is walked as the command line reads it, so that a new flag is drawn from the day
on which it is written. A line is a function of its command and its number.
"""

import random
import types
from functools import cache
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from convvae.cli import main
from convvae.config import Flag
from convvae.training.recipes import recipes

SMALL = {
    "train": "--epochs=1 --limit=12 --max-filters=8 --batch-size=8 --latent-dims=2 --no-preview "
    "--no-report --image-size=8 --device=cpu",
    "generate": "--count=4",
    "reconstruct": "--count=4",
    "evaluate": "--limit=6",
    "figures": "--limit=6 --only=samples",
    "report": "--limit=6",
    "compare": "mlx-cvae --limit=6 --data=digits",
    "explore": "--limit=6 --no-browser",
    "encode": "--limit=6",
    "anomalies": "--limit=6 --normal-limit=40",
    "impute": "--limit=6 --completions=2 --steps=2",
    "denoise": "--limit=6 --samples=2",
    "edit": "--limit=6",
}
"""Flags that make a line of hardly any work; a drawn flag takes their place."""
HEAVY = {
    "max_filters", "depth", "prior_components", "mc_samples", "samples", "quality", "count",
    "completions", "steps", "latent_dims", "batch_size", "limit", "image_size", "log_every",
}  # fmt: skip
"""Flags whose highest value is valid and more work than a test may make."""
SLOW = {"form": {"onnx", "pt2"}, "formats": {"pdf"}, "sampler": {"flow"}}
"""Choices that take seconds by themselves."""
WORDS = ["", " ", "-1", "--", "nan", "ten", "1.5", "0x10", "🙂", "a\tb", "'", "$HOME", "None", "\\"]
DATA = [
    "digits", "photos", "photos", "./photos", "mnist", "mnits", "empty", "mixed", "cut.npz",
    "notes.txt", "nowhere", "pixels.npy", "cut.zip", "list.csv", "hf:", "hf:a/b", "run", "cifar10",
    "photos/sea", "model.safetensors", "/dev/null", "one",
]  # fmt: skip
MODELS = [
    "run", "run", "run", "run", "model.safetensors", "mlx-cvae", "mlx-vae", "cut.safetensors",
    "other.safetensors", "empty", "photos", "notes.txt", "nowhere", "run/config.json", "broken-run",
]  # fmt: skip
OUT = [
    "new", "new.png", "new/a.png", "new.npz", "new.npy", "new.html", "new.safetensors", "new.json",
    "new.pth", "notes.txt", "notes.txt/x.png", "photos", "/proc/x/y", "/dev/null/x.png",
    "~nobody/x", "a" * 300 + ".png", "run", "", "new.jpg", "NEW.PNG", "new.pt2", "read-only/x.npz",
    "new.parquet",
]  # fmt: skip
USUAL = {
    "model": "run", "data": "digits", "file": "weights.npz", "out": "new.npz", "form": "npz",
    "folder": "shards", "runs": "run", "mask": "random:0.5", "noise": "0.2",
    "toward": "3",
}  # fmt: skip
"""What a line mostly begins with: something that exists, else no line would come to its flags."""
SIZES = ["8", "8x9", "native", "7", "0", "-8", "x", "8x", "8x8x8", "4097", "1e3", "8X12", "８"]
OUTPUTS = {"out", "outfile", "outdir", "html", "json_file", "shards"}
"""Fields that name what is written."""
SOURCES = {"data", "normal", "labels_from"}
SPLITS = ["auto", "folders", "none", "0.5", "0", "1", "-0.1", "nan", "half"]


@cache
def option_class(command):
    """The class of a command's flags: what it gives to `parse`."""
    found = []

    class FoundError(Exception):
        pass

    def parse(kind, *_, **__):
        found.append(kind)
        raise FoundError

    run = main.COMMANDS[command]
    here = types.FunctionType(run.__code__, {**run.__globals__, "parse": parse}, closure=None)
    try:
        here([])
    except FoundError:
        return found[0]
    raise AssertionError(f"{command} reads no flags")


def flag_of(name, field):
    """A field's flag; None for a word without one."""
    rules = [rule for rule in field.metadata if isinstance(rule, Flag)]
    if any(rule.positional for rule in rules):
        return None
    names = [rule.name for rule in rules if rule.name]
    return f"--{names[0] if names else name.replace('_', '-')}"


def kinds(annotation):
    """The types that a field may have, unions and Annotated taken apart."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in kinds(part)]
    if hasattr(annotation, "__metadata__"):
        return kinds(annotation.__origin__)
    return [annotation]


def numbers(name, field):
    """Values at and beyond the limits of a number."""
    values = [1, 2, 3]
    for limit in field.metadata:
        match limit:
            case Ge(ge=bound) | Gt(gt=bound):
                values += [bound, bound - 1]
            case Le(le=bound) | Lt(lt=bound):
                values += [bound + 1] if name in HEAVY else [bound, bound + 1]
    return [str(value) for value in values] + ["-0", "1e-9", "inf", "1_0", "+2", "10" * 12]


def values_of(name, field, draw):
    """The words after a flag: none, one, or several."""
    special = {
        "model": MODELS,
        "runs": MODELS,
        "file": MODELS,
        "image_size": SIZES,
        "split": SPLITS,
    }
    special |= dict.fromkeys(SOURCES, DATA) | dict.fromkeys(OUTPUTS, OUT)
    special |= {"folder": ["shards", "shards", "run", "empty", "nowhere", "notes.txt"]}
    special |= {"data_dir": ["empty", "nowhere", "notes.txt", "photos", "~nobody/x"]}
    special |= {"recipe": [*recipes(), "mlx-vae", "../x"], "abnormal": ["sea", "3", "tiger"]}
    special |= {"mask": ["box:0,0,3,3", "box:9,9,9,9", "random:2", "notes.txt", "nowhere.npy"]}
    special |= {name: ["3", "0", "sea", "33"] for name in ("toward", "away")}
    special |= {"only": ["samples", "scatter", "curves", "sample"], "pair": ["0", "1", "5", "9999"]}
    if draw.random() < 0.12:
        return draw.choice([[], [draw.choice(WORDS)], [draw.choice(WORDS), "2"]])
    if name in special:
        return [draw.choice(special[name]) for _ in range(2 if name == "pair" else 1)]
    kind = draw.choice([kind for kind in kinds(field.annotation) if kind is not type(None)])
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        choices = [choice for choice in get_args(kind) if choice not in SLOW.get(name, ())]
        return [draw.choice([*choices, *choices, choices[0].upper(), choices[-1] + "s"])]
    if kind is bool:
        return draw.choice([[], [], [], ["True"], ["maybe"]])
    return [draw.choice(numbers(name, field) if kind in (int, float) else WORDS)]


def words_of(name, field, draw):
    """A drawn flag with its value, in one of the ways in which people write it."""
    flag, values = flag_of(name, field), values_of(name, field, draw)
    if flag is None:
        return values
    if kinds(field.annotation)[0] is bool and draw.random() < 0.4:
        flag = "--no-" + flag.removeprefix("--")
    if draw.random() < 0.2:
        flag = flag.replace("-", "_").replace("__", "--", 1)
    if len(values) == 1 and draw.random() < 0.5:
        return [f"{flag}={values[0]}"]
    return [flag, *values]


def line(command, number):
    """A command line: its words after `convvae`."""
    draw = random.Random(f"{command} {number}")
    fields = option_class(command).model_fields
    small = dict.fromkeys(SMALL.get(command, "").split())
    words, chosen = [], []
    for name, field in fields.items():
        if field.is_required() or flag_of(name, field) is None:
            if draw.random() < 0.7:
                place = USUAL[name]
                place = "new.safetensors" if (command, name) == ("import", "out") else place
                flag = flag_of(name, field)
                words += [place] if flag is None else [flag, place]
            elif draw.random() < 0.9:
                words += words_of(name, field, draw)
        else:
            chosen.append(name)
    for name in draw.sample(chosen, min(len(chosen), draw.choice([0, 1, 1, 1, 2, 2, 3, 5]))):
        small = {word: None for word in small if not word.startswith(flag_of(name, fields[name]))}
        words += words_of(name, fields[name], draw)
    words += small
    match draw.choice(["", "", "", "", "", "", "flag", "word", "twice", "cpu", "resume", "help"]):
        case "flag":
            words.append(draw.choice(["--nope", "--epoch", "-x", "--model", "--=", "--cpu=1"]))
        case "word":
            words.insert(draw.randrange(len(words) + 1), draw.choice(WORDS))
        case "twice" if words:
            words.append(draw.choice(words))
        case "cpu":
            words += ["--cpu"]
        case "resume" if command == "train":
            words += ["--resume", draw.choice(["run", "nowhere", "broken-run", "photos"])]
        case "help":
            words += ["--help"]
    return [command, *words]


def snapshot(folder: Path):
    """The content of every file below a folder, and the names of its folders."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }
