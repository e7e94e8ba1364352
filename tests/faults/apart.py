"""Proofs in a process of their own, whose forks they send to their deaths.

A process that has threads cannot be forked safely, and one that runs tests has them. The other one
imports everything once, and what commands read is made once.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict

from tests.faults import Outcome, Size

_ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_IMPORTED = (
    *("convvae.cli.main", "convvae.training.run", "convvae.api", "sklearn.datasets"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.PngImagePlugin"),
    *("convvae.interop.weights", "convvae.anomalies.report", "convvae.figures.report"),
    "torch._dynamo",  # which the first optimiser of a process imports
)
"""What every fork would import."""


def apart(size: Size, *proofs: str) -> list[Outcome]:
    """What proofs find that fork.

    Args:
        size: How much is tried.
        proofs: `MODULE`, or `MODULE:NAME` for one of its proofs: a module of this folder with
            `prove(size, names)`.
    """
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, json.dumps(asdict(size)), *proofs],
        env={**os.environ, **_ONE},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        found.append(Outcome(f"the proofs themselves: {', '.join(proofs)}", 1, 0, last))
    return found


def main(size: Size, proofs: list[str]) -> None:
    """Be that process: print each line of the table as it is found."""
    for module in _IMPORTED:
        importlib.import_module(module)
    for proof in proofs:
        module, _, name = proof.partition(":")
        prove = importlib.import_module(f"tests.faults.{module}").prove
        for outcome in prove(size, [name] if name else []):
            print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main(Size(**json.loads(sys.argv[1])), sys.argv[2:])
