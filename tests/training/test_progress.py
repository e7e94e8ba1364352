import io
import threading
from contextlib import closing
from pathlib import Path

import pytest
import torch
from rich.console import Console

from convvae.config import ModelConfig, TrainConfig
from convvae.model.objectives import Means
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE
from convvae.training import progress
from convvae.training.callbacks import Run
from convvae.training.learner import TrainingProgress
from convvae.training.progress import TrainingDisplay

ROW = {
    "epoch": 2,
    "images": 200,
    "train_loss": 105.25,
    "train_bound": -105.25,
    "val_bound": -104.5,
    "validated_on": "test",
    "train_squared_error_and_kl": 8318.4,
    "images_per_second": 1804.0,
    "seconds": 33.26,
}
START = TrainingProgress(epoch=1, images=100)
RUN = Run(
    folder=RunFolder(Path("run")),
    config=TrainConfig(data="digits", epochs=4),
    vae=VAE(ModelConfig(image_size=(8, 8), channels=1, latent_dims=1, max_filters=4)),
    progress=START,
    total_images=400,
    validation=torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
    stop=threading.Event(),
)
MEANS = Means(torch.tensor(90.0), torch.tensor(-100.0), torch.tensor(5.0))
POSITION = TrainingProgress(epoch=1, batch=5, images=150, epoch_images=50, seconds=0.5)


def shown(terminal, *calls):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with closing(TrainingDisplay(console)) as display:
        display.start(RUN)
        for call in calls:
            call(display)
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_an_epoch_is_one_line_with_units(terminal):
    text = shown(terminal, lambda display: display.epoch(ROW, RUN.vae))
    expected = (
        "epoch 2/4  loss 105.25  bound -105.25 (test -104.50) nats/image  "
        "squared error + KL 8,318/batch  1,804 im/s  33.3 s"
    )
    assert expected in text


def test_squared_error_is_left_out_where_it_is_not_defined():
    row = ROW | {"train_squared_error_and_kl": None}
    assert "squared error" not in shown(False, lambda display: display.epoch(row, RUN.vae))


def test_plain_lines_give_the_rate_and_the_time_left_at_the_pace_since_the_start(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def run(display):
        clock[0] = 5.0
        display.step(POSITION, lambda: pytest.fail("read before it was time"))
        clock[0] = 10.0
        display.step(POSITION, lambda: MEANS)
        clock[0] = 20.0
        display.epoch(ROW, RUN.vae)

    lines = shown(False, run).splitlines()
    assert lines[0] == "  epoch 2/4  loss 90.00  bound -105.00  100 im/s  50 s left"
    assert lines[1].endswith("33.3 s  40 s left")


def test_an_epoch_that_was_finished_by_resuming_has_no_pace_yet():
    text = shown(False, lambda display: display.epoch(ROW | {"images": START.images}, RUN.vae))
    assert text.endswith("33.3 s  time left not known yet\n")


def test_on_a_terminal_a_short_epoch_still_moves_the_bar():
    assert "loss 105.25  bound -105.25" in shown(True, lambda display: display.epoch(ROW, RUN.vae))


def test_on_a_terminal_the_bar_shows_them_and_goes_away(monkeypatch):
    monkeypatch.setattr(progress, "LIVE_SECONDS", 0.0)
    text = shown(True, lambda display: display.step(POSITION, lambda: MEANS))
    assert "epoch 2/4" in text
    assert "100 im/s" in text
    assert text.endswith("\x1b[2K") or "\x1b[?25h" in text


def test_a_quiet_console_shows_nothing():
    out = io.StringIO()
    with closing(TrainingDisplay(Console(file=out, quiet=True, force_terminal=True))) as display:
        display.start(RUN)
        display.epoch(ROW, RUN.vae)
    assert out.getvalue() == ""


def test_it_is_due_after_its_interval(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    display = TrainingDisplay(Console(file=io.StringIO()))
    display.start(RUN)
    assert not display.due()
    clock[0] = progress.LINE_SECONDS
    assert display.due()
    display.epoch(ROW, RUN.vae)
    assert not display.due()
