"""Downloads of published sets, from mirrors on this machine."""

import hashlib
import io
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from mirror_server import Server
from published_sets import IMAGES, LABELS, Sets, assert_is, gz, put

from convvae.data import load
from convvae.data.published.colour import COLOUR
from convvae.data.published.download import fetch, fetch_small
from convvae.data.published.mnist import PUBLISHED, digest
from convvae.errors import (
    ChecksumError,
    DownloadError,
    OutputError,
)

pytestmark = pytest.mark.usefixtures("no_folder_of_the_user")


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


def test_every_mirror_is_asked_over_https():
    mirrors = [m for known in (PUBLISHED, COLOUR) for each in known.values() for m in each.mirrors]
    assert len(mirrors) >= 6
    assert all(mirror.startswith("https://") for mirror in mirrors)


def test_nothing_is_fetched_in_the_clear(tmp_path: Path):
    with pytest.raises(DownloadError, match=r"http://example\.com/weights\.bin is not https"):
        fetch("http://example.com/weights.bin", "", tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_an_answer_that_leads_into_the_clear_is_not_taken(tmp_path, monkeypatch):
    class Answer(requests.Response):
        def __init__(self, url):
            super().__init__()
            self.url, self.status_code, self.raw = url, 200, io.BytesIO()

    last = Answer("https://example.com/weights.bin")
    last.history = [Answer("http://example.com/weights.bin")]
    monkeypatch.setattr("requests.get", lambda *_, **__: last)
    with pytest.raises(DownloadError, match="is not https"):
        fetch("https://example.com/weights.bin", "", tmp_path / "kept")


def test_an_answer_without_end_is_left(tmp_path: Path, server: Server, monkeypatch):
    monkeypatch.setattr("convvae.data.published.download.MOST_BYTES", 100_000)
    server.answers["/a/weights.bin"] = (200, b"x" * 200_000)
    with pytest.raises(DownloadError, match="more than 100,000 bytes"):
        fetch(server.mirror("a") + "weights.bin", "", tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_an_answer_that_hardly_comes_is_left(tmp_path: Path, server: Server, monkeypatch):
    monkeypatch.setattr("convvae.data.published.download._PATIENCE", 0.0)
    monkeypatch.setattr("convvae.data.published.download.SLOWEST", 1e12)
    server.answers["/a/weights.bin"] = (200, b"x" * 1000)
    with pytest.raises(DownloadError, match="1,000 bytes in 0 s"):
        fetch(server.mirror("a") + "weights.bin", "", tmp_path / "kept")


def test_an_answer_that_drips_is_left(server: Server, monkeypatch):
    """Every byte comes in time, and a whole part of the answer would take for ever."""
    monkeypatch.setattr("convvae.data.published.download._PATIENCE", 0.2)
    server.answers["/a/index.json"] = (200, b"x" * 300)
    server.pause = 0.01
    with pytest.raises(DownloadError, match=r"\d+ bytes in 0 s"):
        fetch_small(server.mirror("a") + "index.json", 1000)


def test_importing_loads_nothing_that_only_some_sources_need():
    code = (
        "import sys, convvae.data; print({'sklearn', 'pooch', 'requests', 'rich'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
