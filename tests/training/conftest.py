"""What the tests of training share: a run of a test ends without its pictures, unless it asks."""

import pytest


@pytest.fixture(autouse=True)
def _without_pictures(request, monkeypatch):
    """Their drawing takes longer than the training."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("convvae.training.run.draw_pictures", lambda *_: None)


@pytest.fixture
def pictures():
    """For a test that looks at the pictures of a finished run."""
