"""CIFAR and SVHN, from archives made here in the layout of the published ones."""

import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from convvae import errors
from convvae.data import load
from convvae.data.published.colour import COLOUR

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVVAE_DATA", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def publish(monkeypatch, name, split, content):
    """Have the files of a set be checked against what was made here, and no network asked."""
    known = COLOUR[name]
    md5 = f"md5:{hashlib.md5(content).hexdigest()}"
    files = {**known.files, split: replace(known.files[split], digest=md5)}
    mirrors = ("http://127.0.0.1:9/",)
    monkeypatch.setitem(COLOUR, name, replace(known, files=files, mirrors=mirrors))


def cifar(name, count=4):
    """An archive, and the images and labels of its splits."""
    known, members, truth = COLOUR[name], {}, {}
    for split, files in known.members.items():
        images = RANDOM.integers(0, 256, (len(files), count, 3, 32, 32), dtype=np.uint8)
        labels = RANDOM.integers(0, 10, (len(files), count, known.label_bytes), dtype=np.uint8)
        for file, part, own in zip(files, images, labels, strict=True):
            records = np.concatenate([own, part.reshape(count, -1)], 1)
            members[file] = records.tobytes()
        truth[split] = images.reshape(-1, 3, 32, 32), labels[..., -1].flatten()
    members[known.names] = "\n".join(f"class{n}" for n in range(10)).encode() + b"\n\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for file, content in members.items():
            info = tarfile.TarInfo(file)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue(), truth


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar_is_read_from_its_records(folder, monkeypatch, name, split):
    content, truth = cifar(name)
    publish(monkeypatch, name, split, content)
    (folder / f"{COLOUR[name].files[split].name}.gz").write_bytes(content)
    found = load(name, split, data_dir=folder)
    images, labels = truth[split]
    assert torch.equal(found.images, torch.tensor(images))
    assert found.labels.tolist() == labels.tolist()
    assert found.classes == tuple(f"class{n}" for n in range(10))


def test_svhn_is_read_from_its_matrices(folder, monkeypatch):
    images = RANDOM.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    labels = np.array([1, 10, 3, 9, 10], np.uint8)
    file = io.BytesIO()
    savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": labels[:, None]})
    publish(monkeypatch, "svhn", "test", file.getvalue())
    (folder / "test_32x32.mat").write_bytes(file.getvalue())
    found = load("svhn", "test", data_dir=folder)
    assert torch.equal(found.images, torch.tensor(images))
    assert found.labels.tolist() == [1, 0, 3, 9, 0]


def test_another_file_under_the_name_is_refused(folder):
    (folder / "test_32x32.mat").write_bytes(b"something else")
    with pytest.raises(
        errors.ChecksumError, match=r"test_32x32.mat is not svhn's .* expected md5:"
    ):
        load("svhn", "test", data_dir=folder)


def test_an_archive_without_the_records_is_refused(folder, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz"):
        pass
    publish(monkeypatch, "cifar10", "test", packed.getvalue())
    (folder / "cifar-10-binary.tar.gz").write_bytes(packed.getvalue())
    with pytest.raises(errors.CorruptDataError, match="does not hold cifar10"):
        load("cifar10", "test", data_dir=folder)


def test_a_mirror_is_asked_for_the_name_as_it_is(folder, monkeypatch):
    asked = []

    def send(url, out, *_):
        asked.append(url)
        out.write(b"not the file")

    monkeypatch.setattr("convvae.data.published.download._send", send)
    for name in ("svhn", "cifar10"):
        with pytest.raises(errors.ChecksumError, match="wrong content"):
            load(name, "test", data_dir=folder)
    assert asked == [
        "https://ufldl.stanford.edu/housenumbers/test_32x32.mat",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ]


def test_the_digests_are_whole():
    for known in COLOUR.values():
        for file in known.files.values():
            algorithm, value = file.digest.split(":")
            assert algorithm == "md5"
            assert len(bytes.fromhex(value)) == 16
