"""The house's one-way imports: a module imports only from modules above it."""

import ast
from pathlib import Path

import pytest

import convvae

PACKAGE = Path(convvae.__file__).parent

# From the top of the house to its bottom; each room with the rooms it may import.
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "config": {"errors", "files"},
    "runtime": {"errors"},
    "sheets": {"errors", "files"},
    "distributions": {"errors", "sheets"},
    "networks": {"config"},
    "data": {"errors", "files", "config", "runtime"},
    "augment": {"config", "runtime"},
    "ladder": {"distributions", "networks"},
    "model": {"config", "distributions", "networks", "ladder"},
    "objectives": {"config", "distributions", "model"},
    "checkpoint": {"errors", "config", "files", "model"},
    "similarity": set(),
    "distances": set(),
    "evaluate": {"runtime", "distributions", "data", "model", "objectives", "similarity"},
    "latents": {"errors", "runtime", "distributions", "model", "evaluate"},
    "samplers": {"runtime", "data", "distributions", "model", "evaluate"},
    "encodings": {"data", "distributions", "evaluate", "model", "objectives"},
    "embeddings": {"errors", "files", "data", "encodings"},
    "anomaly": {"errors", "data", "distances", "evaluate", "encodings", "model"},
    "doctor": {"config", "distributions", "data", "model", "checkpoint", "evaluate"},
    "probes": {"distances", "evaluate"},
    "samplequality": {
        "errors", "runtime", "data", "sheets", "distances", "model", "evaluate",
    },
    "scorecard": {
        "files", "model", "checkpoint", "evaluate", "doctor", "probes", "samplequality",
    },
    "figures": {"errors", "files", "sheets"},
    "gallery": {
        "errors", "data", "sheets", "model", "objectives", "evaluate", "latents", "figures",
    },
    "report": {
        "errors", "config", "files", "checkpoint", "evaluate", "doctor", "scorecard", "figures",
        "gallery",
    },
    "muon": set(),
    "learner": {
        "muon", "errors", "config", "runtime", "networks", "model", "objectives", "checkpoint",
    },
    "captured": {"augment", "data", "runtime", "learner"},
    "callbacks": {"config", "model", "objectives", "checkpoint", "learner"},
    "progress": {"model", "objectives", "learner", "callbacks"},
    "tracking": {"errors", "data", "model", "evaluate", "sheets", "callbacks"},
    "records": {
        "errors", "config", "files", "runtime", "data", "sheets", "model", "checkpoint", "evaluate",
        "figures", "gallery", "report", "learner",
    },
    "holdout": {"config", "data", "runtime"},
    "loop": {
        "augment", "errors", "config", "runtime", "data", "objectives", "checkpoint", "evaluate",
        "learner", "captured", "callbacks",
    },
    "training": {
        "errors", "config", "runtime", "data", "model", "objectives", "checkpoint", "evaluate",
        "doctor", "sheets", "learner", "captured", "callbacks", "progress", "tracking", "records",
        "loop", "holdout",
    },
    "interop": {"errors", "config", "files", "distributions", "model", "checkpoint"},
    "alarms": {
        "errors", "files", "data", "model", "evaluate", "encodings", "anomaly", "figures",
        "progress",
    },
    "estimator": {
        "errors", "config", "runtime", "data", "model", "objectives", "checkpoint", "evaluate",
        "learner", "captured", "loop", "training",
    },
    "explorer": {
        "errors", "files", "runtime", "data", "sheets", "model", "evaluate", "latents", "encodings",
    },
    "flags": {"errors", "config"},
}  # fmt: skip
ROOMS = [*MAY_IMPORT, "commands", "cli", "__init__"]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = (
                [f"convvae.{alias.name}" for alias in node.names]
                if module == "convvae"
                else [module]
            )
        found |= {name.split(".")[1] for name in names if name.startswith("convvae.")}
    return found - {room(path)}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_the_rooms_above_it(path):
    assert room(path) in ROOMS, "a new room: give it a place in MAY_IMPORT"
    if room(path) in MAY_IMPORT:
        assert imported_rooms(path) <= MAY_IMPORT[room(path)]


def test_the_allowed_imports_all_point_upwards():
    order = list(MAY_IMPORT)
    for name, allowed in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(name) for other in allowed), name
