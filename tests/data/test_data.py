import gzip
import hashlib
import math
import os
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convvae.data import NAMES, ImageSet, Split, fit, load, read_idx, resize
from convvae.data.pixels import binarize, binarize_once
from convvae.data.published.download import fetch
from convvae.data.published.mnist import PUBLISHED, PublishedFile, digest, identify
from convvae.errors import (
    ChecksumError,
    ConfigError,
    CorruptDataError,
    DownloadError,
    ImageSizeError,
    MissingFolderError,
    OutputError,
    UnknownDataError,
)

Sets = dict[str, dict[str, bytes]]
SPLITS: tuple[tuple[Split, int], ...] = (("train", 12), ("test", 5))
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


# --- Small stand-ins for the three published sets, under their names and with their own digests ---


@pytest.fixture(autouse=True)
def no_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing outside the test is read or written unless the test asks for it."""
    monkeypatch.delenv("CONVVAE_DATA", raising=False)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> Sets:
    """The content of every file of three sets of 12 and 5 images of 4x6, by set and file name."""
    contents: Sets = {}
    for seed, name in enumerate(PUBLISHED):
        contents[name] = {}
        random = np.random.default_rng(seed)
        splits: dict[str, tuple[PublishedFile, ...]] = {}
        for split, count in SPLITS:
            files = []
            for file, shape in zip(
                PUBLISHED[name].files(split), ((count, 4, 6), (count,)), strict=True
            ):
                content = idx(random.integers(0, 256 if len(shape) == 3 else 10, shape))
                contents[name][file.name] = content
                algorithm = file.digest.partition(":")[0]
                published = digest(algorithm, gz(content) if file.digest_of_gz else content)
                files.append(replace(file, shape=shape, digest=published))
            splits[split] = tuple(files)
        small = replace(PUBLISHED[name], mirrors=("http://127.0.0.1:9/",), **splits)
        monkeypatch.setitem(PUBLISHED, name, small)
    return contents


def put(folder: Path, files: dict[str, bytes], *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(
            gz(content) if packed else content
        )
    return folder


def values(content: bytes) -> torch.Tensor:
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return torch.tensor(list(content[4 + 4 * dimensions :]), dtype=torch.uint8).reshape(shape)


def assert_is(found: ImageSet, files: dict[str, bytes], prefix: str = "train") -> None:
    assert torch.equal(found.images.squeeze(1), values(files[f"{prefix}-images-idx3-ubyte"]))
    assert found.labels is not None
    assert torch.equal(found.labels, values(files[f"{prefix}-labels-idx1-ubyte"]).long())
    assert found.images.dtype == torch.uint8
    assert found.labels.dtype == torch.int64


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
        "digits, mnist, fashion-mnist, kmnist, cifar10, cifar100, svhn, paths, and hf:OWNER/NAME"
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


# --- Downloads -----------------------------------------------------------------------------------


class Server:
    """Mirrors on this machine: `answers[path]` is a status and a body; `asked` lists the paths."""

    def __init__(self):
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.cut = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                status, body = outer.answers.get(self.path, (404, b"not here"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + outer.cut))
                # A client that has given up is not there to read.
                with suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def mirror(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}/"

    def serve(self, mirror: str, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            self.answers[f"/{mirror}/{name}.gz"] = (200, gz(content))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def use_mirrors(monkeypatch: pytest.MonkeyPatch, name: str, *mirrors: str) -> None:
    monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], mirrors=mirrors))


def kept(tmp_path: Path) -> list[str]:
    """Every file in the download cache, hidden and temporary ones too."""
    cache = tmp_path / "cache"
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_download_is_kept_and_not_repeated(
    tmp_path: Path,
    sets: Sets,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
):
    server.serve("a", sets[name])
    use_mirrors(monkeypatch, name, server.mirror("a"))
    assert_is(load(name), sets[name])
    assert server.asked == [f"/a/{IMAGES}.gz", f"/a/{LABELS}.gz"]
    suffix = ".gz" if name == "kmnist" else ""
    assert kept(tmp_path) == [f"{name}/{IMAGES}{suffix}", f"{name}/{LABELS}{suffix}"]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"downloading {server.mirror('a')}{file}.gz" for file in (IMAGES, LABELS)
    ]
    assert_is(load(name), sets[name])
    assert len(server.asked) == 2
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_progress_bar(
    sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    server.serve("a", sets["mnist"])
    use_mirrors(monkeypatch, "mnist", server.mirror("a"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert_is(load("mnist"), sets["mnist"])
    out, err = capfd.readouterr()
    assert out == ""
    assert "100%" in err


def test_the_bar_of_a_body_of_unknown_length(
    sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch
):
    """Without a Content-Length the bar has no total, and the download works all the same."""
    server.serve("a", sets["mnist"])
    use_mirrors(monkeypatch, "mnist", server.mirror("a"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(
        BaseHTTPRequestHandler,
        "send_header",
        lambda self, keyword, value: None,
    )
    assert_is(load("mnist"), sets["mnist"])


def test_mirrors_are_tried_in_turn(sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch):
    server.serve("second", sets["mnist"])
    server.serve("third", sets["mnist"])
    use_mirrors(monkeypatch, "mnist", *map(server.mirror, ("first", "second", "third")))
    assert_is(load("mnist"), sets["mnist"])
    assert server.asked == [
        f"/{mirror}/{file}.gz" for file in (IMAGES, LABELS) for mirror in ("first", "second")
    ]


def test_a_mirror_with_other_content_is_passed_over(
    tmp_path: Path, sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.serve("wrong", sets["fashion-mnist"])
    server.answers[f"/page/{IMAGES}.gz"] = (200, b"<html>please log in</html>")
    server.answers[f"/broken/{IMAGES}.gz"] = (200, gz(sets["mnist"][IMAGES])[:-9])
    server.serve("right", sets["mnist"])
    use_mirrors(monkeypatch, "mnist", *map(server.mirror, ("wrong", "page", "broken", "right")))
    assert_is(load("mnist"), sets["mnist"])
    assert kept(tmp_path) == [f"mnist/{IMAGES}", f"mnist/{LABELS}"]


def test_wrong_content_everywhere_leaves_nothing_behind(
    tmp_path: Path, sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.serve("wrong", sets["fashion-mnist"])
    server.answers[f"/broken/{IMAGES}.gz"] = (200, gz(sets["mnist"][IMAGES])[:-9])
    use_mirrors(monkeypatch, "mnist", *map(server.mirror, ("wrong", "broken", "absent")))
    with pytest.raises(ChecksumError) as caught:
        load("mnist")
    message = str(caught.value)
    expected = digest("sha256", sets["mnist"][IMAGES])
    found = digest("sha256", sets["fashion-mnist"][IMAGES])
    assert f"{server.mirror('wrong')}: wrong content, expected {expected}, found {found}" in message
    assert f"which is fashion-mnist's {IMAGES}" in message
    assert f"{server.mirror('broken')}: wrong content" in message
    assert f"{server.mirror('absent')}: HTTP 404" in message
    assert kept(tmp_path) == []


def test_a_gz_unpacked_on_the_way_is_wrong_content_where_only_the_gz_is_known(
    tmp_path: Path, sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.answers[f"/a/{IMAGES}.gz"] = (200, sets["kmnist"][IMAGES])
    use_mirrors(monkeypatch, "kmnist", server.mirror("a"))
    with pytest.raises(ChecksumError, match="wrong content"):
        load("kmnist")
    assert kept(tmp_path) == []


def test_no_mirror_at_all_lists_each_reason(
    tmp_path: Path, sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.answers[f"/down/{IMAGES}.gz"] = (503, b"")
    use_mirrors(monkeypatch, "mnist", server.mirror("down"), "http://127.0.0.1:9/")
    with pytest.raises(DownloadError) as caught:
        load("mnist")
    assert str(caught.value) == (
        f"mnist's {IMAGES}.gz could not be downloaded ({server.mirror('down')}: HTTP 503; "
        "http://127.0.0.1:9/: ConnectionError); put the files in a folder and name it with "
        "`data_dir` or CONVVAE_DATA"
    )
    assert kept(tmp_path) == []


def test_a_connection_cut_short_is_no_download(
    tmp_path: Path, sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.serve("a", sets["mnist"])
    server.cut = 10
    use_mirrors(monkeypatch, "mnist", server.mirror("a"))
    with pytest.raises(DownloadError, match=r"/a/: ChunkedEncodingError\)"):
        load("mnist")
    assert kept(tmp_path) == []


def test_a_silent_mirror_times_out(sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch):
    release = threading.Event()
    monkeypatch.setattr("convvae.data.published.download._TIMEOUT", (0.2, 0.2))
    monkeypatch.setattr(
        BaseHTTPRequestHandler, "send_response", lambda self, status: release.wait(10)
    )
    use_mirrors(monkeypatch, "mnist", server.mirror("a"))
    try:
        with pytest.raises(DownloadError, match=r"/a/: timed out\)"):
            load("mnist")
    finally:
        release.set()


def test_what_the_folder_lacks_is_downloaded(
    tmp_path: Path, sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch
):
    mine = put(tmp_path / "mine", {IMAGES: sets["mnist"][IMAGES]})
    server.serve("a", sets["mnist"])
    use_mirrors(monkeypatch, "mnist", server.mirror("a"))
    assert_is(load("mnist", data_dir=mine), sets["mnist"])
    assert server.asked == [f"/a/{LABELS}.gz"]
    assert [path.name for path in mine.iterdir()] == [IMAGES]


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_an_interrupted_write_leaves_no_file(
    tmp_path: Path, sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch, failing: str
):
    """A full disk: the part that was written goes, and no file takes its name."""

    def full(self: Path, *args: bytes) -> None:
        if failing == "write_bytes":
            with self.open("wb") as file:
                file.write(args[0][:5])
        raise OSError(28, "No space left on device")

    server.serve("a", sets["mnist"])
    use_mirrors(monkeypatch, "mnist", server.mirror("a"))
    monkeypatch.setattr(Path, failing, full)
    with pytest.raises(OutputError, match=r"cannot write .*No space left.*CONVVAE_CACHE"):
        load("mnist")
    assert kept(tmp_path) == []


def test_a_cache_that_cannot_be_made(tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot make the folder .*CONVVAE_CACHE"):
        load("mnist")


def test_without_the_environment_the_cache_is_the_users(
    tmp_path: Path, sets: Sets, server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CONVVAE_CACHE")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "user" / name)
    server.serve("a", sets["mnist"])
    use_mirrors(monkeypatch, "mnist", server.mirror("a"))
    assert_is(load("mnist"), sets["mnist"])
    assert (tmp_path / "user" / "convvae" / "mnist" / IMAGES).is_file()


def test_a_file_with_a_digest_is_fetched_once_and_checked_always(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.answers["/a/weights.bin"] = (200, b"weights")
    url, sha256 = server.mirror("a") + "weights.bin", hashlib.sha256(b"weights").hexdigest()
    path = fetch(url, sha256, tmp_path / "kept")
    assert path.read_bytes() == b"weights"
    assert fetch(url, sha256, tmp_path / "kept") == path
    assert server.asked == ["/a/weights.bin"]
    path.write_bytes(b"damaged")
    with pytest.raises(ChecksumError, match=r"weights\.bin is not the file published"):
        fetch(url, sha256, tmp_path / "kept")


def test_a_file_that_cannot_be_fetched_or_is_another_leaves_nothing(tmp_path: Path, server: Server):
    server.answers["/a/weights.bin"] = (200, b"other")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(ChecksumError, match="sent another file"):
        fetch(server.mirror("a") + "weights.bin", sha256, tmp_path / "kept")
    with pytest.raises(DownloadError, match=r"HTTP 404.*put the file there yourself"):
        fetch(server.mirror("a") + "absent.bin", sha256, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_importing_loads_nothing_that_only_some_sources_need():
    code = (
        "import sys, convvae.data; print({'sklearn', 'pooch', 'requests', 'rich'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# --- The published sets themselves ---------------------------------------------------------------


def test_the_table_is_whole():
    assert NAMES == ("digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn")
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


# --- Sizes ---------------------------------------------------------------------------------------


def noise(*shape: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)


def pillow(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """One `[H, W]` plane, resized by Pillow."""
    scaled = Image.fromarray(image.numpy()).resize(
        (size[1], size[0]), resample=Image.Resampling.BILINEAR
    )
    return torch.tensor(np.array(scaled))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((28, 28), (64, 64)),
        ((28, 28), (8, 8)),
        ((28, 28), (2, 2)),
        ((8, 8), (32, 32)),
        ((60, 40), (30, 20)),
        ((96, 8), (24, 2)),
        ((8, 96), (2, 24)),
        ((2, 1), (80, 40)),
        ((1, 1), (9, 9)),
    ],
)
def test_resize_agrees_with_pillow(old: tuple[int, int], new: tuple[int, int], channels: int):
    images = noise(3, channels, *old)
    scaled = resize(images, new)
    assert scaled.shape == (3, channels, *new)
    assert scaled.dtype == torch.uint8
    for image, result in zip(images.flatten(0, 1), scaled.flatten(0, 1), strict=True):
        expected = pillow(image, new)
        assert (result.int() - expected.int()).abs().max() <= 1


def test_resize_of_the_same_size_is_the_same_tensor():
    images = noise(2, 1, 28, 28)
    assert resize(images, (28, 28)) is images


@pytest.mark.parametrize(
    ("old", "new", "rows", "columns"),
    [
        ((10, 20), (20, 20), (5, 15), (0, 20)),
        ((20, 10), (20, 20), (0, 20), (5, 15)),
        ((20, 10), (8, 8), (0, 8), (2, 6)),
        ((10, 20), (41, 40), (10, 30), (0, 40)),
        ((28, 28), (32, 33), (0, 32), (0, 32)),
        ((100, 15), (10, 10), (0, 10), (4, 6)),
    ],
)
def test_resize_keeps_the_aspect_and_centres_on_black(
    old: tuple[int, int], new: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
):
    scaled = resize(torch.full((2, 3, *old), 255, dtype=torch.uint8), new)
    expected = torch.zeros(2, 3, *new, dtype=torch.uint8)
    expected[:, :, rows[0] : rows[1], columns[0] : columns[1]] = 255
    assert torch.equal(scaled, expected)


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 13])
def test_resize_in_chunks_is_resize_of_each(monkeypatch: pytest.MonkeyPatch, count: int):
    monkeypatch.setattr("convvae.data.images._CHUNK_BYTES", 6 * 2 * 12 * 12 + 1)
    images = noise(count, 2, 9, 7)
    scaled = resize(images, (12, 12))
    assert scaled.shape == (count, 2, 12, 12)
    for index in range(count):
        assert torch.equal(scaled[index], resize(images[index : index + 1], (12, 12))[0])


def test_fit_resizes_and_refuses_other_channels():
    images = ImageSet(noise(2, 3, 8, 8), None, "mine", "train")
    assert torch.equal(fit(images, (16, 16), 3), resize(images.images, (16, 16)))
    with pytest.raises(ImageSizeError, match="mine has 3 channels, but the model takes 1"):
        fit(images, (16, 16), 1)


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (-1, 8)])
def test_resize_to_nothing(size: tuple[int, int]):
    with pytest.raises(ConfigError, match=f"{size[0]}x{size[1]} has a side under 1"):
        resize(noise(1, 1, 8, 8), size)


@pytest.mark.parametrize(
    ("old", "size"), [((100, 1), (10, 10)), ((1, 100), (10, 10)), ((28, 28), (8, 1))]
)
def test_resize_refuses_to_leave_a_line(old: tuple[int, int], size: tuple[int, int]):
    with pytest.raises(ImageSizeError, match=f"images of {old[0]}x{old[1]} scaled into"):
        resize(noise(1, 1, *old), size)


@given(st.tuples(*[st.integers(8, 40)] * 4))
@settings(max_examples=60, deadline=None)
def test_resize_keeps_a_flat_image_flat(sides: tuple[int, int, int, int]):
    height, width, new_height, new_width = sides
    scaled = resize(torch.full((1, 1, height, width), 200, dtype=torch.uint8), sides[2:])
    assert scaled.shape == (1, 1, new_height, new_width)
    assert set(scaled.unique().tolist()) <= {0, 200}
    filled = scaled[0, 0] == 200
    assert filled.any(0).all() or filled.any(1).all()


def test_binarised_pixels_are_white_with_their_grey_values_probability():
    images = torch.tensor([0, 51, 128, 255], dtype=torch.uint8).repeat(5000).view(-1, 1, 2, 2)
    drawn = binarize(images, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0, 255}
    share = (drawn == 255).double().mean(0).flatten()
    assert share[0] == 0
    assert share[3] == 1
    assert share[1].item() == pytest.approx(51 / 255, abs=0.03)
    assert share[2].item() == pytest.approx(128 / 255, abs=0.03)


def test_a_fixed_binarisation_is_a_function_of_split_and_seed():
    images = torch.full((3, 1, 8, 8), 128, dtype=torch.uint8)
    one = binarize_once(images, "test", 1)
    assert torch.equal(one, binarize_once(images, "test", 1))
    for other in (("train", 1), ("test", 2)):
        assert not torch.equal(one, binarize_once(images, *other))
