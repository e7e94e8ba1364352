"""Images that are read a batch at a time: the same as read at once, and never all in memory."""

import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest
import torch

from convvae import data, errors
from convvae.data import Preparation, sources
from convvae.data.own.load import open_source
from convvae.data.published.idx import idx_rows, idx_shape, read_idx
from convvae.data.published.mnist import PublishedFile, PublishedSet


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + (
        values.tobytes()
    )  # fmt: skip


def pixels(count, side=28, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), dtype=np.uint8)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Make the files of a published set, of so many test and training images, known as mnist."""
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))

    def make(tests, trainings, packed=False, of_gz=False):
        folder = tmp_path / f"{tests}-{trainings}-{packed}"
        folder.mkdir()
        files = []
        for split, count in (("train", trainings), ("t10k", tests)):
            for kind, values in (
                ("images-idx3", pixels(count, seed=count)),
                ("labels-idx1", np.arange(count, dtype=np.uint8) % 10),
            ):
                content = idx(values)
                written = gzip.compress(content, 1) if packed else content
                name = f"{split}-{kind}-ubyte"
                (folder / f"{name}{'.gz' if packed else ''}").write_bytes(written)
                told = hashlib.md5(written if of_gz else content).hexdigest()
                files.append(PublishedFile("mnist", name, values.shape, f"md5:{told}", of_gz))
        parts = ((files[0], files[1]), (files[2], files[3]))
        known = PublishedSet("mnist", "MNIST", (), *parts, tuple("0123456789"))
        monkeypatch.setitem(sources.PUBLISHED, "mnist", known)
        return folder

    return make


def whole(stream, count=7):
    return torch.cat([images for _, images in stream.batches(count)])


@pytest.mark.parametrize(("packed", "of_gz"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    "prepare", [Preparation(), Preparation((20, 12), channels=3), Preparation((20, 12), crop=True)]
)
def test_a_stream_gives_what_load_gives(published, packed, of_gz, prepare):
    folder = published(23, 31, packed, of_gz)
    both = [data.load("mnist", split, data_dir=folder, prepare=prepare)
            for split in ("test", "train")]  # fmt: skip
    for found in both:
        stream = data.stream("mnist", found.split, data_dir=folder, prepare=prepare)
        assert torch.equal(whole(stream), found.images)
        assert torch.equal(stream.labels, found.labels)
        assert stream.splits == [found.split] * len(found)
        assert (stream.names, stream.classes, len(stream)) == (None, found.classes, len(found))
    stream = data.stream("mnist", "all", data_dir=folder, prepare=prepare)
    for _ in range(2):  # it can be gone through again
        assert torch.equal(whole(stream), torch.cat([found.images for found in both]))
    assert torch.equal(stream.labels, torch.cat([found.labels for found in both]))
    assert stream.splits == ["test"] * 23 + ["train"] * 31


@pytest.mark.parametrize("count", [1, 7, 23, 24, 54])
def test_the_first_images_of_a_stream(published, count):
    folder = published(23, 31)
    stream = data.stream("mnist", "all", data_dir=folder)
    some = stream.first(count)
    assert len(some) == len(some.labels) == len(some.splits) == count
    assert torch.equal(whole(some), whole(stream)[:count])
    with pytest.raises(errors.ConfigError, match=r"limit is 55, but mnist \(all\) has 54 images"):
        stream.first(55)


def test_a_published_file_that_is_another_is_refused_as_by_load(published):
    folder = published(23, 31)
    path = folder / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    for damaged in (content[:-1] + b"\0", content[:-5], content + b"!", b"", b"\x1f\x8bnothing"):
        path.write_bytes(damaged)
        told = []
        for read in (data.load, data.stream):
            with pytest.raises(errors.ConvvaeError) as caught:
                read("mnist", "test", data_dir=folder)
            told.append((type(caught.value), str(caught.value)))
        assert told[0] == told[1]


def test_a_published_file_whose_digest_nobody_gives_is_used_with_a_warning(published):
    folder = published(23, 31, packed=True, of_gz=True)
    for path in folder.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.warns(UserWarning, match="is used unverified"):
        stream = data.stream("mnist", "test", data_dir=folder)
    assert torch.equal(whole(stream)[:, 0], torch.from_numpy(pixels(23, seed=23)))


def peak(work):
    """The most bytes that Python and NumPy held at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True])
def test_memory_does_not_grow_with_the_number_of_published_images(published, packed, monkeypatch):
    sizes, resize = [], sources.resize
    monkeypatch.setattr(
        sources, "resize", lambda x, *a, **k: sizes.append(len(x)) or resize(x, *a, **k)
    )

    def read(count):
        folder = published(count, 10, packed)

        def work():
            stream = data.stream("mnist", data_dir=folder, prepare=Preparation((8, 8)))
            before = len(sizes)
            next(iter(stream.batches(100)))
            assert len(sizes) == before + 1  # no batch is read before it is asked for
            assert sum(len(images) for _, images in stream.batches(100)) == count

        return peak(work)

    read(200)  # what is imported and cached at first
    small, large = read(1000), read(5000)
    assert large < small + 500_000  # 4,000 images are 3,136,000 bytes
    assert max(sizes) == 100


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_memory_does_not_grow_with_an_idx_file_of_ones_own(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("convvae.data.own.arrays._CHUNK_BYTES", 100 * 28 * 28)

    def read(count):
        path = tmp_path / f"{count}-idx3-ubyte{suffix}"
        content = idx(pixels(count))
        path.write_bytes(gzip.compress(content, 1) if suffix else content)
        return peak(lambda: sum(1 for _ in open_source(str(path)).items()))

    read(200)
    small, large = read(1000), read(5000)
    assert large < small + 500_000


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_an_idx_file(tmp_path, packed):
    values, path = pixels(10, side=5), tmp_path / "images"
    path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    assert idx_shape(path) == (10, 5, 5)
    parts = list(idx_rows(path, 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(parts), values)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"!",
        lambda content: content[:10],
        lambda content: b"<html>404</html>" * 100,
        lambda content: gzip.compress(content[:-1]),
        lambda content: gzip.compress(content)[:-9],
        lambda content: gzip.compress(content)[:-8] + bytes(8),
    ],
)
def test_a_damaged_idx_file_is_told_as_when_it_is_read_at_once(tmp_path, damage):
    path = tmp_path / "images"
    path.write_bytes(damage(idx(pixels(10, side=5))))
    told = []
    for read in (read_idx, lambda path: list(idx_rows(path, 4))):
        with pytest.raises(errors.CorruptDataError) as caught:
            read(path)
        told.append(str(caught.value))
    assert told[0] == told[1]
    path.unlink()
    with pytest.raises(errors.UnknownDataError, match="cannot read"):
        idx_shape(path)
