"""The README is true: its commands run, its Python runs, its tables and its tree match the code."""

import re
import shlex
from pathlib import Path

import pytest

import convvae
from convvae import errors
from convvae.cli.main import main
from convvae.config import Network, recipes
from convvae.model.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.skipif(
    not (ROOT / "Makefile").exists(), reason="the tests run outside the repository"
)


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def commands():
    lines = "".join(blocks("console")).splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("convvae ")]


def shortened(words):
    """A training command with little to do: few images, one epoch, small images."""
    if words[0] == "train" and "--resume" not in words:
        return [
            *words, "--limit", "128", "--epochs", "1", "--max-filters", "8",
            "--no-preview", "--no-report",
        ]  # fmt: skip
    if words[0] in ("evaluate", "figures", "report"):
        fewer = ["--quality", "30"] if "--quality" in words else []
        return [*words, "--limit", "20", *fewer]
    if words[0] == "encode":
        return [*words, "--limit", "20"]
    if words[0] == "anomalies":
        words[words.index("--limit") + 1] = "20"
    if words[0] == "explore":
        # A server would not end by itself: see test_explorer_browser.py.
        page = [] if "--html" in words else ["--html", "live.html"]
        return [*words, "--limit", "20", *page]
    return words


def test_every_command_of_the_readme_runs_in_its_order(tmp_path, monkeypatch, mnist_dir, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_DATA", str(mnist_dir.resolve()))
    found = commands()
    assert len(found) >= 9
    for command in found:
        words = shlex.split(command)[1:]
        assert main(shortened(words)) == 0, (command, capsys.readouterr().err)
    for written in ("samples.png", "out/reconstructions-test.png", "runs/mnist-mlx-cvae"):
        assert (tmp_path / written).exists(), written


def test_the_python_of_the_readme_runs():
    (code,) = blocks("python")
    names = {}
    exec(code, names)
    assert names["terms"].bound.shape == (16,)


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "".join(blocks("console")), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_numeric_tests_of_the_makefile_exist():
    listed = re.search(r"^NUMERIC := (.*?[^\\])$", (ROOT / "Makefile").read_text(), re.M | re.S)
    assert listed is not None
    named = [word for word in listed[1].split() if word != "\\"]
    assert len(named) > 5
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_the_table_of_exit_codes_is_that_of_the_classes():
    table = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", README, flags=re.MULTILINE))
    expected = {str(kind.exit_code): kind for kind in errors.ConvvaeError.__subclasses__()}
    assert table.keys() == expected.keys() | {"0"}
    for code, kind in expected.items():
        assert table[code] == (kind.__doc__ or "").strip().splitlines()[0].rstrip(".")


def test_the_tree_names_every_module_and_only_those():
    package = Path(convvae.__file__).parent
    tree = next(block for block in blocks("") if block.startswith("convvae/"))
    listed = set(re.findall(r"^  (\S+)", tree, flags=re.MULTILINE))
    present = {
        path.name + "/" * path.is_dir()
        for path in package.iterdir()
        if not path.name.startswith(("_", ".")) and path.name != "py.typed"
    }
    assert listed == present


def test_the_results_are_those_of_the_recorded_runs():
    runs = {
        "mlx-cvae": ROOT / "convvae" / "pretrained" / "mlx-cvae",
        "lux-cvae": ROOT / "benchmarks" / "results" / "lux-cvae-5000",
    }
    rows = re.findall(r"^\| `(\S+)`.*? \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", README, re.MULTILINE)
    assert len(rows) == 6
    for name, epoch, published, ours in rows:
        recorded = next(
            row["train_squared_error_and_kl"]
            for row in RunFolder(runs[name]).read_metrics()
            if (row["event"], row["epoch"]) == ("epoch", int(epoch))
        )
        assert ours == f"{recorded:,.0f}", (name, epoch)
        assert recorded <= float(published.replace(",", ""))


def test_every_network_and_recipe_is_in_the_readme():
    for name in [*Network.__args__, *recipes()]:
        assert f"`{name}`" in README or f" {name} " in README, name


def test_no_module_is_too_long():
    for path in (ROOT / "convvae").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 500, path
