"""Writing files whole or not at all.

A file is written beside its place under a name of its own, forced to the disk, and renamed; then
the folder is forced to the disk, so that a loss of power leaves the old file or the new one. While
it is written its process holds a lock on it, which ends with the process however that ends: what a
killed one left is told by its lock being free, never by the clock, and is removed by the next
process that writes to the folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedReader
from pathlib import Path

from convvae.errors import DiskFailedError, DiskFullError, MissingFolderError, OutputError

try:
    import fcntl
except ModuleNotFoundError:  # Windows: nothing is locked there, and nothing taken for left behind
    fcntl = None

_ADVICE = "choose a place that you may write to"
_MARK, _ENDING = ".convvae-", ".tmp"
"""Of the names of files in the making."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF, errno.EISDIR}
"""What systems say whose folders cannot be forced to the disk."""


@contextmanager
def atomic(path: Path, advice: str = _ADVICE) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it when the block ends without an error.

    Args:
        path: The file to write; its folder is made if it is not there.
        advice: The next step to name when it cannot be written.

    Raises:
        OutputError: the folder cannot be made or written; what was at `path` is untouched.
    """
    try:
        path = path.resolve()
        is_taken = path.exists() and not path.is_file()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise OutputError(f"cannot write {path}: {error}; {advice}") from error
    if is_taken:
        raise OutputError(f"cannot write {path}: it is not a file; {advice}")
    make_folder(path.parent, advice)
    _sweep(path.parent)
    try:
        handle, temporary = _owned(lambda: tempfile.mkstemp(_ENDING, _MARK, path.parent))
    except OSError as error:
        raise write_error(path, error, advice) from error
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _force(temporary)
        temporary.replace(path)
        _force_folder(path.parent)
    except OSError as error:
        if error.errno == errno.EPIPE:  # of what was printed meanwhile
            raise
        raise write_error(path, error, advice) from error
    finally:
        with suppress(OSError):  # it would hide what went wrong; the next process removes it
            temporary.unlink(missing_ok=True)
        _close(handle)


def write_error(
    path: Path, error: OSError, advice: str = _ADVICE, what: str = "write"
) -> OutputError:
    """The error for what the system said when a file was written.

    Args:
        path: The file, or a folder.
        error: What it said.
        advice: The next step to name.
        what: What could not be done with it.
    """
    start = f"cannot {what} {path}: {os.strerror(error.errno) if error.errno else error}"
    if error.errno in _FULL:
        return DiskFullError(f"{start}; free some space there, or {advice}")
    if error.errno == errno.EIO:
        return DiskFailedError(f"{start}; the disk may be failing: look at it, or {advice}")
    return OutputError(f"{start}; {advice}")


def is_of_disk(error: OSError) -> bool:
    """Whether it says that the disk is full, or that it failed."""
    return error.errno in _FULL or error.errno == errno.EIO


@contextmanager
def folder_in_the_making(root: Path, advice: str = _ADVICE) -> Iterator[Path]:
    """A new folder in another, to be filled and moved; it is removed where it was not moved.

    Args:
        root: The folder that it is in, which must exist.
        advice: The next step to name when it cannot be written.

    Raises:
        OutputError: it cannot be written.
    """
    _sweep(root)
    try:
        handle, folder = _owned(lambda: (None, tempfile.mkdtemp(_ENDING, _MARK, root)))
    except OSError as error:
        raise write_error(root, error, advice) from error
    try:
        yield folder
    except OSError as error:
        raise write_error(root, error, advice) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _close(handle)


def move_folder(folder: Path, target: Path) -> None:
    """Force a folder of files to the disk, then give it its name.

    Raises:
        FileExistsError: the name is taken by a folder that is not empty.
        OSError: it cannot be written.
    """
    for path in folder.iterdir():
        _force(path)
    _force_folder(folder)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(error.errno, error.strerror) from error
        raise
    _force_folder(target.parent)


def move_files(folder: Path, targets: Iterable[Path]) -> None:
    """Force files to the disk, then give them their names, in their order.

    Args:
        folder: Where they are, under the names that they shall have.
        targets: What they are to be, all in one folder of the same disk.

    Raises:
        OutputError: one of the names is a folder's.
        OSError: they cannot be written.
    """
    paths = list(targets)
    for path in paths:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is not a file; {_ADVICE}")
        _force(folder / path.name)
    for path in paths:
        (folder / path.name).replace(path)
    _force_folder(paths[0].parent)


def _owned(make: Callable[[], tuple[int | None, str]]) -> tuple[int | None, Path]:
    """What is made, a new file or folder, and the descriptor that holds its lock."""
    while True:
        handle, name = make()
        if fcntl is None:
            _close(handle)
            return None, Path(name)
        handle = os.open(name, os.O_RDONLY) if handle is None else handle
        try:
            _lock(handle)
            if _is(handle, name):
                return handle, Path(name)
        except BlockingIOError:
            pass
        except OSError:  # a disk without locks, where nothing can be taken for left behind
            return handle, Path(name)
        os.close(handle)  # another process took it for left behind, just before it was locked


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


@cache
def _sweep(root: Path) -> None:
    """Remove what is in the making while its process has ended, once per process and folder."""
    for path in root.glob(f"{_MARK}*{_ENDING}") if fcntl else ():
        with suppress(OSError):
            # Neither what a link leads to, nor waiting at a pipe of that name.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                _lock(handle)
                if _is(handle, path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


def _lock(handle: int) -> None:
    """Lock a file or folder until it is closed.

    Raises:
        BlockingIOError: another holds it.
        OSError: it cannot be locked.
    """
    assert fcntl is not None
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is(handle: int, path: str | Path) -> bool:
    """Whether an open file is what its name says."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _force(path: Path) -> None:
    """Have the disk store a file, or the names in a folder, before this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _force_folder(path: Path) -> None:
    """The same for a folder, where the system can."""
    try:
        _force(path)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def make_folder(path: Path, advice: str = _ADVICE) -> None:
    """Make a folder and those above it, if they are not there.

    Args:
        path: The folder.
        advice: The next step to name when it cannot be made.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _force_folder(folder.parent)
    except OSError as error:
        raise write_error(path, error, advice, "make the folder") from error


def make_empty_folder(path: Path) -> None:
    """Make a folder that is new, or take one that holds nothing.

    Raises:
        OutputError: it holds something, or cannot be made.
    """
    make_folder(path)
    _sweep(path)
    if any(path.iterdir()):
        raise OutputError(f"the folder {path} is not empty; name a new one")


def check_free(
    paths: Iterable[Path], setting: str, *, overwrite: bool, inputs: Iterable[Path] = ()
) -> None:
    """Refuse to write over what is there, before the work.

    Args:
        paths: Files that a command would write.
        setting: Name of the setting that chooses another place.
        overwrite: Whether what is there is replaced.
        inputs: What the command reads, which is never replaced.

    Raises:
        OutputError: one of them exists, or is what the command reads.
    """
    # A folder in the place of a file is not replaced: whoever writes the file says so.
    taken = [path for path in paths if os.path.lexists(path) and not path.is_dir()]
    read = [path for path in inputs if is_there(path)]
    for path in taken:
        if is_there(path) and any(path.samefile(one) for one in read):
            raise OutputError(
                f"{path} is what this command reads, and would be replaced; choose another place "
                f"with `{setting}`"
            )
    if taken and not overwrite:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise OutputError(
            f"{taken[0]}{more} would be replaced; choose another place with `{setting}`, or "
            "replace it with `overwrite=True`"
        )


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file to read it.

    A pipe would wait for whoever writes to it, and a device may go on without end.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says which.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, "no file can have such a name", str(path)) from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "it is a folder" if stat.S_ISDIR(mode) else "it is a device or a pipe"
        raise OSError(errno.EINVAL, f"{kind}, not a file", str(path))
    return os.fdopen(handle, "rb")


def is_there(path: Path) -> bool:
    """Whether a path leads to something; one that no file can have, or a loop, leads to nothing."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def expand(path: Path) -> Path:
    """The path with `~` and `~user` written out.

    Raises:
        MissingFolderError: there is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise MissingFolderError(f"{path}: no home folder of that user; write it out") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview, advice: str = _ADVICE) -> None:
    """Write a file whole or not at all.

    A library's own writer loses the reason for which it failed, or stops at a write that was cut
    short: let it write to memory, and this to the file.

    Args:
        path: The file; its folder is made if it is not there.
        content: All of it.
        advice: The next step to name when it cannot be written.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic(path, advice) as temporary:
        temporary.write_bytes(content)


def append_text(path: Path, text: str) -> None:
    """Add to the end of a text file all of a text, or nothing.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                write_at(file.fileno(), text.encode(), end)
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise write_error(path, error) from error


def write_at(handle: int, content: bytes | memoryview, place: int) -> None:
    """Write all of the content at a place of an open file, in as many writes as that takes.

    Raises:
        OSError: it cannot be written.
    """
    rest = memoryview(content)
    while rest:
        done = os.pwrite(handle, rest, place)
        rest, place = rest[done:], place + done


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
