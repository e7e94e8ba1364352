"""Two ends of a wire: two network namespaces of this machine, joined by a pair of interfaces."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Self


def why_not() -> str:
    """Why there can be no such wire here; nothing, where it is ""."""
    if shutil.which("ip") is None:
        return "there is no ip command"
    try:
        with Ends():
            return ""
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip()
        return said or f"{' '.join(error.cmd)} failed"


class Ends:
    """Makes the wire, and takes it away."""

    def __init__(self) -> None:
        mark = f"cv{os.getpid() % 100_000}"
        self.names = (f"{mark}a", f"{mark}b")
        self.wires = (f"{mark}v", f"{mark}w")
        self.addresses = ("10.203.7.1", "10.203.7.2")

    def __enter__(self) -> Self:
        try:
            for name in self.names:
                _ip("netns", "add", name)
            first, second = self.wires
            _ip("link", "add", first, "type", "veth", "peer", "name", second)
            for end, (name, wire) in enumerate(zip(self.names, self.wires, strict=True)):
                _ip("link", "set", wire, "netns", name)
                inside = ("-n", name)
                _ip(*inside, "addr", "add", f"{self.addresses[end]}/24", "dev", wire)
                for each in (wire, "lo"):
                    _ip(*inside, "link", "set", each, "up")
        except subprocess.CalledProcessError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:  # the wire goes with them
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def inside(self, end: int) -> tuple[str, ...]:
        """The words before a command that is to run at one end."""
        return ("ip", "netns", "exec", self.names[end])

    def cut(self) -> None:
        """Let nothing pass."""
        _ip("-n", self.names[1], "link", "set", self.wires[1], "down")

    def mend(self) -> None:
        """Let all pass again."""
        _ip("-n", self.names[1], "link", "set", self.wires[1], "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
