"""`convvae train`."""

from __future__ import annotations

from pathlib import Path

from convvae.cli.flags import parse, said_once, take_option
from convvae.config import TrainConfig
from convvae.training.recipes import load_recipe


def train(args: list[str]) -> None:
    """Train a model on images and write a run folder (--resume RUN continues one)."""
    folder = take_option(args, "--resume")
    if folder is None:
        with said_once():
            recipe, init = (take_option(list(args), flag) for flag in ("--recipe", "--init"))
            defaults = load_recipe(recipe) if recipe else {}
            if init:
                from convvae.training.fine_tuning import settings_like

                defaults |= settings_like(init)
        config = parse(TrainConfig, args, "convvae train", defaults)
    else:
        from convvae.training.resuming import settings_of

        config = parse(TrainConfig, args, "convvae train", dict(settings_of(Path(folder))))
    from convvae.cli.console import FlagConsole
    from convvae.training.run import train as run_training

    run_training(config, FlagConsole(), resume=None if folder is None else Path(folder))
