"""The numbers that docs/numbers.md prints are those that its commands print."""

import json
import re
import shlex
from pathlib import Path

import pytest

from convvae.cli.main import main

PAGES = {
    name: (Path(__file__).parents[1] / "docs" / f"{name}.md") for name in ("numbers", "tutorials")
}
WHERE = {
    "bound": ("bound", 1),
    "squared error": ("squared_error", 1),
    "SSIM": ("ssim", 1),
    "KL": ("kl", 1),
    "bound of 10 weights": ("importance_weighted", 1),
    "linear probe": ("probes.linear", 100),
    "nearest neighbours": ("probes.neighbours", 100),
}
"""Name of a number in the table -> its place in what `--json` writes, and its unit there."""

pytestmark = pytest.mark.skipif(
    not PAGES["numbers"].exists(), reason="the tests run outside the repository"
)


def table(start, page="numbers"):
    """The rows of the table whose first line begins so, heading first, as lists of cells."""
    lines = PAGES[page].read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(start))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def quick():
    """Command -> name -> printed number, of the table of commands that take seconds."""
    heading, *rows = table("| `convvae evaluate ...` |")
    found = {}
    for row in rows:
        numbers = dict(zip(heading[1:-1], row[1:-1], strict=True))
        for part in row[-1].split(", "):
            name, number = re.fullmatch(r"(.+?) (-?[\d.]+)(?: %)?", part).groups()
            numbers[name] = number
        found[row[0].strip("`")] = numbers
    return found


def agrees(printed, measured):
    """Whether a number is what is printed, but for its rounding and one unit of the last digit."""
    unit = 10.0 ** -len(printed.partition(".")[2])
    return abs(float(printed) - measured) <= 1.5 * unit


def test_the_tolerance_is_one_unit_beyond_rounding():
    assert agrees("76.8", 76.66)
    assert not agrees("76.8", 76.35)
    assert not agrees("0.847", 0.8494)
    assert not agrees("-142.3", -142.5)


@pytest.mark.parametrize("command", quick())
def test_what_a_command_of_seconds_prints_is_in_the_docs(command, mnist_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVVAE_DATA", str(mnist_dir.resolve()))
    path = tmp_path / "numbers.json"
    assert main(["evaluate", *shlex.split(command), "--json", str(path)]) == 0
    measured = json.loads(path.read_text())
    for name, printed in quick()[command].items():
        place, scale = WHERE[name]
        value = measured
        for key in place.split("."):
            value = value[key]
        assert agrees(printed, scale * value["mean"]), (name, printed, value)


def test_the_same_number_is_printed_everywhere():
    here = quick()["mnist-2d --probe"]
    heading, *rows = table("| `convvae evaluate MODEL --probe")
    column = next(place for place, name in enumerate(heading) if name.startswith("`mnist-2d`"))
    large = {row[0]: row[column].split()[0] for row in rows}
    assert large["SSIM of reconstructions"] == here["SSIM"]
    for name in ("linear probe", "nearest neighbours"):
        assert large[name] == here[name]
    shipped = {
        row[0].strip("`"): row[2].split()[0] for row in table("| pretrained", "tutorials")[1:]
    }
    assert shipped["mnist-2d"] == here["bound"]


def test_the_python_of_the_page_runs(mnist_dir, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGES["numbers"].read_text(), re.M | re.S)
    exec(code.replace("limit=100", "limit=20"), {})
    assert "evaluated on 20 images" in capsys.readouterr().out
