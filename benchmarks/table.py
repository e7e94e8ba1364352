"""Write the tables of docs/performance.md from the result files.

    python -m benchmarks.table

Each result file has its place in the page, between `<!-- FILE -->` and `<!-- /FILE -->`. A number
stands there only if a result file holds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.summary import HEADER, summarise

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def peers_table(result: dict[str, Any]) -> str:
    """The side-by-side comparison, its machine, versions and command."""
    summaries = summarise(result)
    rows = [[f"`{item.name}`: {item.what}", *item.cells()] for item in summaries]
    lines = [markdown(HEADER, rows), ""]
    lines += [f"`{item.name}` is incomplete: {item.error}\n" for item in summaries if item.error]
    images = ", ".join(f"{name} {n:,}" for name, n in result["images"].items())
    lines += [
        f"{result['date']}, {result['rounds']} interleaved rounds, threads {result['threads']}, "
        f"batch {result['batch_size']}; median (lowest–highest). Images timed a round: {images}.",
        "",
        f"Machine: {describe(result['machine'])}.",
        "",
        f"Versions: {versions(result)}.",
        "",
        f"Command: `{result['command']}`",
    ]
    return "\n".join(lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"peers.json": peers_table}
"""Result file -> the function that makes its part of the page."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned right."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, marks, *rows))


def versions(result: dict[str, Any]) -> str:
    """The versions of every package that a peer ran with, each once."""
    rows = [row for peer in result["peers"].values() for row in peer["rounds"]]
    found = {f"{name} {number}" for row in rows for name, number in row["versions"].items()}
    return ", ".join(sorted(found))


def fill(page: str, name: str, content: str) -> str:
    """Replace what stands between the two markers of a result file.

    Raises:
        ValueError: the page does not have the markers, once each.
    """
    pattern = re.compile(
        rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL
    )
    filled, count = pattern.subn(lambda found: f"{found[1]}{content}\n{found[2]}", page)
    if count != 1:
        raise ValueError(f"the page has the markers of {name} {count} times, not once")
    return filled


def main() -> None:
    """Fill in every part of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        path = RESULTS / name
        known = path.exists()
        content = (
            table(json.loads(path.read_text(encoding="utf-8"))) if known else "Not measured yet."
        )
        page = fill(page, name, content)
        print(f"{name}: {'written' if known else 'no result file yet'}")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
