"""The tables of faults: `python -m tests.faults [--quick | --full] [--into PAGE] [MODULE ...]`.

Each module has a table of its own, so that they can be made one at a time; of those that take long,
`fuzz:READER` and the like make some lines.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tests.faults import FULL, MODULES, QUICK, Outcome, parts_of, proofs

BEGIN, END = "<!-- faults: {} -->", "<!-- end of {} -->"
"""Around the table of a module in a page."""
HEAD = ("| fault | tried | as it should | what that means |", "| --- | ---: | ---: | --- |")


def row(outcome: Outcome) -> str:
    """A line of the table, in Markdown."""
    mark = "" if outcome.holds else "**NO** "
    note = outcome.note.replace("|", "\\|").replace("\n", " ")
    return f"| {outcome.fault} | {outcome.tried:,} | {outcome.passed:,} | {mark}{note} |"


def main(words: list[str] | None = None) -> int:
    """Print the table a module at a time; the exit code says whether all of it holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--quick", action="store_true", help="a few of each kind (as without)")
    amount.add_argument("--full", action="store_true", help="all of them")
    parser.add_argument("--seconds", type=float, help="of a proof without an end of its own")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the tables into a page")
    known = proofs()
    modules = [*known, *(f"{name}:{part}" for name in known for part in parts_of(known[name]))]
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    asked = parser.parse_args(words)
    size = FULL if asked.full else QUICK
    size = size if asked.seconds is None else replace(size, seconds=asked.seconds)
    if unknown := set(asked.modules) - set(modules):
        parser.error(f"no module {', '.join(sorted(unknown))}; there are {', '.join(modules)}")
    good = True
    for word in asked.modules or known:
        name, _, part = word.partition(":")
        found = known[name](size, part) if part else known[name](size)
        good = good and bool(found) and all(outcome.holds for outcome in found)
        rows = [row(outcome) for outcome in found]
        print(*HEAD, *rows, sep="\n", flush=True)
        if asked.into is not None:
            asked.into.write_text(placed(name, rows, asked.into.read_text(), keep=bool(part)))
    return 0 if good else 1


def placed(name: str, rows: list[str], page: str, *, keep: bool = False) -> str:
    """A page with the table of a module in the place of the one that it has.

    Args:
        name: The module.
        rows: Lines of its new table.
        page: The text of the page.
        keep: Whether lines that it has of other faults stay, each in its place.
    """
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = page.split(begin)
    old, after = rest.split(end)
    if keep:
        new = {_fault(line): line for line in rows}
        kept = [new.pop(_fault(line), line) for line in old.split("\n")[3:-1]]
        rows = [*kept, *new.values()]
    return "\n".join([f"{before}{begin}", *HEAD, *rows, f"{end}{after}"])


def _fault(line: str) -> str:
    return line.split("|")[1]


if __name__ == "__main__":
    sys.exit(main())
