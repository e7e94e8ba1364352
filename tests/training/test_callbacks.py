import pytest
import torch

from convvae.errors import StoppedError
from convvae.model.checkpoint import load_tensors
from convvae.training.callbacks import Callback, Together
from convvae.training.run import train


class Diary(Callback):
    def __init__(self):
        self.events = []

    def start(self, run):
        self.run = run
        self.events.append(("start", run.progress.images, run.total_images))

    def step(self, progress, means):
        self.events.append(("step", progress.images))
        if progress.batch == 1:
            assert torch.isfinite(means().bound)

    def batch(self, row):
        self.events.append(("batch", row["images"]))

    def epoch(self, row, vae):
        assert vae is self.run.vae
        self.events.append(("epoch", row["epoch"]))

    def finish(self):
        assert (self.run.folder.pictures / "samples.png").exists()
        self.events.append(("finish",))

    def close(self):
        self.events.append(("close",))


def weights(run):
    return load_tensors(run.model)[0]


def test_the_events_come_in_their_order_and_change_nothing(tiny_config, tmp_path, pictures):
    diary = Diary()
    watched = train(tiny_config, callbacks=[diary])
    epoch = [100, 200]  # images at the ends of the two epochs, of 32 + 32 + 32 + 4
    expected = [("start", 0, 200)]
    for number, end in enumerate(epoch, 1):
        expected += [("step", end - left) for left in (68, 36, 4, 0)]
        expected += [("batch", end - 36), ("batch", end), ("epoch", number)]
    assert diary.events == [*expected, ("finish",), ("close",)]
    alone = train(tiny_config.model_copy(update={"out": tmp_path / "alone"}))
    for name, value in weights(alone).items():
        assert torch.equal(value, weights(watched)[name]), name


def test_a_callback_that_writes_one_method_is_enough(tiny_config):
    class Rows(Callback):
        def __init__(self):
            self.rows = []

        def epoch(self, row, vae):
            self.rows.append(dict(row))

    some = Rows()
    run = train(tiny_config, callbacks=[some])
    assert some.rows == [row for row in run.read_metrics() if row["event"] == "epoch"]


def test_a_callback_stops_a_run_that_resumes_to_the_same_weights(tiny_config, tmp_path, pictures):
    class Halt(Diary):
        def step(self, progress, means):
            if progress.images == 132:
                self.run.stop.set()

    halt = Halt()
    with pytest.raises(StoppedError, match="epoch 2 of 2"):
        train(tiny_config, callbacks=[halt])
    assert halt.events[-1] == ("close",)
    assert ("finish",) not in halt.events
    diary = Diary()
    resumed = train(tiny_config, resume=tiny_config.out, callbacks=[diary])
    assert diary.events[0] == ("start", 132, 200)
    whole = train(tiny_config.model_copy(update={"out": tmp_path / "whole"}))
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_a_failing_callback_closes_them_all(tiny_config):
    class Broken(Callback):
        def epoch(self, row, vae):
            raise OSError("full")

    diary = Diary()
    with pytest.raises(OSError, match="full"):
        train(tiny_config, callbacks=[diary, Broken()])
    assert diary.events[-1] == ("close",)


def test_together_they_are_called_in_their_order():
    order = []

    class Numbered(Callback):
        def __init__(self, number):
            self.number = number

        def finish(self):
            order.append(self.number)

    both = Together([Numbered(1), Numbered(2)])
    both.finish()
    assert order == [1, 2]
