"""Learning from images of which some have no label: the objective of the model M2.

y of an image without a label is a row of zeros.

Source: Kingma, Rezende, Mohamed & Welling 2014, https://arxiv.org/abs/1406.5298
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from convvae.model.conditions import log_prior, told
from convvae.model.objectives import Terms, draw, loss
from convvae.model.vae import VAE


class Joint(NamedTuple):
    """What the objective is made of, nats per image, shape [B] each."""

    terms: Terms
    """Of an image with a label, log_px - kl <= log p(x, y); of one without, <= log p(x)."""
    cross_entropy: Tensor
    """-log q(y|x) of an image with a label, 0 of one without."""


def joint(vae: VAE, x: Tensor, eps: Tensor, y: Tensor, observed: Tensor | None = None) -> Joint:
    r"""Both bounds of a batch, with L(x, y) = E_q[log p(x|z, y)] - KL(q(z|x, y) || p(z|y)).

    The labelled bound is L(x, y) + log p(y), equation 6; the unlabelled one, equation 7,

        sum_y q(y|x) (L(x, y) + log p(y)) + H(q(y|x)) = sum_y q(y|x) L(x, y) - KL(q(y|x) || p(y)).

    Both are the second with a distribution w(y), all of it at the label that is known, or q(y|x):
    log_px is sum_y w(y) E_q[log p(x|z, y)], and kl is that of q(y, z|x) from p(y, z). Every label
    is gone through for every image, with the same noise.

    Args:
        vae: A model that is told one column of labels, and has a classifier.
        x: Images, shape [B, C, H, W], in [0, 1].
        eps: Standard normal noise, shape [K, B, D].
        y: A one at the place of an image's label; zeros alone where it has none, [B, L].
        observed: Which pixels are there, bool [B, 1, H, W]; None where all are.
    """
    batch, labels = y.shape
    every = torch.eye(labels, device=x.device).repeat_interleave(batch, 0)
    there = None if observed is None else observed.repeat(labels, 1, 1, 1)
    model = vae.given(every).observing(there)
    draws = draw(model, x.repeat(labels, 1, 1, 1), eps.repeat(1, labels, 1))
    log_px, kl = (term.view(labels, batch).T for term in draws.terms)
    log_q = vae.classify(x)
    is_known = y.sum(1, keepdim=True) > 0
    w = torch.where(is_known, y, log_q.exp())
    # The logarithm of w where w counts: of a known label, log 1.
    log_w = torch.where(is_known, torch.zeros_like(log_q), log_q)
    # Number by number: a recorded step may not copy from the host.
    log_py = torch.stack([log_q.new_full((), each) for each in log_prior(told(vae)).tolist()])
    kl_of_labels = (w * (log_w - log_py)).sum(1)
    terms = Terms((w * log_px).sum(1), (w * kl).sum(1) + kl_of_labels)
    return Joint(terms, -(y * log_q).sum(1))


def semi_supervised_loss(found: Joint, beta: float | Tensor, alpha: float) -> Tensor:
    r"""The mean over the batch of -log_px + beta kl - alpha log q(y|x), nats per image.

    Equation 9; the last part is 0 of an image without a label.
    """
    return loss(found.terms, beta) + alpha * found.cross_entropy.mean()
