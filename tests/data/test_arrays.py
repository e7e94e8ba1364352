"""Arrays of images of one's own: npy, npz and idx files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from own_pictures import WHOLE

from convvae import errors
from convvae.data import Preparation, load

pytestmark = pytest.mark.usefixtures("own_cache")

VALUES = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)


def expected(channels_last):
    return torch.tensor(channels_last).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("array", "result"),
    [
        (VALUES, VALUES),
        (VALUES.transpose(0, 3, 1, 2), VALUES),
        (VALUES[..., 0], VALUES[..., :1]),
        (VALUES > 99, (VALUES > 99) * np.uint8(255)),
        (VALUES.astype(np.uint16) * 256 + 7, VALUES),
        ((VALUES / 255).astype(np.float32), VALUES),
        (VALUES / 255, VALUES),
    ],
)
def test_arrays_of_every_kind(array, result, monkeypatch):
    monkeypatch.setattr("convvae.data.own.arrays._CHUNK_BYTES", 1000)
    array = np.ascontiguousarray(array)
    np.save("a.npy", array)
    found = load("a.npy", prepare=WHOLE)
    assert torch.equal(found.images, expected(result))
    assert list(found.names) == [str(n) for n in range(6)]
    for keys in (("images", "labels"), ("x", "y")):
        np.savez_compressed("a.npz", **dict(zip(keys, (array, np.arange(6) + 4), strict=True)))
        packed = load("a.npz", prepare=WHOLE)
        assert torch.equal(packed.images, found.images)
        assert packed.labels.tolist() == [4, 5, 6, 7, 8, 9]


def test_arrays_are_resized_and_divided_like_files():
    np.save("a.npy", VALUES)
    found = load("a.npy", prepare=Preparation(image_size=(16, 16), channels=1, split="0.5"))
    assert found.images.shape[1:] == (1, 16, 16)
    test = load("a.npy", "test", prepare=Preparation(image_size=(16, 16), channels=1, split="0.5"))
    assert sorted([*found.names, *test.names]) == [str(n) for n in range(6)]


def test_an_idx_file_and_the_labels_beside_it(capsys):
    def idx(array):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        return head + array.tobytes()

    Path("my-images-idx3-ubyte").write_bytes(idx(VALUES[..., 0]))
    assert load("my-images-idx3-ubyte", prepare=WHOLE).labels is None
    Path("my-labels-idx1-ubyte").write_bytes(idx(np.arange(6, dtype=np.uint8)))
    Path("my-images-idx3-ubyte").touch()
    shutil.rmtree("cache")
    found = load("my-images-idx3-ubyte", prepare=WHOLE)
    assert torch.equal(found.images, expected(VALUES[..., :1]))
    assert found.labels.tolist() == list(range(6))
    assert "labels from my-labels-idx1-ubyte" in capsys.readouterr().err


class Trap:
    def __reduce__(self):
        return (Path("trapped").touch, ())


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_pickled_objects_are_refused_and_never_run(name):
    array = np.array([Trap(), Trap()], dtype=object)
    if name == "a.npy":
        np.save(name, array, allow_pickle=True)
    else:
        np.savez(name, images=array)
    with pytest.raises(errors.CorruptDataError, match="holds pickled Python objects"):
        load(name)
    assert not Path("trapped").exists()


def with_nan():
    values = (VALUES / 255).astype(np.float32)
    values[4, 2, 3, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (VALUES.astype(np.int64), r"dtype int64; expected uint8, uint16, bool, or floats"),
        (VALUES.astype(np.float32), r"floats from 0 to 255; expected \[0, 1\]"),
        (with_nan(), "image 4 holds NaN or infinity"),
        (VALUES[0, 0], r"shape \[9, 3\]; expected \[N, H, W\]"),
        (np.zeros((2, 8, 8, 7), np.uint8), r"shape \[2, 8, 8, 7\]; expected"),
        (np.zeros((2, 3, 8, 3), np.uint8), "both axis 1 and axis 3 could be the channels"),
        (np.zeros((0, 8, 8), np.uint8), r"shape \[0, 8, 8\]"),
        (np.asfortranarray(VALUES), "Fortran's order"),
    ],
)
def test_arrays_that_are_no_images(array, says):
    np.save("a.npy", array)
    with pytest.raises(errors.CorruptDataError, match=says):
        load("a.npy")


def test_archives_of_arrays_that_are_no_images():
    np.savez("a.npz", pictures=VALUES)
    with pytest.raises(errors.CorruptDataError, match="holds pictures; expected an array named"):
        load("a.npz")
    np.savez("a.npz", images=VALUES, labels=np.arange(5))
    with pytest.raises(errors.CorruptDataError, match=r"6 images but labels of shape \[5\]"):
        load("a.npz")
    np.savez("a.npz", images=VALUES, labels=np.arange(6) / 2)
    with pytest.raises(errors.CorruptDataError, match=r"labels in .* has dtype float64"):
        load("a.npz")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_truncated_arrays(name):
    np.save("a.npy", VALUES)
    np.savez("a.npz", images=VALUES)
    file = Path(name)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(errors.CorruptDataError, match=rf"{name}.* is (truncated|damaged)"):
        load(name)
