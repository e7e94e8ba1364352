"""README and reference pages are true: commands and Python run, tables, tree and links match."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
from short_commands import shortened

import convvae
from convvae import errors
from convvae.cli.main import COMMANDS, main
from convvae.model.run_folder import RunFolder
from convvae.parts import LikelihoodName, Network, ObjectiveName, PriorName
from convvae.training.recipes import recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
REFERENCE = {
    name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("commands", "parts", "tutorials")
}
MOST_WORDS = 900
"""Of the README, which is for people who do not develop convvae."""

pytestmark = pytest.mark.skipif(
    not (ROOT / "Makefile").exists(), reason="the tests run outside the repository"
)


def blocks(language, page=README):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def commands(page):
    lines = "".join(blocks("console", page)).splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("convvae ")]


@pytest.fixture
def run_commands(tmp_path, monkeypatch, fewer_digits, capsys):
    """Runs the commands of a page in an empty folder, which it returns."""

    def run(page, least):
        monkeypatch.chdir(tmp_path)
        found = commands(page)
        assert len(found) >= least
        for command in found:
            words = shlex.split(command)[1:]
            assert main(shortened(words)) == 0, (command, capsys.readouterr().err)
        return tmp_path

    return run


def test_every_command_of_the_readme_runs_in_its_order(run_commands):
    folder = run_commands(README, 5)
    for written in ("runs/digits", "samples.png", "digits.html"):
        assert (folder / written).exists(), written


def test_every_command_of_the_reference_runs_in_its_order(run_commands):
    folder = run_commands(REFERENCE["commands"], 20)
    for written in ("samples.png", "out/reconstructions-test.png", "runs/mnist-mlx-cvae"):
        assert (folder / written).exists(), written


def test_every_command_is_in_the_reference():
    named = {shlex.split(command)[1] for command in commands(REFERENCE["commands"])}
    assert named == set(COMMANDS)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (code,) = blocks("python")
    lines = [line for line in code.splitlines() if line and not line.startswith(("from", "import"))]
    assert len(lines) <= 10
    exec(code.replace("epochs=10", "epochs=1"), {})
    assert (tmp_path / "samples.png").stat().st_size > 1000


def test_the_readme_is_short():
    assert len(README.split()) <= MOST_WORDS


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *Path(ROOT / "docs").glob("*.md")]
)
def test_what_a_page_links_to_is_there(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


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
    table = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", REFERENCE["commands"], re.MULTILINE))
    expected = {str(kind.exit_code): kind for kind in errors.kinds()}
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
    row = r"^\| `(\S+)`.*? \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$"
    rows = re.findall(row, REFERENCE["tutorials"], re.MULTILINE)
    assert len(rows) == 6
    for name, epoch, published, ours in rows:
        recorded = next(
            row["train_squared_error_and_kl"]
            for row in RunFolder(runs[name]).read_metrics()
            if (row["event"], row["epoch"]) == ("epoch", int(epoch))
        )
        assert ours == f"{recorded:,.0f}", (name, epoch)
        assert recorded <= float(published.replace(",", ""))


def test_every_part_and_recipe_has_its_line():
    for names in (Network, LikelihoodName, PriorName):
        for name in get_args(names):
            assert f"`{name}`" in REFERENCE["parts"], name
    for name in get_args(ObjectiveName)[1:]:
        assert name in REFERENCE["parts"], name
    for name in recipes():
        assert f"--recipe {name} " in REFERENCE["commands"], name


def test_every_test_that_is_named_is_there():
    """In the Makefile, the README, CONTRIBUTING and the guides."""
    pages = [ROOT / "Makefile", *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(r"\btests/[\w/*]+(?:\.py)?", page.read_text())
    }
    assert len(named) > 20
    assert {one for one in named if not any(ROOT.glob(one[1].rstrip("/")))} == set()
