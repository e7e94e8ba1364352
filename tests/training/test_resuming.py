import pytest

from convvae.errors import UsageError
from convvae.training.resuming import continued, settings_of
from convvae.training.run import train


def begun(run):
    """The settings that a finished run was begun with, as Python wrote them."""
    return settings_of(run.path).model_copy(update={"precision": "auto", "compile": "auto"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 0.5}, "`lr=0.5` contradicts the run in .*, which has 0.001"),
        ({"data": "mnist"}, "`data='mnist'` contradicts the run in .*, which has digits"),
        ({"seed": 7}, "`seed=7` contradicts"),
        ({"drop_last": True}, "`drop_last=True` contradicts"),
    ],
)
def test_a_setting_that_would_change_the_result_is_refused(change, said, finished_run):
    before = finished_run.metrics.read_bytes()
    with pytest.raises(UsageError, match=said):
        train(begun(finished_run).model_copy(update=change), resume=finished_run.path)
    assert finished_run.metrics.read_bytes() == before


def test_other_settings_may_change_and_what_the_run_settled_stays(finished_run):
    config = begun(finished_run)
    wanted = {"epochs": 9, "patience": 3, "log_every": 7, "report": False, "out": None}
    found = continued(config.model_copy(update=wanted), finished_run.path)
    original = settings_of(finished_run.path)
    assert found == original.model_copy(update=wanted | {"out": original.out})


@pytest.mark.parametrize("course", [{"schedule": "cosine"}, {"kl_schedule": "cyclical"}])
def test_a_course_over_the_whole_run_is_not_stretched(course, finished_run, monkeypatch):
    original = settings_of(finished_run.path).model_copy(update=course)
    monkeypatch.setattr("convvae.training.resuming.settings_of", lambda _: original)
    assert continued(original, finished_run.path) == original
    with pytest.raises(UsageError, match="`epochs=9` contradicts"):
        continued(original.model_copy(update={"epochs": 9}), finished_run.path)
