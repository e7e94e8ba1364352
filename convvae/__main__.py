"""The command `convvae`; as `python -m convvae` for what starts modules, such as torchrun."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command line of the process and return its exit code.

    Before the command line is there to say it, Ctrl-C is one line too: nothing is begun yet.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    from convvae.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    return run()


def _interrupted(*_: object) -> None:
    os.write(2, b"convvae: interrupted\n")
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
