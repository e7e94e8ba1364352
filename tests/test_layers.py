"""The house's one-way imports: a module imports only from modules above it, in its folder too.

`python tests/test_layers.py [PACKAGE]` prints its rooms, floors, arrows and lengths.
"""

import ast
import re
import statistics
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "convvae"

# From the top of the house to its bottom. A room may import only rooms above it; "" is the house
# itself, every other entry a folder in it, whose `__init__` is a room like the others.
# fmt: off
ROOMS = {
    "": [
        "errors", "files", "parts", "config", "runtime", "images", "data", "distributions",
        "networks", "model", "evaluation", "figures", "anomalies", "training", "interop",
        "explorer", "estimator", "api", "cli", "__main__", "__init__",
    ],
    "anomalies": [
        "quantities", "scores", "calibration", "choosing", "heatmaps", "carried", "request",
        "pictures", "report", "detection", "__init__",
    ],
    "cli": [
        "options", "help", "flags", "console", "common", "train", "reconstruct", "generate",
        "sharding", "evaluate", "compare", "figures", "report", "explore", "info", "models",
        "import_", "export", "__init__", "anomalies", "encode", "completed", "impute", "denoise",
        "edit", "merge", "shard", "main",
    ],
    "config": [
        "base", "condition", "settings", "__init__",
    ],
    "data": [
        "decode", "items", "progress", "pixels", "stored", "images", "streams", "published",
        "cache", "own", "sources", "sharding", "in_memory", "__init__", "rows",
    ],
    "distributions": [
        "display", "gaussian", "priors", "posteriors", "kl", "rounded", "likelihoods", "colour",
        "interleaved", "flows", "tables", "__init__",
    ],
    "evaluation": [
        "estimates", "shards", "encode", "encoding_files", "bounds", "groups", "reconstruction",
        "evaluate", "label_evidence", "latents", "fitted_priors", "distances", "disentanglement",
        "probes", "directions", "sample_quality", "doctor", "scorecard", "runs", "masks",
        "imputation", "__init__",
    ],
    "explorer": [
        "newest", "planes", "templates", "tiles", "drawing", "upload", "scene", "standalone",
        "walk", "levels", "told", "toward", "controls", "page", "door", "log_lines", "handover",
        "server", "__init__",
    ],
    "figures": [
        "style", "curves", "compared", "pictures", "space", "__init__", "gallery", "report",
    ],
    "images": [
        "geometry", "sheets", "ssim", "__init__",
    ],
    "interop": [
        "layout", "mlx", "torch_vae", "notebook", "reading", "weights", "judging", "graphs", "onnx",
        "torch_export", "hub", "__init__",
    ],
    "model": [
        "ladder", "vae", "conditions", "objectives", "semi_supervised", "checkpoint", "run_folder",
        "__init__",
    ],
    "networks": [
        "base", "upconv", "strided", "pooled", "residual", "ladder", "classifier", "__init__",
    ],
    "training": [
        "recipes", "holdout", "missing", "augment", "schedules", "muon", "ranks", "heartbeat",
        "meeting", "learner", "saving", "cuda_graph", "feeds", "distributed", "callbacks",
        "progress", "tensorboard", "loop", "records", "resuming", "fine_tuning", "folders",
        "recovery", "signals", "run", "__init__",
    ],
    "data/cache": [
        "worker", "pool", "check", "ingest", "store", "scratch", "__init__",
    ],
    "data/own": [
        "folders", "one_file", "archives", "npy", "arrays", "tables", "factors", "hub",
        "shards", "load", "__init__",
    ],
    "data/published": [
        "idx", "mnist", "colour", "sprites", "download", "__init__",
    ],
    "evaluation/sample_quality": [
        "classifier", "features", "measures", "comparison", "__init__",
    ],
}
# fmt: on
MOST_ROOMS = 20
MOST_FLOORS = 11
MOST_LINES = 500
"""Of a module, its own or of the tests."""
LONGEST = 50
"""Lines of a function, its docstring left out."""
LONGER = {
    "estimator.__init__": 76,  # scikit-learn wants every parameter written out, twice
    "explorer/drawing._words": 58,
    "interop/hub.model_card": 55,
    "explorer/drawing.__init__": 51,
}
"""Functions that are longer, and how long each may be: to be shortened, not to be added to."""
OLD_NAMES = (
    r"\b(Facts|Pace|Plan|Position)\b",
    r"\bconvvae[./](commands|samplequality|alarms|similarity|captured|tracking|records|encodings|"
    r"embeddings|anomaly|gallery|sheets|samplers|graphs|latents|workers|ingest|archives|learner)\b",
    r"\bconvvae/train\.py\b",
)
"""What classes and modules were called before the rooms had their names."""


def modules(package):
    """Every module of a package by its path in it, as a tuple; a folder's own is its `__init__`."""
    return {
        path.relative_to(package).with_suffix("").parts: path
        for path in sorted(package.rglob("*.py"))
    }


def imported(path, known):
    """The modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *parts = name.split(".")
            if first != "convvae":
                continue
            while tuple(parts) not in known and (*parts, "__init__") not in known:
                parts.pop()
            yield tuple(parts) if tuple(parts) in known else (*parts, "__init__")


def arrows(package):
    """Every import between two rooms of one folder: (folder, importer, imported)."""
    known = modules(package)
    found = set()
    for here, path in known.items():
        for there in imported(path, known):
            depth = 0
            while here[depth] == there[depth] and depth < min(len(here), len(there)) - 1:
                depth += 1
            if here[depth] != there[depth]:
                found.add(("/".join(here[:depth]), here[depth], there[depth]))
    return found


def floors(package):
    """Rooms on the longest way through the house from its top to its bottom."""
    below = {}
    for folder, room, above in arrows(package):
        if folder == "":
            below.setdefault(room, set()).add(above)

    def height(room):
        return 1 + max((height(above) for above in below.get(room, ())), default=0)

    return max(height(room) for room in below)


def rooms(package):
    """The rooms at the top of a package; its own `__init__` is none."""
    return {parts[0] for parts in modules(package)} - {"__init__"}


def summary(package):
    """What the house looks like, a line each."""
    lengths = [len(path.read_text().splitlines()) for path in modules(package).values()]
    between = arrows(package)
    top = sum(folder == "" and "__init__" not in pair for folder, *pair in between)
    return {
        "rooms": len(rooms(package)),
        "floors": floors(package),
        "arrows between rooms": top,
        "arrows inside rooms": sum(folder != "" for folder, *_ in between),
        "modules": len(lengths),
        "median module, lines": statistics.median(lengths),
        "longest module, lines": max(lengths),
    }


@pytest.mark.parametrize("folder", ROOMS)
def test_the_table_has_every_room(folder):
    place = PACKAGE / folder
    present = {
        path.stem
        for path in place.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }
    assert set(ROOMS[folder]) == present
    assert len(ROOMS[folder]) == len(present)


def test_every_import_points_upwards():
    for folder, room, above in sorted(arrows(PACKAGE)):
        order = ROOMS[folder]
        assert order.index(above) < order.index(room), f"{folder}: {room} imports {above}"


def test_the_house_is_small():
    assert len(rooms(PACKAGE)) <= MOST_ROOMS
    assert floors(PACKAGE) <= MOST_FLOORS


@pytest.mark.parametrize("folder", ["convvae", "tests", "benchmarks"])
def test_no_module_is_too_long(folder):
    for path in (PACKAGE.parent / folder).rglob("*.py"):
        if ".envs" not in path.parts:
            assert len(path.read_text().splitlines()) < MOST_LINES, path


def functions(path):
    """Name and lines of every function of a file, docstrings left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def test_functions_are_short():
    found = {}
    for parts, path in modules(PACKAGE).items():
        for name, lines in functions(path):
            if lines > LONGEST:
                found["/".join(parts) + f".{name}"] = lines
    assert {name for name, lines in found.items() if lines > LONGER.get(name, LONGEST)} == set()
    assert LONGER.keys() <= found.keys(), "a function that is short now needs no leave to be long"


def test_no_old_name_is_left():
    root = PACKAGE.parent
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE / "explorer" / "static").iterdir()]
    files += [
        *root.glob("*.md"),
        *(root / "docs").glob("*.md"),
        *(root / "benchmarks").glob("*.py"),
    ]
    for path in files:
        text = path.read_text()
        for pattern in OLD_NAMES:
            assert re.search(pattern, text) is None, (path, re.search(pattern, text))


def test_no_test_imports_from_another():
    """What two tests need is a fixture, or stands in a module that is no test."""
    folder = Path(__file__).parent
    tests = {path.stem for path in folder.rglob("test_*.py")}
    names = [path.name for path in folder.rglob("test_*.py")]
    assert len(names) == len(set(names)), "two test files of one name hide each other"
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [alias.name for alias in node.names]
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not tests & {name.rpartition(".")[2] for name in names}, path


def test_an_upward_arrow_is_seen(tmp_path):
    (tmp_path / "a").mkdir()
    for name, text in (
        ("a/__init__", ""),
        ("a/x", "from convvae.a import y\nfrom convvae.b import z"),
        ("a/y", ""),
        ("b", "def late():\n    import convvae.a.x"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    assert arrows(tmp_path) == {("a", "x", "y"), ("", "a", "b"), ("", "b", "a")}


def test_no_constant_has_two_meanings():
    """A name in capitals that two modules define has one value."""
    found = {}
    for parts, path in modules(PACKAGE).items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign):
                for name in ast.walk(ast.Tuple(node.targets)):
                    if isinstance(name, ast.Name) and name.id.isupper() and name.id[0] != "_":
                        found.setdefault(name.id, {})["/".join(parts)] = ast.unparse(node.value)
    # What several modules of a folder say each of themselves.
    several = {"STRIDE"}
    for name, places in found.items():
        if name not in several:
            assert len(set(places.values())) == 1, (name, places)


if __name__ == "__main__":
    for what, value in summary(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE).items():
        print(f"{what:<24} {value}")
