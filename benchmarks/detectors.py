"""Detectors of other libraries on the images of the anomaly benchmark: scikit-learn's and PyOD's.

Each has the settings that it comes with, but for the share of variance that PCA keeps.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM

from benchmarks import environments

KEPT_VARIANCE = 0.9
"""Share of the variance that PCA keeps; its score is the squared error of what is left."""
TIMEOUT = 4 * 3600
"""Seconds to wait for PyOD's detectors."""


def _pca(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    model = PCA(KEPT_VARIANCE, svd_solver="full", random_state=seed).fit(train)
    return np.square(test - model.inverse_transform(model.transform(test))).sum(1)


def _forest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


def _factor(train: np.ndarray, test: np.ndarray, _seed: int) -> np.ndarray:
    return -LocalOutlierFactor(novelty=True).fit(train).score_samples(test)


def _svm(train: np.ndarray, test: np.ndarray, _seed: int) -> np.ndarray:
    return -OneClassSVM(nu=0.1).fit(train).score_samples(test)


SKLEARN: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "scikit-learn PCA error": _pca,
    "scikit-learn IsolationForest": _forest,
    "scikit-learn LocalOutlierFactor": _factor,
    "scikit-learn OneClassSVM": _svm,
}


def compare(
    train: np.ndarray, test: np.ndarray, abnormal: np.ndarray, threads: int, seed: int
) -> dict[str, Any]:
    """AUROC and seconds of every detector.

    Args:
        train: Normal images, flat, float32 in [0, 1].
        test: The others.
        abnormal: Which of them are abnormal, bool [M].
        threads: Threads to compute with.
        seed: Of what is random.

    Raises:
        PeerError: PyOD cannot be installed or run.
    """
    scores, seconds = {}, {}
    for name, score in SKLEARN.items():
        began = time.perf_counter()
        scores[name] = score(train, test, seed)
        seconds[name] = time.perf_counter() - began
    python = environments.interpreter("pyod")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "images.npz", Path(folder) / "scores.npz"
        np.savez(source, train=train, test=test)
        worker = [str(python), "-m", "benchmarks.workers.pyod", str(source), str(target)]
        settings = environments.thread_settings(threads)
        printed = environments.run([*worker, str(threads), str(seed)], settings, TIMEOUT)
        with np.load(target) as found:
            for name in found.files:
                if not name.endswith("_seconds"):
                    scores[f"PyOD {name}"] = found[name]
                    seconds[f"PyOD {name}"] = float(found[f"{name}_seconds"])
    rows = {
        name: {"auroc": float(roc_auc_score(abnormal, score)), "seconds": seconds[name]}
        for name, score in scores.items()
    }
    return {"detectors": rows, "versions": json.loads(printed.splitlines()[-1])}
