"""Where processes meet."""

import threading
import time
from datetime import timedelta

from convvae.training import meeting
from convvae.training.meeting import meeting_place
from tests.faults.together import free_port

PATIENCE = timedelta(seconds=30)


def test_a_first_process_that_comes_late_is_waited_for(monkeypatch):
    """The store gives up long before the patience ends, and is tried again."""
    monkeypatch.setattr(meeting, "_TRY", timedelta(milliseconds=100))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    found = []
    second = threading.Thread(target=lambda: found.append(meeting_place(1, 2, PATIENCE)))
    second.start()
    time.sleep(2)
    first = meeting_place(0, 2, PATIENCE)  # it holds the store
    first.set("said", "here")
    second.join()
    assert found[0].get("said") == b"here"
