"""The best weights on held-out training images are kept, and nothing of it is lost by resuming."""

import errno
import io
import json

import pytest
import torch
from rich.console import Console

from convvae.config import TrainConfig
from convvae.errors import (
    ConfigError,
    DiskFullError,
    NonFiniteLossError,
    RunExistsError,
    StoppedError,
)
from convvae.evaluation.bounds import mean_terms
from convvae.model.checkpoint import load_metadata, load_model, load_tensors
from convvae.model.run_folder import RunFolder
from convvae.training import loop
from convvae.training import run as training_module
from convvae.training.callbacks import Callback
from convvae.training.holdout import MOST_HELD_OUT, held_out, load_run_images
from convvae.training.recipes import load_recipe
from convvae.training.run import train

QUIET = Console(quiet=True)


def changed(config, **settings):
    return TrainConfig.model_validate(config.model_dump() | settings)


@pytest.fixture
def config(tiny_config):
    """80 images to train on, 20 held out."""
    return changed(tiny_config, validation=0.2, epochs=5, batch_size=20, preview=False)


@pytest.fixture
def losses(monkeypatch):
    """Makes validation losses what a test says: a list, an epoch each."""
    said = {}

    measure = loop.validate

    def validate(learner, images, pace, *known):
        means, _ = measure(learner, images, pace, *known)
        return loop.Validation(means, said[pace.images // 80])

    monkeypatch.setattr(training_module, "validate", validate)
    return lambda *values: said.update(enumerate(values))


def same_weights(a, b):
    first, second = load_tensors(a)[0], load_tensors(b)[0]
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_share_is_drawn_by_the_seed_and_bounded():
    assert len(held_out(1000, 0.1, 0)) == 100
    assert len(held_out(60_000, 0.1, 0)) == MOST_HELD_OUT
    assert len(held_out(1000, 0.0, 0)) == 0
    assert held_out(1000, 0.1, 0).tolist() == held_out(1000, 0.1, 0).tolist()
    assert held_out(1000, 0.1, 0).tolist() != held_out(1000, 0.1, 1).tolist()
    assert held_out(1000, 0.1, 3).unique().tolist() == held_out(1000, 0.1, 3).tolist()


@pytest.mark.parametrize(("count", "expected"), [(2, 0), (3, 1), (4, 1), (25, 2)])
def test_few_images_leave_two_to_train_on(count, expected):
    assert len(held_out(count, 0.1, 0)) == expected
    assert len(held_out(count, 0.99, 0)) == count - 2


def test_images_held_out_are_not_trained_on(config):
    images = load_run_images(config)
    assert len(images.rows) == 80
    assert len(images.validation) == 20
    assert images.validated_on == "validation"
    held = {image.numpy().tobytes() for image in images.validation.images}
    batches = torch.cat(loop.BatchPlan(config, images.rows).batches(3))
    assert sorted(batches.tolist()) == images.rows.tolist()
    trained = {image.numpy().tobytes() for image in images.source.images[batches]}
    assert not held & trained
    assert len(held | trained) == len({i.numpy().tobytes() for i in images.source.images})


def test_none_are_held_out_where_none_are_asked_for(config):
    images = load_run_images(changed(config, validation=0))
    assert images.rows.tolist() == list(range(100))
    assert images.validation is images.test
    assert images.validated_on == "test"


def test_held_out_images_of_a_binarised_run_are_black_or_white(config):
    found = load_run_images(changed(config, binarize="dynamic")).validation.images
    assert found.unique().tolist() == [0, 255]


def test_the_best_weights_are_kept_and_the_last_beside_them(config, losses):
    losses(5.0, 3.0, 4.0, 3.0, 6.0)
    said = Console(file=io.StringIO(), width=1000)
    run = train(config, said)
    best, last = load_metadata(run.path), load_metadata(run.last)
    assert (best.kept, best.epochs, best.images, best.run_epochs) == ("best", 2, 160, 5)
    assert (last.kept, last.epochs, last.images, last.run_epochs) == ("last", 5, 400, None)
    rows = [row for row in run.read_metrics() if row["event"] == "epoch"]
    assert best.bound == rows[1]["val_bound"]
    assert last.bound == rows[-1]["val_bound"]
    assert {row["validated_on"] for row in rows} == {best.validated_on} == {"validation"}
    two = train(changed(config, epochs=2, out=config.out.with_name("two")), QUIET)
    assert same_weights(run.model, two.last)
    text = said.file.getvalue()
    assert "20 of 100 training images are held out" in text
    assert "kept the weights of epoch 2 of 5, the best on validation images: loss 3.00" in text


def test_the_recorded_validation_is_that_of_the_held_out_images(config):
    run = train(config, QUIET)
    vae, metadata = load_model(run.path)
    images = load_run_images(config).validation.images
    assert metadata.bound == pytest.approx(float(mean_terms(vae, images, seed=0).bound), rel=1e-5)


def test_callbacks_have_the_kept_weights_at_the_end(config, losses):
    class Last(Callback):
        def start(self, run):
            self.run = run
            assert run.validated_on == "validation"
            assert len(run.validation) == len(run.labels) == 20

        def finish(self):
            self.state = {n: v.clone() for n, v in self.run.vae.state_dict().items()}

    losses(1.0, 2.0, 2.0, 2.0, 2.0)
    last = Last()
    run = train(config, QUIET, callbacks=[last])
    kept = load_tensors(run.model)[0]
    assert all(torch.equal(value, kept[name]) for name, value in last.state.items())
    assert not same_weights(run.model, run.last)


@pytest.mark.parametrize("stop_at", [100, 160, 240, 300])
def test_the_best_so_far_survives_a_stop_and_a_resume(stop_at, config, losses):
    class Halt(Callback):
        def start(self, run):
            self.run = run

        def step(self, progress, means):
            if progress.images == stop_at:
                self.run.stop.set()

    losses(5.0, 3.0, 4.0, 3.5, 6.0)
    whole = train(changed(config, out=config.out.with_name("whole")), QUIET)
    with pytest.raises(StoppedError):
        train(config, QUIET, callbacks=[Halt()])
    run = train(config, QUIET, resume=config.out)
    assert load_metadata(run.path) == load_metadata(whole.path)
    assert same_weights(run.model, whole.model)
    assert same_weights(run.last, whole.last)


def test_patience_ends_a_run_as_finished(config, losses):
    losses(5.0, 3.0, 4.0, 3.0, 1.0)
    patient = changed(config, patience=2, report=True)
    said = Console(file=io.StringIO(), width=1000)
    run = train(patient, said)
    assert load_metadata(run.last).epochs == 4
    assert (load_metadata(run.path).epochs, load_metadata(run.path).run_epochs) == (2, 4)
    assert run.report.exists()
    assert "stopped after epoch 4: 2 epochs did no better" in said.file.getvalue()
    # Without the patience the run goes on to its end.
    run = train(config, QUIET, resume=config.out)
    assert (load_metadata(run.path).epochs, load_metadata(run.path).run_epochs) == (5, 5)


def test_patience_without_images_to_judge_by_is_refused():
    with pytest.raises(ConfigError, match="none are held out; use `validation"):
        TrainConfig.checked({"data": "digits", "validation": 0, "patience": 3}, "here")


def test_a_warm_up_does_not_make_early_epochs_the_best(config):
    """The loss at a small weight of the KL is lower: epochs are compared at the full one."""
    rising = changed(config, kl_schedule="linear", kl_warmup=400, beta=20.0)
    run = train(rising, QUIET)
    rows = [row for row in run.read_metrics() if row["event"] == "epoch"]
    for row in rows:
        expected = 20.0 * row["val_kl"] - row["val_log_px"]
        assert row["val_full_loss"] == pytest.approx(expected, rel=1e-6)
        assert row["val_loss"] < row["val_full_loss"]
    best = min(rows, key=lambda row: row["val_full_loss"])
    assert load_metadata(run.path).epochs == best["epoch"]


def test_for_the_plain_objective_the_best_loss_is_the_best_bound(config):
    for row in train(config, QUIET).read_metrics():
        if row["event"] == "epoch":
            assert row["val_full_loss"] == row["val_loss"]
            assert row["val_full_loss"] == pytest.approx(-row["val_bound"], rel=1e-6)


def test_without_a_hold_out_the_last_weights_are_kept(config):
    run = train(changed(config, validation=0), QUIET)
    metadata = load_metadata(run.path)
    assert (metadata.kept, metadata.validated_on, metadata.epochs) == ("last", "test", 5)
    assert not run.last.exists()


def test_a_run_of_before_there_was_validation_ends_at_the_same_weights(tiny_config):
    whole = train(changed(tiny_config, epochs=3, out=tiny_config.out.with_name("whole")), QUIET)
    run = train(tiny_config, QUIET)
    content = json.loads(run.config.read_text())
    del content["crc32"]
    for name in ("validation", "patience", "augment"):
        del content["settings"][name]
    run.config.write_text(json.dumps(content))
    settings = RunFolder.open(run.path).read_config()["settings"]
    again = train(changed(TrainConfig.model_validate(settings), epochs=3), QUIET, resume=run.path)
    assert same_weights(whole.model, again.model)


@pytest.mark.parametrize(("count", "says"), [(4, "1 of 4 training"), (2, "2 training images are")])
def test_a_handful_of_images_still_trains(count, says, config):
    said = Console(file=io.StringIO(), width=1000)
    train(changed(config, limit=count, batch_size=2, epochs=2), said)
    assert says in said.file.getvalue()


def test_a_folder_with_last_weights_is_taken(tmp_path):
    (tmp_path / "last.safetensors").write_text("theirs")
    with pytest.raises(RunExistsError, match=r"last\.safetensors is there"):
        RunFolder(tmp_path).check_free()


def test_recipes_that_repeat_published_numbers_train_on_all_images():
    repeat = {"mlx-cvae", "lux-cvae", "mnist-2d", "mnist-bernoulli", "fast-cvae", "mnist-ladder"}
    assert {load_recipe(name)["validation"] for name in repeat} == {0}


def test_a_loss_that_is_not_finite_names_the_file_of_the_last_weights(config, monkeypatch):
    step, seen = training_module.Learner.step, []

    def poisoned(self, x, *args, **kwargs):
        seen.append(1)
        return step(self, x * float("nan") if len(seen) == 6 else x, *args, **kwargs)

    monkeypatch.setattr(training_module.Learner, "step", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"last\.safetensors keeps the weights of epoch 1"):
        train(config, QUIET)


def test_many_binarised_images_lie_on_the_disk(config, tmp_path, monkeypatch):
    """In a file that nobody finds; the pixels are those in memory."""
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    static = changed(config, binarize="static")
    expected = load_run_images(static)
    monkeypatch.setattr("convvae.data.cache.scratch.MOST_IN_MEMORY", 1000)
    found = load_run_images(static)
    assert torch.equal(found.source.images, expected.source.images)
    assert torch.equal(found.test.images, expected.test.images)
    assert list((tmp_path / "cache").iterdir()) == []

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DiskFullError, match="CONVVAE_CACHE"):
        load_run_images(static)
