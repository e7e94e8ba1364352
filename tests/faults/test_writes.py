"""Some faults at some system calls of some commands; `python -m tests.faults` has all of them."""

import pytest

from tests.faults import QUICK, Outcome
from tests.faults.apart import apart
from tests.faults.syscalls import UNWATCHED


@pytest.fixture(scope="module")
def lines():
    """Lines of the table, made by one process: it takes longer to start than to prove."""
    proofs = ("writes:encode to .npz", "console", "disk", "writes:a careless write")
    found = apart(QUICK, *proofs, "no_such_module")
    if found[0].fault == UNWATCHED:
        pytest.skip(found[0].note)
    return found


@pytest.fixture
def found(lines):
    """Those of the proofs that there are."""
    return lines[:-1]


def test_some_faults_end_as_they_should(found):
    good = [one for one in found if "careless" not in one.fault and "in memory" not in one.fault]
    assert len(good) == 5 + 4
    assert [outcome for outcome in good if not outcome.holds] == []


def test_a_disk_that_is_really_full(found):
    """A store to a mapped page without room kills, and is no system call."""
    full = [outcome for outcome in found if "in memory" in outcome.fault]
    assert len(full) == 2
    if any(word in full[0].note for word in ("unshare", "mount")):
        pytest.skip(f"no process may have a disk of its own here: {full[0].note}")
    assert [outcome for outcome in full if not outcome.holds] == []


def test_a_careless_write_is_seen(found):
    wrong = {one.fault.partition(": ")[2] for one in found if not one.holds}
    assert wrong == {
        "a kill",
        "a kill in the middle of a write",
        "a write cut short",
        "a disk that is full from then on",
        "a disk that fails once",
    }


def test_a_proof_that_breaks_is_a_line_that_does_not_hold(lines):
    broken = lines[-1]
    assert isinstance(broken, Outcome)
    assert not broken.holds
    assert "ModuleNotFoundError" in broken.note
    assert "no_such_module" in broken.note
