"""The table of faults: its form, and that a proof that fails is seen."""

import re
from pathlib import Path

import pytest

from tests import faults
from tests.faults import Outcome
from tests.faults.__main__ import BEGIN, END, HEAD, main, placed, row

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


@pytest.fixture
def one(monkeypatch):
    """A table of one proof; call it with what that finds."""

    def with_(*found):
        monkeypatch.setattr("tests.faults.__main__.proofs", lambda: {"one": lambda _: [*found]})

    return with_


def test_a_line_says_what_was_tried_and_what_came_of_it():
    assert row(Outcome("a kill", 1200, 1200, "a|b\nc")) == "| a kill | 1,200 | 1,200 | a\\|b c |"
    assert row(Outcome("a kill", 2, 1, "file x")) == "| a kill | 2 | 1 | **NO** file x |"


def test_nothing_tried_is_nothing_shown():
    assert not Outcome("a kill", 0, 0).holds


def test_the_exit_code_says_whether_all_holds(one, capsys):
    one(Outcome("a", 1, 1))
    assert main([]) == 0
    one(Outcome("a", 1, 1), Outcome("b", 2, 1))
    assert main(["--full"]) == 1
    one()
    assert main([]) == 1
    assert capsys.readouterr().out.count("| fault |") == 3


def test_a_name_that_is_none_is_refused(one, capsys):
    one(Outcome("a", 1, 1))
    with pytest.raises(SystemExit):
        main(["two"])
    assert "no module two; there are one" in capsys.readouterr().err


def test_every_proof_has_its_function():
    assert all(map(callable, faults.proofs().values()))


def test_the_table_takes_its_place_in_a_page(one, tmp_path):
    one(Outcome("a", 1, 1, "whole"))
    page = tmp_path / "page.md"
    begin, end = BEGIN.format("one"), END.format("one")
    page.write_text(f"before\n{begin}\n| old |\n{end}\nafter\n")
    assert main(["--into", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert lines == [*("before", begin, *HEAD), "| a | 1 | 1 | whole |", *(end, "after")]


def test_a_line_made_alone_takes_the_place_of_the_one_before():
    lines = [BEGIN.format("fuzz"), *HEAD, "| a | 1 | 1 | x |", "| b | 2 | 2 | x |"]
    page = "\n".join([*lines, END.format("fuzz"), ""])
    found = placed("fuzz", ["| a | 9 | 9 | x |"], page, keep=True).splitlines()
    assert found[3:-1] == ["| a | 9 | 9 | x |", "| b | 2 | 2 | x |"]
    found = placed("fuzz", ["| c | 9 | 9 | x |"], page, keep=True).splitlines()
    assert found[-2] == "| c | 9 | 9 | x |"
    assert placed("fuzz", ["| a | 9 | 9 | x |"], page).splitlines()[3:-1] == ["| a | 9 | 9 | x |"]


@pytest.mark.skipif(not PAGE.exists(), reason="the tests run outside the repository")
@pytest.mark.parametrize("name", faults.MODULES)
def test_the_page_has_a_table_of_every_module_in_which_all_holds(name):
    table = PAGE.read_text().split(BEGIN.format(name))[1].split(END.format(name))[0]
    lines = table.strip().splitlines()
    assert tuple(lines[:2]) == HEAD
    assert len(lines) > 2
    for line in lines[2:]:
        _, _, tried, passed, _, _ = re.split(r"(?<!\\)\|", line)
        assert tried == passed, line
