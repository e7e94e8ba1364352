import json
import sys

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convvae.cli.main import main
from convvae.errors import MissingExtraError
from convvae.training.run import train
from convvae.training.tensorboard import PAIRS_LOGGED, TensorBoard


def read(run):
    """What TensorBoard itself reads of a run."""
    log = EventAccumulator(
        str(run.path / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
    )
    return log.Reload()


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracked") / "run"
    words = "digits --limit 96 --max-filters 8 --latent-dims 2 --batch-size 32 --log-every 1"
    words += " --validation 0"
    assert (
        main(["train", *words.split(), "--epochs", "1", "--tensorboard", "--out", str(folder)]) == 0
    )
    assert main(["train", "--resume", str(folder), "--epochs", "2"]) == 0
    from convvae.model.run_folder import RunFolder

    return RunFolder(folder)


def test_every_recorded_number_is_a_curve_over_images_also_after_resuming(tracked):
    log, rows = read(tracked), tracked.read_metrics()
    for kind, tag, name in (
        ("log", "loss, nats per image/single batches", "loss"),
        ("epoch", "bound, nats per image/test", "val_bound"),
        ("epoch", "KL, nats per image/training", "train_kl"),
        ("epoch", "squared error + KL per batch/test", "val_squared_error_and_kl"),
    ):
        found = [(point.step, point.value) for point in log.Scalars(tag)]
        recorded = [(row["images"], row[name]) for row in rows if row["event"] == kind]
        assert [step for step, _ in found] == [step for step, _ in recorded]
        assert [value for _, value in found] == pytest.approx([v for _, v in recorded], rel=1e-6)
    assert (
        "| latent_dims | 2 |"
        in log.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    )


def test_every_epoch_has_its_pictures(tracked):
    log = read(tracked)
    for tag in ("samples", "test images, each with its reconstruction"):
        pictures = log.Images(tag)
        assert [picture.step for picture in pictures] == [96, 192]
        assert pictures[0].encoded_image_string != pictures[1].encoded_image_string
    assert (pictures[0].width, pictures[0].height) == (PAIRS_LOGGED // 8 * 18 + 2, 8 * 10 + 2)


def test_the_projector_has_latents_labels_and_images(tracked):
    folder = tracked.path / "tensorboard"
    config = (folder / "projector_config.pbtxt").read_text()
    (tensors,) = folder.rglob("tensors.tsv")
    rows = [line.split("\t") for line in tensors.read_text().splitlines()]
    labels = (tensors.parent / "metadata.tsv").read_text().split()
    assert len(rows) == len(labels) > 300
    assert {len(row) for row in rows} == {2}
    assert set(labels) == set("0123456789")
    assert str(tensors.relative_to(folder)) in config
    with Image.open(tensors.parent / "sprite.png") as sprite:
        assert sprite.width == sprite.height
        assert max(sprite.getextrema()[0]) > 200


def test_images_held_out_are_called_validation(tiny_config):
    held = {"validation": 0.2, "tensorboard": True, "epochs": 1, "preview": False}
    log = read(train(tiny_config.model_copy(update=held)))
    tags = log.Tags()
    assert "bound, nats per image/validation" in tags["scalars"]
    assert "validation images, each with its reconstruction" in tags["images"]


def test_a_run_without_it_writes_nothing(finished_run):
    assert not (finished_run.path / "tensorboard").exists()


def test_it_changes_no_weight(tracked, tmp_path):
    settings = json.loads(tracked.config.read_text())["settings"]
    from convvae.config import TrainConfig

    config = TrainConfig.model_validate(settings | {"tensorboard": False, "out": tmp_path / "a"})
    assert train(config).model.read_bytes()[-1000:] == tracked.model.read_bytes()[-1000:]


def test_without_the_library_one_line_before_anything_is_made(tiny_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    with pytest.raises(MissingExtraError, match=r"convvae\[tensorboard\]"):
        TensorBoard()
    with pytest.raises(MissingExtraError, match="`tensorboard=True` needs"):
        train(tiny_config.model_copy(update={"tensorboard": True}))
    assert not tiny_config.out.exists()
