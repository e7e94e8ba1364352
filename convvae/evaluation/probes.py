"""How much of the labels the latents tell: classifiers on the means of the posterior."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from convvae.evaluation.distances import chosen_nearest, rowwise
from convvae.evaluation.estimates import Estimate, Undefined

PROBE_NEIGHBOURS = 5
"""Training images that vote on a test image."""
MAX_TRAIN = 10_000
"""Training images that the classifiers learn from, at most."""
MAX_STEPS = 1000
"""Steps of L-BFGS, at most, of the logistic regression."""


class Probes(NamedTuple):
    """Accuracy on test images of classifiers that learnt from latents of training images."""

    linear: Estimate
    """Of multinomial logistic regression."""
    neighbours: Estimate
    """Of a vote of the 5 nearest."""
    train_images: int
    test_images: int
    classes: int
    """Labels among the training images."""
    converged: bool
    """Whether the logistic regression came to its optimum."""


def probe(
    train: Tensor, train_labels: Tensor | None, test: Tensor, test_labels: Tensor | None
) -> Probes | Undefined:
    r"""Train two classifiers on latents, and test them.

    Both take the latents as they are, not scaled to unit variance: the prior gives them their
    scale, and a latent that is not used would be blown up to noise. The logistic regression has
    scikit-learn's penalty 1/2 |w|^2 at C = 1; the distance between neighbours is Euclidean. Of
    images at the same distance the first ones vote, and a tie of votes goes to the smaller label.

    Args:
        train: Means of the posterior of training images, shape [N, D].
        train_labels: int64, shape [N].
        test: Means of the posterior of test images, shape [M, D].
        test_labels: int64, shape [M].

    Source: linear probes from Alain & Bengio 2016, https://arxiv.org/abs/1610.01644
    """
    if train_labels is None or test_labels is None:
        return Undefined("no labels")
    if len(train) < PROBE_NEIGHBOURS:
        return Undefined(f"needs at least {PROBE_NEIGHBOURS} training images, found {len(train)}")
    classes = len(train_labels.unique())
    if classes < 2:
        return Undefined("all training images have the same label")
    if not (train.isfinite().all() and test.isfinite().all()):
        return Undefined("the latents are infinite or not a number")
    linear, converged = _linear(train, train_labels, test)
    neighbours = _neighbours(train, train_labels, test)
    return Probes(
        linear=Estimate.of((linear == test_labels).double()),
        neighbours=Estimate.of((neighbours == test_labels).double()),
        train_images=len(train),
        test_images=len(test),
        classes=classes,
        converged=converged,
    )


def _linear(train: Tensor, labels: Tensor, test: Tensor) -> tuple[Tensor, bool]:
    """The labels of a logistic regression, and whether it converged."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1.0, max_iter=MAX_STEPS)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train.double().numpy(), labels.numpy())
    converged = not any(issubclass(item.category, ConvergenceWarning) for item in said)
    return torch.from_numpy(model.predict(test.double().numpy())), converged


def _neighbours(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """The labels that the nearest training images vote for."""
    classes, number = labels.unique(return_inverse=True)
    ballots = one_hot(number, len(classes)).double()
    votes = [
        chosen_nearest(far, PROBE_NEIGHBOURS).double() @ ballots for _, far in rowwise(test, train)
    ]
    # argmax takes any of several maxima: the smaller label must lead by less than a vote.
    lead = torch.arange(len(classes), 0, -1) / (len(classes) + 1)
    return classes[(torch.cat(votes) + lead).argmax(1)]
