"""Fetching one published file: mirrors in turn, checked before anything is written."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from convvae.data.published.idx import decompress
from convvae.errors import ChecksumError, CorruptDataError, DownloadError
from convvae.files import atomic, expand, make_folder, write_bytes

if TYPE_CHECKING:
    from requests import RequestException, Response

    from convvae.data.published.mnist import PublishedFile


_TIMEOUT = (10.0, 20.0)
"""Seconds to connect, and between two parts of an answer."""
MOST_BYTES = 1 << 29
"""Of a file: three times the largest that is published."""
SLOWEST, _PATIENCE = 4096, 30.0
"""Bytes per second, on the average of so many seconds or more, below which a mirror is left."""
_HERE = ("127.0.0.1", "localhost", "::1")
"""What is sent by this machine to itself needs no encryption."""
_CHUNK = 1 << 16
_ADVICE = "name a folder that you may write with CONVVAE_CACHE"


def cache_folder() -> Path:
    """Where downloads are kept: the folder in CONVVAE_CACHE, else the user's cache folder."""
    if named := os.environ.get("CONVVAE_CACHE"):
        return expand(Path(named))
    import pooch

    return Path(pooch.os_cache("convvae"))


def download(file: PublishedFile, mirrors: tuple[str, ...], folder: Path) -> Path:
    """Fetch a file from the first mirror that has it, and keep it in `folder`.

    The kept file holds the bytes that the published digest speaks of: the decompressed content, or
    the `.gz` as it came. It appears under its name only when it is whole and verified.

    Args:
        file: What to fetch.
        mirrors: Addresses ending in a slash, tried in turn.
        folder: Made if it does not exist.

    Returns:
        The path of the kept file.

    Raises:
        ChecksumError: no mirror had the file, and at least one had other content under its name.
        DownloadError: no mirror had the file.
        OutputError: `folder` cannot be written.
    """
    make_folder(folder, _ADVICE)
    data = _first_good(file, mirrors)
    kept, suffix = (data, ".gz") if file.digest_of_gz else (decompress(data, file.name), "")
    path = folder / f"{file.name}{suffix}"
    write_bytes(path, kept, _ADVICE)
    return path


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """A file that one address has: the copy in `folder`, else fetched and kept there.

    Args:
        url: Its last part is the file's name.
        sha256: Of the file, hexadecimal; a copy that was there before is checked as well.
        folder: Made if it does not exist.

    Raises:
        ChecksumError: the file has another content.
        DownloadError: it is not there and could not be fetched.
        OutputError: `folder` cannot be written.
    """
    from requests import RequestException

    path = folder / url.rpartition("/")[2]
    if path.is_file():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ChecksumError(f"{path} is not the file published at {url}; delete it")
        return path
    make_folder(folder, _ADVICE)
    try:
        # Not by `pooch.retrieve`, whose own file beside the place stays when the process is killed.
        _send(url, body := BytesIO(), MOST_BYTES)
    except RequestException as error:
        raise DownloadError(
            f"{url} could not be downloaded ({_short(error)}); put the file there yourself: {path}"
        ) from error
    if hashlib.sha256(body.getbuffer()).hexdigest() != sha256:
        raise ChecksumError(f"{url} sent another file than was published; try again later")
    write_bytes(path, body.getbuffer(), _ADVICE)
    return path


def fetch_small(url: str, most: int) -> bytes:
    """What an address has, which is kept nowhere.

    Args:
        url: The address.
        most: Bytes that it may be.

    Raises:
        DownloadError: it could not be fetched.
    """
    from requests import RequestException

    try:
        _send(url, body := BytesIO(), most)
    except RequestException as error:
        raise _unreachable(url, error) from error
    return body.getvalue()


def fetch_large(url: str, path: Path, size: int, sha256: str) -> None:
    """Fetch a file of a known size and digest through the disk, never held in memory.

    Args:
        url: The address.
        path: The file to write, whole or not at all.
        size: Its bytes; more are not taken.
        sha256: Of the file, hexadecimal.

    Raises:
        ChecksumError: the address has another file.
        DownloadError: it could not be fetched.
        OutputError: it cannot be written.
    """
    from requests import RequestException

    with atomic(path, _ADVICE) as temporary:
        with temporary.open("wb") as out:
            try:
                _send(url, out, size)
            except RequestException as error:
                raise _unreachable(url, error) from error
        with temporary.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ChecksumError(
                    f"{url} is not the file that its index describes (its sha256 is another); "
                    "publish both anew, or try again later"
                )


def _unreachable(url: str, error: RequestException) -> DownloadError:
    return DownloadError(
        f"{url} could not be downloaded ({_short(error)}); look at the address and at the network, "
        "then try again"
    )


def _first_good(file: PublishedFile, mirrors: tuple[str, ...]) -> bytes:
    """The file as the first mirror with the published content sends it."""
    from requests import RequestException

    published = f"{file.name}.gz" if file.packed else file.name
    reasons: list[str] = []
    wrong_content = False
    for mirror in mirrors:
        url = f"{mirror}{published}"
        try:
            _send(url, body := BytesIO(), MOST_BYTES)
            data = body.getvalue()
            difference = file.difference(data, decompress(data, url))
        except RequestException as error:
            reasons.append(f"{mirror}: {_short(error)}")
        except CorruptDataError as error:
            wrong_content = True
            reasons.append(f"{mirror}: wrong content, {error}")
        else:
            if difference is None:
                return data
            wrong_content = True
            reasons.append(f"{mirror}: wrong content, {difference}")
    raise (ChecksumError if wrong_content else DownloadError)(
        f"{file.dataset}'s {published} could not be downloaded ({'; '.join(reasons)}); put the "
        "files in a folder and name it with `data_dir` or CONVVAE_DATA"
    )


def _short(error: RequestException) -> str:
    """A failed request in a few words: "HTTP 404", "timed out", "ConnectionError"."""
    from requests import RequestException, Timeout

    if error.response is not None:
        return f"HTTP {error.response.status_code}"
    if type(error) is RequestException:  # one of `_send`
        return str(error)
    return "timed out" if isinstance(error, Timeout) else type(error).__name__


def _send(url: str, out: BinaryIO, most: int) -> None:
    """Write the body of `url`, with a progress bar on a terminal and one plain line elsewhere.

    Args:
        url: Where it is.
        out: What it is written to.
        most: Bytes that it may be.

    Raises:
        requests.RequestException: there was no whole answer, or it came in the clear, without end,
            or too slowly.
    """
    import requests
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # A server that also compresses in transit would have the .gz unpacked on arrival.
    headers = {"Accept-Encoding": "identity"}
    _check_encrypted(url)
    if not console.is_terminal:
        console.print(f"downloading {url}", soft_wrap=True, markup=False, highlight=False)
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as answer,
    ):
        for step in (*answer.history, answer):
            _check_encrypted(step.url)
        answer.raise_for_status()
        length = answer.headers.get("Content-Length", "")
        task = bar.add_task(url, total=int(length) if length.isdecimal() else None)
        for part in _bounded(_parts(answer), most):
            out.write(part)
            bar.advance(task, len(part))


def _check_encrypted(url: str) -> None:
    """Check that nobody on the way can put another file in the place of this one.

    Raises:
        requests.RequestException: anybody can.
    """
    from requests import RequestException

    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _HERE:
        raise RequestException(f"{url} is not https")


def _parts(answer: Response) -> Iterator[bytes]:
    """What comes, as it comes: `iter_content` waits for whole parts, from a slow sender for ever.

    Raises:
        requests.RequestException: it breaks off.
    """
    from requests import ReadTimeout
    from requests.exceptions import ChunkedEncodingError
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    try:
        while part := answer.raw.read1(_CHUNK, decode_content=True):
            yield part
    except ReadTimeoutError as error:
        raise ReadTimeout(str(error)) from error
    except HTTPError as error:
        raise ChunkedEncodingError(str(error)) from error


def _bounded(parts: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The parts of an answer, as long as it is not too long and does not take too long.

    Raises:
        requests.RequestException: it is, or it does.
    """
    from requests import RequestException

    began, size = time.monotonic(), 0
    for part in parts:
        size += len(part)
        seconds = time.monotonic() - began
        if size > most:
            raise RequestException(f"more than {most:,} bytes")
        if seconds > _PATIENCE and size < SLOWEST * seconds:
            raise RequestException(f"{size:,} bytes in {seconds:.0f} s")
        yield part
