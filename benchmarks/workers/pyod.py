"""PyOD: its KNN, ECOD, AutoEncoder, VAE and DeepSVDD, with the settings that they come with.

    python -m benchmarks.workers.pyod IMAGES.npz SCORES.npz THREADS SEED

IMAGES.npz has `train` [N, n] and `test` [M, n], float32 in [0, 1]; SCORES.npz is given, of every
detector, the scores of the test images and the seconds that they took.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from pyod.models.auto_encoder import AutoEncoder
from pyod.models.deep_svdd import DeepSVDD
from pyod.models.ecod import ECOD
from pyod.models.knn import KNN
from pyod.models.vae import VAE

PACKAGES = ("pyod", "torch", "numpy", "scikit-learn")


def detectors(features: int, seed: int) -> dict[str, Any]:
    """The detectors, by name."""
    return {
        "KNN": KNN(),
        "ECOD": ECOD(),
        "AutoEncoder": AutoEncoder(random_state=seed, verbose=0),
        "VAE": VAE(random_state=seed, verbose=0),
        "DeepSVDD": DeepSVDD(n_features=features, random_state=seed, verbose=0),
    }


def main() -> None:
    """Fit, score and write; print the versions."""
    source, target, threads, seed = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with np.load(source) as given:
        train, test = given["train"], given["test"]
    found: dict[str, np.ndarray] = {}
    for name, detector in detectors(train.shape[1], int(seed)).items():
        began = time.perf_counter()
        torch.manual_seed(int(seed))
        found[name] = detector.fit(train).decision_function(test)
        found[f"{name}_seconds"] = np.array(time.perf_counter() - began)
    np.savez(target, **found)
    print(json.dumps({name: version(name) for name in PACKAGES}))


if __name__ == "__main__":
    main()
