"""The notebooks of examples/ run from top to bottom, cell by cell, on the embedded digits."""

import ast
import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.skipif(
    not EXAMPLES.exists(), reason="the tests run outside the repository"
)


def notebook(name):
    return json.loads((EXAMPLES / f"{name}.ipynb").read_text())


def run_cells(name):
    """Run a notebook's code as a kernel would: what its cells left, and what each showed."""
    names, shown = {"__name__": "__main__"}, []
    for cell in notebook(name)["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)
            shown.append(display(value))
    return names, shown


def display(value):
    """What Jupyter shows: a picture or a table where the value makes one, else its repr."""
    for method in ("_repr_png_", "_repr_html_"):
        if hasattr(value, method):
            return getattr(value, method)()
    return repr(value)


def pictures(shown):
    return [one for one in shown if isinstance(one, bytes) and one.startswith(b"\x89PNG")]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_train_and_look(tmp_path):
    names, shown = run_cells("train_and_look")
    assert (tmp_path / "runs/notebook/report.html").exists()
    assert "trainable parameters" in shown[1]
    assert "±" in shown[2]
    assert len(pictures(shown)) == 4
    assert names["found"].psnr > 12


def test_your_own_images():
    names, shown = run_cells("your_own_images")
    assert names["images"].shape == (40, 1, 28, 28)
    assert len(pictures(shown)) == 4


def test_anomaly_search():
    names, shown = run_cells("anomaly_search")
    assert names["auroc"] > 0.9
    assert len(pictures(shown)) == 1


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES.glob("*.ipynb")])
def test_notebooks_are_short_and_carry_no_outputs(name):
    content = notebook(name)
    assert content["nbformat"] == 4
    assert 5 <= len(content["cells"]) <= 15
    for cell in content["cells"]:
        assert {"id", "cell_type", "source", "metadata"} <= cell.keys()
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_every_notebook_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == {
        "train_and_look",
        "your_own_images",
        "anomaly_search",
    }
