"""A fault at any system call of a process that writes, whichever library makes the call.

Linux hands the calls of a process to another one before it carries them out (`seccomp` with a
listener, Linux 5.5 and later; no compiler, no rights and no library of the process's are needed),
so that what NumPy, Pillow, PyArrow and safetensors write from C and Rust is seen as what Python
writes. The other process lets a call pass, answers it with an error, does half of it, or kills.

Seen are the calls below that name something under a folder. Not seen: stores to mapped memory, for
which convvae has no use in writing, and the disk itself losing power.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

NUMBERS = {
    "x86_64": {
        "seccomp": 317, "pidfd_getfd": 438, "openat": 257, "open": 2, "creat": 85,
        "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "pwritev2": 328,
        "sendfile": 40, "copy_file_range": 326, "fallocate": 285, "truncate": 76, "ftruncate": 77,
        "fsync": 74, "fdatasync": 75, "msync": 26, "mkdir": 83, "mkdirat": 258, "rename": 82,
        "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265, "symlink": 88,
        "symlinkat": 266, "unlink": 87, "unlinkat": 263, "rmdir": 84, "chmod": 90, "fchmod": 91,
        "fchmodat": 268, "fchmodat2": 452,
    },
    "aarch64": {
        "seccomp": 277, "pidfd_getfd": 438, "openat": 56, "write": 64, "pwrite64": 68,
        "writev": 66, "pwritev": 70, "pwritev2": 287, "sendfile": 71, "copy_file_range": 285,
        "fallocate": 47, "truncate": 45, "ftruncate": 46, "fsync": 82, "fdatasync": 83,
        "msync": 227, "mkdirat": 34, "renameat": 38, "renameat2": 276, "linkat": 37,
        "symlinkat": 36, "unlinkat": 35, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452,
    },
}.get(platform.machine(), {})  # fmt: skip
"""What the system calls are called, and their numbers."""
WRITES = {"write", "pwrite64", "writev", "pwritev", "pwritev2"}
NEEDS_ROOM = WRITES | {
    "openat", "open", "creat", "sendfile", "copy_file_range", "fallocate", "mkdir", "mkdirat",
    "rename", "renameat", "renameat2", "fsync", "fdatasync",
}  # fmt: skip
"""Calls that a full disk may refuse; a file system that allocates late says so at fsync."""
BY_DESCRIPTOR = WRITES | {"ftruncate", "fallocate", "fsync", "fdatasync", "fchmod"}
PATHS = {
    "openat": (1,), "open": (0,), "creat": (0,), "truncate": (0,), "mkdir": (0,), "mkdirat": (1,),
    "rename": (0, 1), "renameat": (1, 3), "renameat2": (1, 3), "link": (0, 1), "linkat": (1, 3),
    "symlink": (1,), "symlinkat": (2,), "unlink": (0,), "unlinkat": (1,), "rmdir": (0,),
    "chmod": (0,), "fchmodat": (1,), "fchmodat2": (1,),
}  # fmt: skip
"""Which arguments are paths; before one of a call ending in -at stands its folder."""
OPEN_FLAGS = {"openat": 2, "open": 1}

_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTICE = struct.Struct("=QIIiIQ6Q")
_REPLY = struct.Struct("=QqiI")
_PATH_BYTES = 4096

UNWATCHED = "a fault at a system call"
"""What a proof says was tried where nothing can be."""
Kind = Literal["none", "kill", "torn", "short", "errno"]


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th call, counted from 0."""

    kind: Kind = "none"
    """Nothing; a kill before the call; a kill after half of a write; half of a write; an error."""
    place: int = -1
    number: int = 0
    """The error's number."""
    lasts: bool = False
    """Whether later calls of the kind that it hits fail as well, as on a disk that is full."""

    def hits(self, place: int, name: str) -> bool:
        """Whether it happens at a call."""
        if not (place == self.place or (self.lasts and place > self.place)):
            return False
        if self.kind in ("torn", "short"):
            return name in WRITES
        return self.number != errno.ENOSPC or name in NEEDS_ROOM


@dataclass
class Ended:
    """What became of a process."""

    code: int
    """Its exit code; negative, the signal that ended it."""
    out: str
    err: str
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Every call that was seen: its name, and what it was of."""
    done: bool = False
    """Whether the fault happened."""


def why_not() -> str | None:
    """Why faults cannot be done here; None where they can."""
    if sys.platform != "linux" or not NUMBERS:
        return "system calls can be watched on Linux alone, on x86_64 and aarch64"
    ended = run(lambda: 0, Path("/nowhere"), Fault())
    return None if ended.code == 0 else f"the system does not let its calls be watched: {ended.err}"


def run(work: Callable[[], int], watched: Path, fault: Fault, seconds: int = 600) -> Ended:
    """Do work in a process of its own, which meets a fault.

    The process is a fork of this one, which must have no threads.

    Args:
        work: Returns the exit code.
        watched: Calls that name something in this folder count.
        fault: What happens.
        seconds: After so long it is ended by SIGALRM.
    """
    ours, theirs = socket.socketpair()
    streams = [os.memfd_create("out"), os.memfd_create("err")]
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        ours.close()
        _child(work, theirs, streams, seconds)
    theirs.close()
    ended = Ended(0, "", "")
    try:
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        if descriptors:
            try:
                _Watch(descriptors[0], child, str(watched), fault, ended).go()
            finally:
                os.close(descriptors[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it started as well
        _, status = os.waitpid(child, 0)
        ended.code = os.waitstatus_to_exitcode(status)
        ours.close()
        ended.out, ended.err = (_content(stream) for stream in streams)
    return ended


def _content(stream: int) -> str:
    os.lseek(stream, 0, os.SEEK_SET)
    with open(stream, "rb") as file:
        return file.read().decode(errors="replace")


def _child(work: Callable[[], int], parent: socket.socket, streams: list[int], seconds: int):
    """Never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        signal.alarm(seconds)
        listener = _listen()
        socket.send_fds(parent, [b"x"], [listener])
        os.close(listener)
        parent.close()
        code = work()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not return
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)


def _listen() -> int:
    """Have the calls of this process handed out, and return the descriptor that hears of them."""
    libc = ctypes.CDLL(None, use_errno=True)
    load, equal, has, answer = 0x20, 0x15, 0x45, 0x06
    allow, hand_out = 0x7FFF0000, 0x7FC00000
    named = {number: name for name, number in NUMBERS.items() if name in BY_DESCRIPTOR | {*PATHS}}
    named |= {NUMBERS[name]: name for name in ("sendfile", "copy_file_range", "msync")}
    steps = [(load, 0, 0, 0)]
    for number, name in named.items():
        if name in OPEN_FLAGS:
            # Opening to read is let through in the system: O_CREAT is looked for.
            steps += [
                (equal, 0, 3, number),
                (load, 0, 0, 16 + 8 * OPEN_FLAGS[name]),
                (has, 1, 0, os.O_CREAT),
                (answer, 0, 0, allow),
                (load, 0, 0, 0),
                (equal, 0, 1, number),
                (answer, 0, 0, hand_out),
            ]
        else:
            steps += [(equal, 0, 1, number), (answer, 0, 0, hand_out)]
    steps += [(answer, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HxxxxxxP", len(steps), ctypes.addressof(code))
    if libc.prctl(38, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    found = libc.syscall(NUMBERS["seccomp"], 1, 8, program)
    if found < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return found


class _Watch:
    """Answers the calls of a process until it ends."""

    def __init__(self, listener: int, child: int, watched: str, fault: Fault, ended: Ended):
        self.listener = listener
        self.child = child
        self.watched = watched
        self.fault = fault
        self.ended = ended
        self.names = {number: name for name, number in NUMBERS.items()}

    def go(self) -> None:
        end = os.pidfd_open(self.child)
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(end, select.POLLIN)
        try:
            while True:
                ready = dict(poll.poll())
                if end in ready or ready.get(self.listener, 0) & select.POLLHUP:
                    return
                notice = bytearray(_NOTICE.size)
                try:
                    fcntl.ioctl(self.listener, _RECEIVE, notice)
                except OSError:
                    continue  # the thread that asked is gone
                self._answer(*_NOTICE.unpack(notice))
        finally:
            os.close(end)

    def _answer(self, notice: int, thread: int, _flags: int, number: int, *more: int) -> None:
        name, args = self.names[number], more[2:]
        reply: tuple[int, int, int, int] | None = (notice, 0, 0, _CONTINUE)
        target = self._target(name, thread, args)
        if target is not None:
            place = len(self.ended.calls)
            self.ended.calls.append((name, target))
            if self.fault.kind != "none" and self.fault.hits(place, name):
                reply = self._fail(name, notice, thread, args)
        if reply is None:
            return  # it is dead, and must not come to its call
        try:
            fcntl.ioctl(self.listener, _ANSWER, _REPLY.pack(*reply))
        except OSError as error:
            if error.errno != errno.ENOENT:  # killed meanwhile
                raise

    def _fail(
        self, name: str, notice: int, thread: int, args: tuple[int, ...]
    ) -> tuple[int, int, int, int] | None:
        """The answer to the call that the fault hits; None where the process was killed."""
        kind = self.fault.kind
        if kind == "errno":
            self.ended.done = True
            return notice, 0, -self.fault.number, 0
        if kind in ("short", "torn"):
            done = self._half(name, thread, args)
            if done is None:
                return notice, 0, 0, _CONTINUE
            self.ended.done = True
            if kind == "short":
                return notice, done, 0, 0
        self.ended.done = True
        os.kill(self.child, signal.SIGKILL)
        return None

    def _half(self, name: str, thread: int, args: tuple[int, ...]) -> int | None:
        """Do half of a write, and return how many bytes that is; None where it has no half."""
        start, length = args[1], args[2]
        if name.startswith(("writev", "pwritev")):
            start, length = struct.unpack("=QQ", self._memory(thread, start, 16))
        if length < 2:
            return None
        content = self._memory(thread, start, length // 2)
        group = int(_status(thread, "Tgid"))
        holder = os.pidfd_open(group)
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.syscall(NUMBERS["pidfd_getfd"], holder, int(args[0] & 0xFFFFFFFF), 0)
        os.close(holder)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        try:
            if name.startswith("p"):
                return os.pwrite(descriptor, content, args[3])
            return os.write(descriptor, content)
        finally:
            os.close(descriptor)

    def _target(self, name: str, thread: int, args: tuple[int, ...]) -> str | None:
        """What a call is of, relative to the watched folder; None for what is elsewhere."""
        try:
            if name in PATHS:
                found = [self._path(name, thread, args, place) for place in PATHS[name]]
            else:
                place = {"copy_file_range": 2}.get(name, 0)
                found = [_link(f"/proc/{thread}/fd/{args[place] & 0xFFFFFFFF}")]
        except OSError:
            return None
        inside = [path for path in found if path == self.watched or self._below(path)]
        return " -> ".join(path.removeprefix(self.watched + "/") for path in inside) or None

    def _below(self, path: str) -> bool:
        return path.startswith(self.watched + "/")

    def _path(self, name: str, thread: int, args: tuple[int, ...], place: int) -> str:
        raw = self._memory(thread, args[place], _PATH_BYTES, short=True)
        path = os.fsdecode(raw.partition(b"\0")[0])
        if path.startswith("/"):
            return path
        folder = ctypes.c_int(args[place - 1] & 0xFFFFFFFF).value if place else -100
        at = name.endswith(("at", "at2")) and folder != -100
        link = f"/proc/{thread}/fd/{folder}" if at else f"/proc/{thread}/cwd"
        return os.path.normpath(f"{_link(link)}/{path}")

    def _memory(self, thread: int, start: int, length: int, *, short: bool = False) -> bytes:
        with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
            memory.seek(start)
            if short:  # up to the end of the page first, as the next one may not be there
                length = min(length, 4096 - start % 4096)
                found = memory.read(length)
                return found if b"\0" in found else found + memory.read(_PATH_BYTES)
            found = b""
            while len(found) < length:
                found += memory.read(length - len(found))
            return found


def _link(path: str) -> str:
    return str(Path(path).readlink())


def _status(thread: int, key: str) -> str:
    for line in Path(f"/proc/{thread}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return line.split()[1]
    raise KeyError(key)
