"""How well single latents stand for single factors of the images: scores of a matrix of codes.

Codes are N x D, real; factors are N x F, whole numbers that say which value each factor has. Every
score lies in [0, 1] and is best at 1. M is the mutual information in nats, D x F, between each code
(its range in `BINS` bins of equal width) and each factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae.errors import ConfigError

Codes = NDArray[np.floating[Any]]
Factors = NDArray[np.integer[Any]]

BINS = 20
"""Bins of a code's range, for its mutual information."""
VOTES = 5_000
"""Batches that vote in the FactorVAE score, to learn and again to test."""
VOTE_BATCH = 64
"""Images in each of them."""
MOST_VALUES = 100
"""Values of a factor, at most: a classifier learns each of them."""
TINY = 1e-11
"""Added to the importances, so that a code of no importance has a (uniform) distribution."""


class Disentanglement(NamedTuple):
    """The scores of a matrix of codes by factors."""

    mig: float
    """Mutual information gap."""
    sap: float
    """Separated attribute predictability."""
    modularity: float
    dci_disentanglement: float
    dci_completeness: float
    dci_informativeness: float
    """Accuracy on test images of the classifiers whose importances the two above are of."""
    factor_vae: float
    images: int
    names: tuple[str, ...]
    """Of the factors."""


def disentanglement(
    codes: Codes,
    factors: Factors,
    names: Sequence[str],
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Disentanglement:
    """All scores of the same codes.

    SAP and DCI learn from half of the images, drawn by the seed, and test on the others; MIG and
    modularity look at all.

    Args:
        codes: Such as the means of q(z|x), shape [N, D], D >= 2.
        factors: Whole numbers, shape [N, F], F >= 2.
        names: Of the factors, F of them.
        seed: Of the division into halves, the classifiers and the votes.
        progress: Called with the number of images done since its last call, in F parts.

    Raises:
        ConfigError: a factor is constant or has more than `MOST_VALUES` values, or there are fewer
            than two codes, two factors or four images.
    """
    _check(codes, factors, names)
    train, test = halves(len(codes), seed)
    _check(codes[train], factors[train], names)
    information = mutual_information(codes, factors)
    predicted = predictability(codes[train], factors[train], codes[test], factors[test])
    importance, informativeness = importances(
        codes[train], factors[train], codes[test], factors[test], seed, progress
    )
    return Disentanglement(
        mig=mutual_information_gap(information, factors),
        sap=top_gap(predicted),
        modularity=modularity(information),
        dci_disentanglement=concentration(importance),
        dci_completeness=concentration(importance.T),
        dci_informativeness=informativeness,
        factor_vae=factor_vae_score(codes, factors, seed),
        images=len(codes),
        names=tuple(names),
    )


def halves(count: int, seed: int) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """Places of the images to learn from and to test on."""
    train, test = np.array_split(np.random.RandomState(seed).permutation(count), 2)
    return train, test


def mutual_information(codes: Codes, factors: Factors) -> Codes:
    """I(code; factor) in nats, shape [D, F], the range of each code in `BINS` bins."""
    from sklearn.metrics import mutual_info_score

    return np.array(
        [[mutual_info_score(factor, in_bins(code)) for factor in factors.T] for code in codes.T]
    )


def in_bins(code: Codes) -> NDArray[np.integer[Any]]:
    """The bin of each value, from 1: `BINS` of equal width from the least to the largest."""
    return np.digitize(code, np.histogram_bin_edges(code, BINS)[:-1])


def mutual_information_gap(information: Codes, factors: Factors) -> float:
    """Mean over factors of (largest M - next largest M) / H(factor).

    Source: Chen, Li, Grosse & Duvenaud 2018, https://arxiv.org/abs/1802.04942
    """
    from sklearn.metrics import mutual_info_score

    entropies = np.array([mutual_info_score(factor, factor) for factor in factors.T])
    last, largest = np.sort(information, axis=0)[-2:]
    return float(np.mean((largest - last) / entropies))


def modularity(information: Codes) -> float:
    """Mean over codes of 1 - sum of M^2 beside the largest / (largest M^2 (F - 1)).

    A code that says nothing of any factor counts 0.

    Source: Ridgeway & Mozer 2018, https://arxiv.org/abs/1802.05312
    """
    squares = information**2
    largest = squares.max(axis=1)
    others = squares.sum(axis=1) - largest
    ideal = largest * (squares.shape[1] - 1)
    per_code = np.divide(ideal - others, ideal, out=np.zeros_like(ideal), where=ideal > 0)
    return float(per_code.mean())


def predictability(
    train: Codes, train_factors: Factors, test: Codes, test_factors: Factors
) -> Codes:
    """Accuracy of a linear support vector machine from each code to each factor, shape [D, F].

    Source: Kumar, Sattigeri & Balakrishnan 2018, https://arxiv.org/abs/1711.00848; classes are
    balanced and C = 0.01, as Locatello et al. 2019 have it, https://arxiv.org/abs/1811.12359
    """
    from sklearn.svm import LinearSVC

    def accuracy(code: int, factor: int) -> float:
        machine = LinearSVC(C=0.01, class_weight="balanced")
        machine.fit(train[:, code, None], train_factors[:, factor])
        return float(np.mean(machine.predict(test[:, code, None]) == test_factors[:, factor]))

    places = range(train_factors.shape[1])
    return np.array(
        [[accuracy(code, factor) for factor in places] for code in range(train.shape[1])]
    )


def top_gap(scores: Codes) -> float:
    """Mean over factors of the largest score over codes less the next largest: SAP of accuracies.

    Examples:
        >>> top_gap(np.array([[1.0, 0.2], [0.5, 0.8]]))
        0.55
    """
    last, largest = np.sort(scores, axis=0)[-2:]
    return float(np.mean(largest - last))


def importances(
    train: Codes,
    train_factors: Factors,
    test: Codes,
    test_factors: Factors,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Codes, float]:
    """Importance of each code for each factor, and how well the codes tell the factors.

    Importances are those of gradient boosted trees, a classifier a factor.

    Returns:
        Shape [D, F], each column summing to 1 or to 0; mean accuracy on the test images.

    Source: Eastwood & Williams 2018, https://openreview.net/forum?id=By-7dz-AZ
    """
    from sklearn.ensemble import GradientBoostingClassifier

    state = np.random.RandomState(seed)
    columns, accuracies = list[Codes](), list[float]()
    for known, asked in zip(train_factors.T, test_factors.T, strict=True):
        trees = GradientBoostingClassifier(random_state=state).fit(train, known)
        columns.append(np.abs(trees.feature_importances_))
        accuracies.append(float(np.mean(trees.predict(test) == asked)))
        progress((len(train) + len(test)) // train_factors.shape[1])
    return np.stack(columns, axis=1), float(np.mean(accuracies))


def concentration(importance: Codes) -> float:
    """1 - entropy of each row as a share of its largest, weighted by the rows' importance.

    Of codes by factors it is DCI's disentanglement, of factors by codes its completeness.

    Args:
        importance: At least 0, shape [rows, columns], columns >= 2.

    Source: Eastwood & Williams 2018, https://openreview.net/forum?id=By-7dz-AZ
    """
    share = importance + TINY
    share = share / share.sum(axis=1, keepdims=True)
    per_row = 1 + (share * np.log(share)).sum(axis=1) / np.log(share.shape[1])
    whole = importance if importance.sum() > 0 else np.ones_like(importance)
    return float((per_row * whole.sum(axis=1) / whole.sum()).sum())


def factor_vae_score(codes: Codes, factors: Factors, seed: int = 0) -> float:
    """Accuracy of a vote: which factor is the same in a batch, by the code that varies least.

    `VOTES` batches of `VOTE_BATCH` images that have a value of one factor in common teach which
    factor the code of the least variance (as a share of its variance over all images) stands for,
    and as many test it. Codes that are constant over all images do not vote.

    Source: Kim & Mnih 2018, https://arxiv.org/abs/1802.05983
    """
    state = np.random.RandomState(seed)
    variance = codes.var(axis=0, ddof=1)
    active = variance > 0
    if not active.any():
        return 0.0
    scaled = codes[:, active] / np.sqrt(variance[active])
    rows = [
        {value: np.flatnonzero(factor == value) for value in np.unique(factor)}
        for factor in factors.T
    ]

    def votes() -> NDArray[np.int64]:
        found = np.zeros((factors.shape[1], scaled.shape[1]), np.int64)
        for _ in range(VOTES):
            factor = state.randint(factors.shape[1])
            value = factors[state.randint(len(factors)), factor]
            batch = state.choice(rows[factor][value], VOTE_BATCH)
            found[factor, scaled[batch].var(axis=0, ddof=1).argmin()] += 1
        return found

    stands_for, tested = votes().argmax(axis=0), votes()
    return float(tested[stands_for, np.arange(tested.shape[1])].sum() / tested.sum())


def _check(codes: Codes, factors: Factors, names: Sequence[str]) -> None:
    if codes.shape[1] < 2 or factors.shape[1] < 2 or len(codes) < 2:
        raise ConfigError(
            f"{codes.shape[1]} latents, {factors.shape[1]} factors and {len(codes)} images are too "
            "few to compare; at least two latents, two factors and four images are needed"
        )
    check_factors(factors, names)


def check_factors(factors: Factors, names: Sequence[str]) -> None:
    """Refuse factors of which nothing can be learnt.

    Raises:
        ConfigError: one is constant or has more than `MOST_VALUES` values.
    """
    for name, factor in zip(names, factors.T, strict=True):
        values = len(np.unique(factor))
        if values < 2:
            raise ConfigError(
                f"the factor {name} has one value only in these images, and nothing can be "
                "learnt of it; leave it out, or use more images"
            )
        if values > MOST_VALUES:
            raise ConfigError(
                f"the factor {name} has {values} values, and at most {MOST_VALUES} are taken; "
                "put them into groups first"
            )
