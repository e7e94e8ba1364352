"""Images on their way to the device: from a file, from memory, from shards, with a small memory."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from convvae import api, runtime
from convvae.cli.main import main
from convvae.config import TrainConfig
from convvae.data import ImageSet, Preparation, load, pixels
from convvae.data.pixels import draw_levels
from convvae.errors import CorruptDataError
from convvae.model.checkpoint import load_tensors
from convvae.training.feeds import AHEAD, Resident, Streamed, feed_of
from convvae.training.ranks import Ranks
from convvae.training.run import train

CPU = torch.device("cpu")
TINY = {
    **{"epochs": 2, "batch_size": 8, "max_filters": 8, "latent_dims": 2, "network": "upsample"},
    **{"device": "cpu", "precision": "float32", "preview": False, "report": False},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Thirty pictures, and a cache for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        array = np.random.default_rng(number).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "pictures" / f"{number:02}.png")
    return tmp_path / "pictures"


@pytest.fixture
def stored(folder):
    """The pictures in their file, every row but the first ones."""
    return load(str(folder), "train", prepare=Preparation(split="0.2"))


def in_memory(source):
    return replace(source, images=source.images.clone())


def noted(monkeypatch, owner, name):
    """What a function is called with from now on."""
    calls, of = [], getattr(owner, name)

    def call(*given):
        calls.append(given)
        return of(*given)

    monkeypatch.setattr(owner, name, call)
    return calls


def order(count, size=4):
    return list(torch.randperm(count, generator=torch.Generator().manual_seed(0)).split(size))


@pytest.mark.parametrize("form", [lambda source: source, in_memory])
def test_streamed_batches_are_those_of_all_images(stored, form):
    source = form(stored)
    assert source.is_stored == (source is stored)
    expected = [stored.images[index] for index in order(len(stored))]
    for kind in (Streamed(source, CPU, Ranks()), Resident(source, CPU, Ranks())):
        found = list(kind.batches(order(len(stored))))
        assert all(map(torch.equal, found, expected))
        assert len(found) == len(expected)
        assert kind.shape == (3, 8, 10)


def test_each_process_reads_its_share(stored, monkeypatch):
    read = noted(monkeypatch, ImageSet, "read")
    batches = order(len(stored), 5)
    found = [list(Streamed(stored, CPU, Ranks(rank, 3)).batches(batches)) for rank in range(3)]
    assert sorted(torch.cat([rows for _, rows, _ in read]).tolist()) == list(range(len(stored)))
    for number, index in enumerate(batches):
        parts = torch.cat([shares[number] for shares in found])
        assert torch.equal(parts, stored.images[index])


def test_where_images_are(stored, monkeypatch):
    assert isinstance(feed_of(stored, CPU, Ranks()), Streamed)
    images = in_memory(stored)
    assert isinstance(feed_of(images, CPU, Ranks()), Resident)
    monkeypatch.setattr(runtime, "free_memory", lambda device: 2 * images.images.nbytes - 1)
    assert isinstance(feed_of(images, CPU, Ranks()), Streamed)


def test_no_more_is_read_than_is_ahead(stored, monkeypatch):
    read = noted(monkeypatch, ImageSet, "read")
    batches = Streamed(stored, CPU, Ranks()).batches(order(len(stored), 2))
    next(batches)
    next(batches)
    assert len(read) <= 2 + AHEAD
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]
    assert len(read) <= 2 + AHEAD


def test_a_file_that_was_cut_ends_the_training(stored):
    stored.stored.path.chmod(0o644)
    with stored.stored.path.open("r+b") as file:
        file.truncate(stored.images[0].nbytes * 20)
    with pytest.raises(CorruptDataError, match="it was cut while it was read"):
        list(Streamed(stored, CPU, Ranks()).batches(order(len(stored))))


def test_images_made_from_a_file_are_not_read_from_it(stored):
    """Whoever replaces the images of a set need not know of the file."""
    dark = replace(stored, images=stored.images // 2)
    assert torch.equal(dark.read(torch.tensor([3, 1])), dark.images[[3, 1]])
    assert torch.equal(dark.take(torch.tensor([2])).images, dark.images[[2]])
    first = stored.take(torch.tensor([4, 2]))
    assert torch.equal(first.read(torch.tensor([1])), stored.images[[2]])


def weights(out, data, **settings):
    run = train(TrainConfig.model_validate({**TINY, "data": str(data), "out": out, **settings}))
    return load_tensors(run.resume)[0]


def equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_small_memory_learns_the_same(folder, monkeypatch):
    """To the bit: all images on the device, or streamed to it."""
    data = in_memory(load(str(folder), prepare=Preparation(split="none"))).images
    ends = []
    for room in (float("inf"), 0):
        monkeypatch.setattr(runtime, "free_memory", lambda device, room=room: room)
        settings = {key: value for key, value in TINY.items() if key not in ("preview", "report")}
        more = {"binarize": "dynamic", "augment": "flip-shift"}
        model = api.train(data, **settings, **more).model
        ends.append(model.state_dict())
    equal(*ends)


def test_shards_learn_what_the_folder_learns(folder):
    """To the bit, however many the shards: their images come in the same order."""
    expected = weights("one", folder)
    for count in (1, 3):
        assert main(["shard", str(folder), "--out", f"{count}/x-{{1..{count}}}.tar"]) == 0
        equal(weights(f"run{count}", f"{count}/x-{{1..{count}}}.tar"), expected)


def test_binarised_images_are_not_copied(folder, monkeypatch):
    """Levels are drawn for a batch; what is made of many images at once are those to look at."""
    drawn = noted(monkeypatch, pixels, "binarize")
    monkeypatch.setattr("convvae.training.run.PREVIEW", 3)
    weights("run", folder, binarize="dynamic", split="0.2", validation=0.2)
    tests = len(load(str(folder), "test", prepare=Preparation(split="0.2")))
    assert 3 < tests < 12
    assert sorted(len(images) for images, *_ in drawn) == sorted(
        [3, tests, round((30 - tests) / 5)]
    )


def test_levels_are_a_function_of_seed_and_position():
    shape = (50, 1, 20, 20)
    one = draw_levels(shape, 0, 128)
    assert torch.equal(one, draw_levels(shape, 0, 128))
    for other in ((1, 128), (0, 256)):
        assert not torch.equal(one, draw_levels(shape, *other))
    # White with probability v / 255: 0 never, 255 always, between them on average.
    for value in (0, 51, 255):
        drawn = pixels.black_or_white(torch.full(shape, value, dtype=torch.uint8), one)
        assert drawn.unique().tolist() == sorted({255 * (value > 0), 255 * (value == 255)})
        assert drawn.float().mean().item() == pytest.approx(value, abs=0.01 * 255)


def test_names_are_read_when_one_is_asked_for(folder):
    found = load(str(folder), prepare=Preparation(split="none"))
    assert len(found.names) == 30
    assert "names" not in vars(found.names.entry)
    assert found.names[3:5] == ["03.png", "04.png"]
    assert [found.names[-1], *found.names][:2] == ["29.png", "00.png"]
    assert found.take(torch.tensor([7])).names == ["07.png"]
    with pytest.raises(IndexError):
        found.names[30]
