"""What a run may be continued with: the rules of `train(config, resume=folder)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convvae.config import TrainConfig
from convvae.data import canonical
from convvae.errors import ConfigError, ImageSizeError, UsageError
from convvae.model.run_folder import RunFolder

RESUMABLE = frozenset(
    {
        *("data_dir", "device", "epochs", "log_every", "patience", "preview", "report"),
        *("rollbacks", "save_every", "tensorboard"),
    }
)
"""Settings that a resumed run may change; all others decide its result, where it has one."""
LEFT_OPEN = {"precision": "auto", "compile": "auto", "out": None}
"""Settings that the run settled, and the values that leave them as they are."""


def settings_of(folder: Path) -> TrainConfig:
    """The settings that the run in a folder was begun or last continued with.

    Raises:
        ModelFileError: the folder holds no run that can be continued.
        ConfigError: its `config.json` is not what `convvae train` wrote.
    """
    run = RunFolder.open(folder)
    try:
        return TrainConfig.checked(run.read_config()["settings"], str(run.config))
    except ImageSizeError as error:
        raise ConfigError(f"{run.config}: {error}") from error


def continued(config: TrainConfig, folder: Path) -> TrainConfig:
    """The settings to continue a run with: those asked for, if they leave its result alone.

    Raises:
        UsageError: a setting would change the run's result.
        ModelFileError, ConfigError: as `settings_of`.
    """
    original = settings_of(folder)
    settled: dict[str, Any] = {
        name: getattr(original, name)
        for name, left in LEFT_OPEN.items()
        if getattr(config, name) == left
    }
    config = config.model_copy(update={**settled, "data": canonical(config.data)})
    stretched = config.schedule != "constant" or config.kl_schedule == "cyclical"
    for name in TrainConfig.model_fields:
        was, now = getattr(original, name), getattr(config, name)
        fixed = name not in RESUMABLE or (name == "epochs" and stretched)
        if was != now and fixed:
            value = repr(str(now)) if isinstance(now, str | Path) else now
            raise UsageError(
                f"`{name}={value}` contradicts the run in {folder}, which has {was}; resume "
                "without it, or start a new run"
            )
    return config
