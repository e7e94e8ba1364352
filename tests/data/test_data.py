import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_sets import IMAGES, LABELS, Sets, assert_is, gz, idx, put

from convvae.data import NAMES, ImageSet, Split, load, read_idx
from convvae.data.published.mnist import PUBLISHED, identify
from convvae.errors import (
    ChecksumError,
    ConfigError,
    CorruptDataError,
    MissingFolderError,
    UnknownDataError,
)

pytestmark = pytest.mark.usefixtures("no_folder_of_the_user")


# --- idx files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 28, 28), (2, 3, 4, 5)])
def test_read_idx_returns_what_was_written(tmp_path: Path, shape: tuple[int, ...], packed: bool):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "any-name"
    path.write_bytes(gz(idx(array)) if packed else idx(array))
    read = read_idx(path)
    assert read.dtype == np.uint8
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


GOOD = idx(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (GOOD[:-1], "is truncated: its header promises 40 bytes, found 39"),
        (GOOD + b"!", "has bytes after its end: its header promises 40 bytes, found 41"),
        (GOOD[:10], "is truncated: expected a header of 16 bytes, found 10"),
        (b"", "not an idx file.*found nothing in 0 bytes"),
        (b"\0\0\x08", "not an idx file.*in 3 bytes"),
        (b"<html>404</html>", "not an idx file.*found 3c 68 74 6d in 16 bytes"),
        (b"\0\0\x08\0", "not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "type 0x0d; only unsigned bytes"),
        (gz(GOOD)[:-12], "broken gzip file of"),
        (gz(GOOD)[:12] + b"\xff\xff" + gz(GOOD)[14:], "broken gzip file of"),
        (gz(GOOD) + b"tail", "broken gzip file of"),
        (gz(GOOD[:-4]), "is truncated: its header promises 40 bytes, found 36"),
    ],
)
def test_read_idx_names_the_file_and_what_is_wrong(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / IMAGES
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=says) as caught:
        read_idx(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_read_idx_reads_whole_files_or_refuses(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(b"\0\0\x08" + content)
    try:
        array = read_idx(path)
    except CorruptDataError:
        return
    assert array.tobytes() == content[1 + 4 * array.ndim :]


def test_read_idx_of_a_missing_file_or_a_folder(tmp_path: Path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UnknownDataError, match=f"cannot read {path} "):
            read_idx(path)


# --- Requests that cannot be met -----------------------------------------------------------------


def test_an_unknown_name_lists_the_known_and_a_close_one():
    with pytest.raises(UnknownDataError) as caught:
        load("FashionMNIST")
    assert str(caught.value) == (
        "no data set and no file or folder 'FashionMNIST' (did you mean fashion-mnist?); known are "
        "digits, sprites, mnist, fashion-mnist, kmnist, cifar10, cifar100, svhn, paths, "
        "addresses of shards, and hf:OWNER/NAME"
    )
    with pytest.raises(UnknownDataError, match="folder 'zzz'; known are digits"):
        load("zzz")


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_under_one(limit: int):
    with pytest.raises(ConfigError, match=f"limit is {limit}"):
        load("digits", limit=limit)


def test_a_limit_over_the_number_of_images_names_both():
    with pytest.raises(ConfigError, match=r"limit is 361, but digits \(test\) has 360 images"):
        load("digits", "test", limit=361)
    assert len(load("digits", "test", limit=360)) == 360


def test_an_unknown_split():
    with pytest.raises(ConfigError, match="unknown split 'val'"):
        load("digits", "val")  # pyright: ignore[reportArgumentType]


def test_labels_must_be_as_many_as_images():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(CorruptDataError, match="3 images but 2 labels"):
        ImageSet(images, torch.zeros(2, dtype=torch.int64), "mine", "train")
    assert ImageSet(images, None, "mine", "train").labels is None


def test_names_must_be_as_many_as_images():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(CorruptDataError, match="3 images but 1 names"):
        ImageSet(images, None, "mine", "train", names=["a.png"])
    named = ImageSet(images, None, "mine", "train", names=["a", "b", "c"], classes=("cat",))
    assert (named.names, named.classes) == (["a", "b", "c"], ("cat",))


def test_image_set_says_its_shape():
    images = ImageSet(torch.zeros(3, 2, 4, 5, dtype=torch.uint8), None, "mine", "test")
    assert (len(images), images.channels, images.height, images.width) == (3, 2, 4, 5)


# --- Digits --------------------------------------------------------------------------------------


def test_digits_are_split_by_every_fifth_image():
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    train, test = load("digits"), load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert (train.channels, train.height, train.width) == (1, 8, 8)
    whole = torch.zeros(1797, 1, 8, 8, dtype=torch.uint8)
    is_test = torch.arange(1797) % 5 == 0
    whole[is_test], whole[~is_test] = test.images, train.images
    assert whole.min() == 0
    assert whole.max() == 255
    exact = torch.tensor(values).reshape(-1, 1, 8, 8) * 255 / 16
    assert (whole - exact).abs().max() <= 0.5
    assert test.labels is not None
    assert torch.equal(test.labels, torch.tensor(labels)[::5])
    assert torch.equal(load("digits").images, train.images)


def test_limit_takes_the_first_images():
    few, all_ = load("digits", limit=7), load("digits")
    assert len(few) == 7
    assert torch.equal(few.images, all_.images[:7])
    assert few.labels is not None
    assert all_.labels is not None
    assert torch.equal(few.labels, all_.labels[:7])


# --- Files found in folders ----------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["", "raw", "{name}", "{torchvision}/raw"])
@pytest.mark.filterwarnings("ignore:.*is used unverified")
def test_every_layout_is_found(tmp_path: Path, sets: Sets, name: str, packed: bool, layout: str):
    place = layout.format(name=name, torchvision=PUBLISHED[name].folder)
    put(tmp_path / "mine" / place, sets[name], packed=packed)
    assert_is(load(name, data_dir=tmp_path / "mine"), sets[name])
    assert_is(load(name, "test", data_dir=tmp_path / "mine"), sets[name], "t10k")
    assert not (tmp_path / "cache").exists()


def test_published_limit_and_name(tmp_path: Path, sets: Sets):
    put(tmp_path, sets["mnist"])
    few = load("mnist", "test", data_dir=tmp_path, limit=2)
    assert (len(few), few.name, few.split) == (2, "mnist", "test")
    assert torch.equal(few.images, load("mnist", "test", data_dir=tmp_path).images[:2])


def test_the_environment_names_a_folder_and_the_argument_comes_first(
    tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch
):
    mine, other = put(tmp_path / "mine", sets["mnist"]), tmp_path / "other"
    monkeypatch.setenv("CONVVAE_DATA", str(mine))
    assert_is(load("mnist"), sets["mnist"])
    put(other, {IMAGES: b"broken"})
    with pytest.raises(CorruptDataError, match=str(other)):
        load("mnist", data_dir=other)


def test_a_named_folder_must_exist(tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch):
    missing = tmp_path / "missing"
    with pytest.raises(MissingFolderError, match=f"the data folder, {missing}, "):
        load("mnist", data_dir=missing)
    monkeypatch.setenv("CONVVAE_DATA", str(missing))
    with pytest.raises(MissingFolderError, match=f"the folder in CONVVAE_DATA, {missing}, "):
        load("mnist")
    assert len(load("digits")) == 1437


def test_a_folder_named_after_the_set_comes_first(tmp_path: Path, sets: Sets):
    put(tmp_path, sets["mnist"])
    put(tmp_path / "FashionMNIST" / "raw", sets["fashion-mnist"])
    assert_is(load("mnist", data_dir=tmp_path), sets["mnist"])
    assert_is(load("fashion-mnist", data_dir=tmp_path), sets["fashion-mnist"])


@pytest.mark.parametrize("wanted", PUBLISHED)
@pytest.mark.parametrize("present", PUBLISHED)
@pytest.mark.parametrize("packed", [False, True])
def test_another_set_under_the_same_file_names_is_refused(
    tmp_path: Path, sets: Sets, wanted: str, present: str, packed: bool
):
    if wanted == present:
        return
    put(tmp_path, sets[present], packed=packed)
    with pytest.raises(ChecksumError) as caught:
        load(wanted, data_dir=tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / IMAGES))
    assert f"is not {wanted}'s {IMAGES}" in message
    known = packed or present != "kmnist"
    assert (f"is {present}'s {IMAGES}" if known else "is unknown content of") in message
    assert "delete it, or name another folder with `data_dir` or CONVVAE_DATA" in message


def test_changed_content_names_both_digests(tmp_path: Path, sets: Sets):
    content = sets["mnist"][IMAGES]
    changed = content[:-1] + bytes([content[-1] ^ 1])
    put(tmp_path, {**sets["mnist"], IMAGES: changed})
    with pytest.raises(ChecksumError) as caught:
        load("mnist", data_dir=tmp_path)
    for data in (content, changed):
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" in str(caught.value)
    assert f"unknown content of {len(changed)} bytes" in str(caught.value)


def test_a_truncated_file_is_corrupt_rather_than_changed(tmp_path: Path, sets: Sets):
    put(tmp_path, {**sets["mnist"], IMAGES: sets["mnist"][IMAGES][:-5]})
    with pytest.raises(CorruptDataError, match="is truncated"):
        load("mnist", data_dir=tmp_path)


def test_an_unpacked_kmnist_is_used_with_a_warning(tmp_path: Path, sets: Sets):
    put(tmp_path, sets["kmnist"])
    with pytest.warns(UserWarning, match="is used unverified") as caught:
        assert_is(load("kmnist", data_dir=tmp_path), sets["kmnist"])
    for warning, file in zip(caught, (IMAGES, LABELS), strict=True):
        assert str(warning.message).startswith(f"{tmp_path / file} is used unverified")
    wrong_shape = idx(np.ones((12, 6, 4)))
    put(tmp_path, {IMAGES: wrong_shape})
    with pytest.raises(CorruptDataError, match=r"has shape \(12, 6, 4\), but .* has \(12, 4, 6\)"):
        load("kmnist", data_dir=tmp_path)


# --- The published sets themselves ---------------------------------------------------------------


def test_the_table_is_whole():
    published = ("mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn")
    assert set(NAMES) == {"digits", "sprites", *published}
    files = [file for known in PUBLISHED.values() for file in (*known.train, *known.test)]
    assert len({file.digest for file in files}) == 12
    for file in files:
        algorithm, value = file.digest.split(":")
        assert len(value) == 2 * hashlib.new(algorithm).digest_size
        int(value, 16)
    for known in PUBLISHED.values():
        assert all(mirror.endswith("/") for mirror in known.mirrors)
        assert [math.prod(file.shape) for file in known.train] == [60000 * 784, 60000]
        assert [math.prod(file.shape) for file in known.test] == [10000 * 784, 10000]


REAL = os.environ.get("CONVVAE_DATA")
needs_mnist = pytest.mark.skipif(not REAL, reason="CONVVAE_DATA does not name the MNIST files")


@needs_mnist
@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_real_mnist(split: Split, counts: list[int]):
    mnist = load("mnist", split, data_dir=Path(str(REAL)))
    assert mnist.images.shape == (sum(counts), 1, 28, 28)
    assert mnist.labels is not None
    assert mnist.labels.bincount().tolist() == counts


@needs_mnist
def test_real_mnist_is_not_taken_for_another_set():
    raw = Path(str(REAL)) / "MNIST" / "raw"
    for other in ("fashion-mnist", "kmnist"):
        with pytest.raises(ChecksumError, match="is mnist's t10k-images-idx3-ubyte"):
            load(other, "test", data_dir=raw)
    content = (raw / "t10k-labels-idx1-ubyte").read_bytes()
    assert identify(content, content) == "mnist's t10k-labels-idx1-ubyte"
