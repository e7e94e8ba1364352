"""Recipes: settings of a training run by name, shipped with the package as TOML."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from convvae.config import TrainConfig
from convvae.errors import UsageError, did_you_mean


def recipes() -> dict[str, Path]:
    """The recipes shipped with the package, name -> TOML file."""
    folder = Path(str(resources.files("convvae"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe, by the names of `TrainConfig` and checked by it.

    Raises:
        UsageError: there is no such recipe.
    """
    known = recipes()
    if name not in known:
        raise UsageError(
            f"no recipe {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}"
        )
    settings = tomllib.loads(known[name].read_text(encoding="utf-8"))
    checked = TrainConfig.checked({"data": "", **settings}, f"recipe {name}")
    return {key: getattr(checked, key) for key in settings}
