"""`convvae train`."""

from __future__ import annotations

from pathlib import Path

from convvae.cli.flags import parse, take_option
from convvae.config import TrainConfig
from convvae.errors import UsageError
from convvae.training.recipes import load_recipe

RESUMABLE = frozenset(
    {"data_dir", "device", "epochs", "log_every", "patience", "preview", "report", "tensorboard"}
)
"""Settings that a resumed run may change; all others decide its result."""


def train(args: list[str]) -> None:
    """Train a model on images and write a run folder (--resume RUN continues one)."""
    folder = take_option(args, "--resume")
    if folder is None:
        recipe = take_option(list(args), "--recipe")
        config = parse(TrainConfig, args, "convvae train", load_recipe(recipe) if recipe else {})
    else:
        config = _resumed_config(Path(folder), args)
    from rich.console import Console

    from convvae.training.run import train as run_training

    run_training(config, Console(), resume=None if folder is None else Path(folder))


def _resumed_config(folder: Path, args: list[str]) -> TrainConfig:
    """The settings of a run folder with the few that a resumed run may change.

    Raises:
        UsageError: a flag would change the run's result.
    """
    from convvae.model.run_folder import RunFolder

    saved = RunFolder.open(folder).read_config()["settings"]
    from convvae.data import canonical

    original = TrainConfig.checked(saved, str(folder / "config.json"))
    config = parse(TrainConfig, args, "convvae train", dict(original))
    config = config.model_copy(update={"data": canonical(config.data)})
    stretched = config.schedule != "constant" or config.kl_schedule == "cyclical"
    for name in TrainConfig.model_fields:
        was, now = getattr(original, name), getattr(config, name)
        fixed = name not in RESUMABLE or (name == "epochs" and stretched)
        if was != now and fixed:
            raise UsageError(
                f"--{name.replace('_', '-')} {now} contradicts the run in {folder}, which has "
                f"{was}; resume without it, or start a new run"
            )
    return config
