"""A cache that is not as it was written is made anew: nothing is learnt from it."""

import json
import os
import resource

import numpy as np
import pytest
import torch
from own_pictures import WHOLE

from convvae.data import load
from convvae.data.cache import check, store

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def entry(pets, own_cache):
    """The folder of an entry, and the images that belong into it; nothing is known of it yet."""
    images = load("pets", prepare=WHOLE)
    expected = images.images.clone(), images.labels.clone(), list(images.names)
    (folder,) = (path for path in own_cache.iterdir() if path.is_dir())
    for path in folder.iterdir():
        path.chmod(0o644)
    check._known.clear()
    return folder, expected


def as_before(expected):
    found = load("pets", prepare=WHOLE)
    images, labels, names = expected
    assert torch.equal(found.images, images)
    assert torch.equal(found.labels, labels)
    assert list(found.names) == names
    return found


def keeping_times(path, content):
    """Write a file as a disk does that loses a block: without a new time."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["pixels", "names.json", "labels.npy", "digests.npy"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_flipped_bit(entry, name, place, capsys):
    folder, expected = entry
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1
    keeping_times(folder / name, content)
    capsys.readouterr()
    as_before(expected)
    assert "read 20 images" in capsys.readouterr().err


def test_a_block_of_zeros(entry):
    folder, expected = entry
    content = bytearray((folder / "pixels").read_bytes())
    content[512:1024] = bytes(512)
    keeping_times(folder / "pixels", content)
    as_before(expected)


@pytest.mark.parametrize("change", [{"test": 3}, {"order": "content"}, {"shape": [20, 3, 10, 8]}])
def test_other_facts(entry, change):
    folder, expected = entry
    sealed = json.loads((folder / "entry.json").read_text())
    sealed["facts"] |= change
    keeping_times(folder / "entry.json", json.dumps(sealed).encode())
    as_before(expected)


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", "[" * 100_000, '{"digest": 9}'])
def test_facts_that_are_none(entry, text):
    folder, expected = entry
    (folder / "entry.json").write_text(text)
    as_before(expected)


def test_a_cut_file(entry):
    folder, expected = entry
    keeping_times(folder / "pixels", (folder / "pixels").read_bytes()[:-1])
    as_before(expected)


def test_an_entry_without_digests_is_made_anew_under_its_name(entry):
    """Runs that were begun with it go on: its name is what they know the images by."""
    folder, expected = entry
    sealed = json.loads((folder / "entry.json").read_text())
    before = load("pets", prepare=WHOLE).fingerprint
    check._known.clear()
    (folder / "entry.json").write_text(json.dumps(sealed["facts"]))
    assert as_before(expected).fingerprint == before
    assert "blocks" in json.loads((folder / "entry.json").read_text())


def test_a_whole_entry_is_not_made_anew(entry, capsys):
    _, expected = entry
    capsys.readouterr()
    as_before(expected)
    assert "read 20 images" not in capsys.readouterr().err


def test_every_block_has_a_digest_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "BLOCK_BYTES", 100)
    content = np.random.default_rng(0).bytes(1050)
    (tmp_path / "pixels").write_bytes(content)
    before = check._blocks(tmp_path / "pixels")
    (tmp_path / "pixels").write_bytes(content[:450] + b"x" + content[451:])
    after = check._blocks(tmp_path / "pixels")
    assert len(before) == 11
    assert [a == b for a, b in zip(before, after, strict=True)] == [n != 4 for n in range(11)]


def test_pixels_are_not_to_be_written_to(pets, own_cache):
    load("pets", prepare=WHOLE)
    (path,) = own_cache.glob("*/pixels")
    assert path.stat().st_mode & 0o222 == 0


def test_what_another_process_found_whole_is_not_read_again(entry, monkeypatch):
    folder, expected = entry
    as_before(expected)
    known = check.known()
    check._known.clear()
    check.trust(known)
    read = []
    of = check._blocks
    monkeypatch.setattr(check, "_blocks", lambda path: read.append(path) or of(path))
    as_before(expected)
    assert read == []
    # Its word holds for the files that it saw, and for no others.
    os.utime(folder / "pixels", ns=(1, 1))
    as_before(expected)
    assert read == [folder / "pixels"]


@pytest.fixture
def small_files():
    """A system that lets files grow to 200 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_numbers_that_a_system_refuses_behind_their_head(tmp_path):
    """NumPy itself does not look what becomes of the bytes that it hands over last."""
    with pytest.raises(OSError, match="File too large"):
        store._save(tmp_path / "digests.npy", np.zeros((40, 16), np.uint8))
