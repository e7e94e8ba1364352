"""Saved states: inside an epoch, the last three of them, damaged ones, and who may write them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from rich.console import Console

from convvae.errors import (
    ConfigError,
    ModelFileError,
    NonFiniteLossError,
    OutputError,
    RunBusyError,
    RunExistsError,
    StoppedError,
)
from convvae.model.checkpoint import load_metadata, load_tensors, save_tensors
from convvae.model.run_folder import STATES, RunFolder, claim_next
from convvae.training import recovery, saving
from convvae.training.callbacks import Callback
from convvae.training.learner import Learner
from convvae.training.run import train

QUIET = Console(quiet=True)


@pytest.fixture
def often(tiny_config, monkeypatch):
    """A run that saves after every step; two epochs of four batches; one quick picture."""
    draw = "convvae.training.run.draw_pictures"
    monkeypatch.setattr(draw, lambda run, *_: (run.pictures / "samples.png").touch())
    return tiny_config.model_copy(update={"save_every": 1e-9, "preview": False})


class Crash(Callback):
    """Ends a training as a failure does, after so many images: nothing is saved on the way."""

    def __init__(self, images):
        self.images = images

    def step(self, progress, means):
        if progress.images >= self.images:
            raise MemoryError


def crashed(config, images):
    with pytest.raises(MemoryError):
        train(config, QUIET, callbacks=[Crash(images)])
    return RunFolder(config.out)


def positions(run):
    """Images seen at each saved state, from the newest."""
    return [load_tensors(path)[1]["position"]["images"] for path in run.states if path.exists()]


def weights(path):
    return load_tensors(path)[0]


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def flip(path, where=-50):
    content = bytearray(path.read_bytes())
    content[where] ^= 4
    path.write_bytes(content)


def test_a_crash_inside_an_epoch_costs_what_was_done_since_the_last_save(often, tmp_path):
    whole = train(often.model_copy(update={"out": tmp_path / "whole"}), QUIET)
    run = crashed(often, 164)  # in the third batch of the second epoch, before it is saved
    assert positions(run) == [132, 100, 100]  # 100 before and after its validation
    resumed = train(often, QUIET, resume=often.out)
    assert_same(weights(whole.model), weights(resumed.model))
    times = {"seconds", "images_per_second"}
    rows = [
        [{k: v for k, v in row.items() if k not in times} for row in each.read_metrics()]
        for each in (whole, resumed)
    ]
    assert rows[0] == rows[1]


def test_saves_change_nothing_and_are_as_far_apart_as_asked(often, tmp_path):
    seldom = often.model_copy(update={"out": tmp_path / "seldom", "save_every": 10.0})
    assert_same(weights(train(seldom, QUIET).model), weights(train(often, QUIET).model))
    assert positions(RunFolder(seldom.out)) == [200, 100, 0]
    assert positions(RunFolder(often.out)) == [200, 200, 196]


def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(often, tmp_path, capsys):
    whole = train(often.model_copy(update={"out": tmp_path / "whole"}), QUIET)
    run = crashed(often, 164)
    flip(run.states[0])
    run.states[1].write_bytes(run.states[1].read_bytes()[:-1])
    resumed = train(often, Console(width=1000), resume=often.out)
    said = capsys.readouterr().out
    assert "resume.safetensors is damaged" in said
    assert "goes on from the state before, resume-2.safetensors, at image 100" in said
    assert (run.path / "damaged-resume.safetensors").exists()
    assert_same(weights(whole.model), weights(resumed.model))


def test_when_every_state_is_damaged_the_newest_is_named(often):
    run = crashed(often, 164)
    for path in run.states:
        flip(path)
    before = {path: path.read_bytes() for path in run.states}
    with pytest.raises(ModelFileError, match=r"resume\.safetensors is damaged"):
        train(often, QUIET, resume=often.out)
    assert before == {path: path.read_bytes() for path in run.states}


def test_a_failed_save_leaves_the_states_before_it(often, monkeypatch):
    def full(*_):
        raise OutputError("cannot write: No space left on device; free some disk")

    with monkeypatch.context() as patch:
        patch.setattr(saving.Learner, "save", full, raising=True)
        with pytest.raises(OutputError, match="No space left"):
            train(often, QUIET)
    assert RunFolder(often.out).is_unused()
    often = often.model_copy(update={"out": often.out.with_name("b")})
    run = crashed(often, 132)
    with monkeypatch.context() as patch:
        patch.setattr(saving.Learner, "save", full)
        with pytest.raises(OutputError):
            train(often, QUIET, resume=run.path)
    assert positions(run)[0] == 100


def test_a_disk_without_second_names_keeps_its_states(often, monkeypatch):
    def link(*_):
        raise PermissionError

    monkeypatch.setattr(saving.os, "link", link)
    assert positions(train(often, QUIET)) == [200, 200, 196]


@pytest.mark.parametrize(
    ("position", "said"),
    [
        ({"epoch": "3"}, "position: epoch"),
        ({"epoch": [1]}, "position: epoch"),
        ({"batch": 1.5}, "position: batch"),
        ({"sekunden": 1}, "position: sekunden"),
        (7, "position"),
    ],
)
def test_a_position_of_wrong_types_is_refused(position, said, often):
    run = train(often, QUIET)
    for path in run.states:
        tensors, header = load_tensors(path)
        if isinstance(position, dict):
            header["position"] |= position
        else:
            header["position"] = position
        save_tensors(path, tensors, header)
    with pytest.raises(ModelFileError, match=said):
        train(often.model_copy(update={"epochs": 3}), QUIET, resume=run.path)


def test_a_run_without_a_state_begins_again(often, tmp_path):
    whole = train(often.model_copy(update={"out": tmp_path / "whole"}), QUIET)
    run = crashed(often, 32)
    for path in (*run.states, run.metrics):
        path.unlink(missing_ok=True)
    with pytest.raises(RunExistsError, match="`resume='"):
        train(often, QUIET)
    assert_same(weights(whole.model), weights(train(often, QUIET, resume=run.path).model))


def test_a_run_that_lost_its_states_is_not_begun_again(often):
    run = train(often, QUIET)
    for path in run.states:
        path.unlink()
    before = run.model.read_bytes()
    with pytest.raises(ModelFileError, match="no run to resume"):
        train(often, QUIET, resume=run.path)
    assert run.model.read_bytes() == before


def test_a_folder_that_was_made_and_no_more_can_be_taken(often):
    often.out.mkdir()
    with RunFolder(often.out).claimed() as run:
        RunFolder.create(run.path)
    assert load_metadata(train(often, QUIET).model).epochs == often.epochs


HOLD = """
import sys, time
from pathlib import Path
from convvae.model.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).claimed():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_and_let_go_when_it_is_killed(often):
    run = crashed(often, 132)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    with pytest.raises(RunBusyError, match=rf"is at work in .*\(process {holder.pid} on") as caught:
        train(often, QUIET, resume=run.path)
    assert "\n" not in str(caught.value)
    assert before == {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    train(often, QUIET, resume=run.path)


def test_a_new_run_beside_one_that_is_just_beginning_is_refused(often):
    often.out.mkdir()
    with RunFolder(often.out).claimed(), pytest.raises(RunBusyError):
        train(often, QUIET)
    assert sorted(path.name for path in often.out.iterdir()) == [".lock"]


def test_starts_at_once_get_a_folder_each(tmp_path):
    start = threading.Barrier(3)

    def claim():
        start.wait()
        return claim_next("digits", tmp_path / "runs").name

    with ThreadPoolExecutor(3) as threads:
        names = {future.result() for future in [threads.submit(claim) for _ in range(3)]}
    assert names == {"digits", "digits-2", "digits-3"}


@pytest.mark.parametrize("name", ["report.html", "pictures/holiday.png"])
def test_what_a_run_would_write_over_is_refused(name, often):
    theirs = often.out / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(OutputError, match="training would write over it"):
        train(often, QUIET)
    assert theirs.read_text() == "mine"


def test_a_bad_line_of_the_metrics_costs_that_line_alone(often, capsys):
    run = train(often, QUIET)
    lines = run.metrics.read_text().splitlines()
    lines[1] = lines[1].replace('"loss": ', '"loss": 9')
    lines[3] = lines[3][:20]
    run.metrics.write_text("\n".join([*lines, '{"event": "lo']))
    longer = often.model_copy(update={"epochs": 3})
    resumed = train(longer, Console(width=1000), resume=run.path)
    said = capsys.readouterr().out
    assert f"line 2 and 1 more of {run.metrics} is damaged and left out" in said
    rows = resumed.read_metrics()
    kept = [json.loads(line) for number, line in enumerate(lines) if number not in (1, 3)]
    assert [row["images"] for row in rows[: len(kept)]] == [row["images"] for row in kept]
    assert [row["epoch"] for row in rows if row["event"] == "epoch"] == [1, 2, 3]


def test_a_line_whose_checksum_lost_its_name_is_damaged(tmp_path):
    run = RunFolder(tmp_path)
    run.append_metrics({"event": "log", "epoch": 1, "images": 12, "loss": 2.5})
    written = run.metrics.read_text()
    run.metrics.write_text(written.replace("crc32", "crs32") + written)
    said: list[str] = []
    assert len(run.read_metrics(said.append)) == 1
    assert "line 1 of" in said[0]


def test_lines_that_are_gone_are_said(often, capsys):
    run = train(often, QUIET)
    run.metrics.write_text("".join(run.metrics.read_text().splitlines(keepends=True)[3:]))
    train(often.model_copy(update={"epochs": 3}), Console(width=1000), resume=run.path)
    assert "has no line of epoch 1" in capsys.readouterr().out


def test_a_damaged_config_is_refused(often):
    run = train(often, QUIET)
    text = run.config.read_text()
    run.config.write_text(text.replace('"lr": 0.001', '"lr": 0.003'))
    with pytest.raises(ConfigError, match=r"config\.json .*checksum differs"):
        train(often, QUIET, resume=run.path)
    plain = json.loads(text)
    del plain["crc32"]  # as runs of before the checksum have it
    run.config.write_text(json.dumps(plain))
    train(often.model_copy(update={"epochs": 3}), QUIET, resume=run.path)


def poison(monkeypatch, *numbers):
    """Make the images of some steps not a number."""
    step, seen = Learner.step, []

    def poisoned(self, x, *args, **kwargs):
        seen.append(1)
        return step(self, x * float("nan") if len(seen) in numbers else x, *args, **kwargs)

    monkeypatch.setattr(Learner, "step", poisoned)


def test_what_a_loss_that_is_not_finite_came_from_is_kept(often, monkeypatch):
    config = often.model_copy(update={"save_every": 10.0})
    poison(monkeypatch, 6)
    with pytest.raises(NonFiniteLossError, match=r"state are in .*epoch-0002-batch-000002"):
        train(config, QUIET)
    run = RunFolder(config.out)
    (kept,) = run.not_finite.iterdir()
    tensors, header = load_tensors(kept)
    plan = recovery.BatchPlan(config, torch.arange(100))
    assert torch.equal(tensors["batch.rows"], plan.batches(1)[1])
    assert torch.equal(tensors["batch_before.rows"], plan.batches(1)[0])
    assert header["batch"] == 2
    assert not all(value.isfinite().all() for value in tensors.values())
    assert all(value.isfinite().all() for value in weights(run.resume).values())


def test_a_run_goes_back_so_often_as_it_may_at_half_the_step(often, monkeypatch, capsys):
    config = often.model_copy(update={"save_every": 10.0, "rollbacks": 2})
    rates, fill = [], Learner.set_step

    def noted(self, settings, batch):
        rates.append(settings.rate)
        fill(self, settings, batch)

    monkeypatch.setattr(Learner, "set_step", noted)
    poison(monkeypatch, 6, 11)
    run = train(config, Console(width=1000))
    assert rates == [1e-3] * 8 + [5e-4] * 4 + [2.5e-4] * 4
    rows = [row for row in run.read_metrics() if row["event"] == "rollback"]
    assert [(row["images"], row["from_images"], row["step_factor"]) for row in rows] == [
        (100, 200, 0.5), (100, 200, 0.25),
    ]  # fmt: skip
    assert "goes back to image 100 and on at 0.25 of the learning rate" in capsys.readouterr().out
    assert load_tensors(run.resume)[1]["position"]["rollbacks"] == 2
    # A state that is saved goes on at its smaller step.
    del rates[:]
    train(config.model_copy(update={"epochs": 3}), QUIET, resume=run.path)
    assert rates == [2.5e-4] * 4


def test_a_run_goes_back_no_oftener(often, monkeypatch):
    config = often.model_copy(update={"save_every": 10.0, "rollbacks": 1})
    with monkeypatch.context() as patch:
        poison(patch, 6, 11)
        with pytest.raises(NonFiniteLossError):
            train(config, QUIET)
    more = config.model_copy(update={"rollbacks": 2})
    assert len(train(more, QUIET, resume=config.out).read_metrics()) > 0


def test_an_epoch_is_saved_before_it_is_shown(often, tmp_path):
    seen = []

    class Look(Callback):
        def start(self, run):
            self.run = run

        def epoch(self, row, vae):
            seen.append(load_tensors(self.run.folder.resume)[1]["position"]["epoch"])

    train(often, QUIET, callbacks=[Look()])
    assert seen == [1, 2]


class Signal(Callback):
    """Sends this process a signal when it is at a place."""

    def __init__(self, kind, at):
        self.kind, self.at = kind, at

    def _send(self, at):
        if at == self.at:
            os.kill(os.getpid(), self.kind)
            time.sleep(0)  # Python runs handlers between its own steps

    def step(self, progress, means):
        self._send(progress.images)

    def epoch(self, row, vae):
        self._send(f"epoch {row['epoch']}")


@pytest.mark.parametrize(
    ("kind", "at", "said"),
    [
        (signal.SIGHUP, 132, "stopped in epoch 2 of 2"),
        (signal.SIGTERM, "epoch 1", "stopped after 1 of 2 epochs"),
        (signal.SIGINT, "epoch 2", "stopped after 2 of 2 epochs"),
    ],
)
def test_every_signal_to_end_saves(kind, at, said, often, tmp_path):
    config = often.model_copy(update={"save_every": 10.0})
    whole = train(config.model_copy(update={"out": tmp_path / "whole"}), QUIET)
    handler = signal.getsignal(kind)
    with pytest.raises(StoppedError, match=said):
        train(config, QUIET, callbacks=[Signal(kind, at)])
    assert signal.getsignal(kind) is handler
    assert not (config.out / "pictures" / "samples.png").exists()
    resumed = train(config, QUIET, resume=config.out)
    assert (config.out / "pictures" / "samples.png").exists()
    assert_same(weights(whole.model), weights(resumed.model))


def test_a_hangup_that_is_ignored_stays_so(often):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = train(often, QUIET, callbacks=[Signal(signal.SIGHUP, 132)])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert load_metadata(run.model).epochs == often.epochs


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_pictures_ends_the_run_at_once(kind, often, monkeypatch):
    def draw(*_):
        os.kill(os.getpid(), kind)
        time.sleep(10)
        raise AssertionError("the signal was swallowed")

    with monkeypatch.context() as patch:
        patch.setattr("convvae.training.run.draw_pictures", draw)
        with pytest.raises(StoppedError, match="the model is saved, draw them with"):
            train(often, QUIET)
    run = train(often, QUIET, resume=often.out)
    assert (run.pictures / "samples.png").exists()


def test_states_of_before_there_were_several_go_on(often, tmp_path):
    whole = train(often.model_copy(update={"out": tmp_path / "whole"}), QUIET)
    run = crashed(often, 132)
    for name in STATES[1:]:
        (run.path / name).unlink()
    tensors, header = load_tensors(run.resume)
    del header["position"]["rollbacks"]
    save_tensors(run.resume, tensors, header)
    assert_same(weights(whole.model), weights(train(often, QUIET, resume=run.path).model))
