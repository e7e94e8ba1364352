"""Encoders x -> (mu, logvar) and decoders z -> image, for any height and width of 8 and up.

A network is a pair. Both halves are built from plain sizes; the encoder's feature map has
`ceil(H/s) x ceil(W/s)` cells for its stride s, the decoder grows it back and crops to H x W.
"""

from __future__ import annotations

from typing import NamedTuple

from convvae.networks.base import Decoder, Encoder, wide
from convvae.networks.classifier import Classifier
from convvae.networks.ladder import BottomUp, TopDown
from convvae.networks.pooled import PooledDecoder, PooledEncoder
from convvae.networks.residual import ResidualDecoder, ResidualEncoder
from convvae.networks.strided import StridedEncoder, TransposedDecoder, UpsampleDecoder
from convvae.networks.upconv import UpConv2d
from convvae.parts import NETWORK_NAMES, WITHOUT_BATCH_STATISTICS

__all__ = [
    "NETWORKS",
    "BottomUp",
    "Classifier",
    "Decoder",
    "Encoder",
    "PooledDecoder",
    "PooledEncoder",
    "ResidualDecoder",
    "ResidualEncoder",
    "StridedEncoder",
    "TopDown",
    "TransposedDecoder",
    "UpConv2d",
    "UpsampleDecoder",
    "register",
    "wide",
]


class Pair(NamedTuple):
    """The two halves of a network, as classes."""

    encoder: type[Encoder]
    decoder: type[Decoder]
    has_depth: bool = False
    """Whether both take a `depth`."""


NETWORKS: dict[str, Pair] = {
    "upsample": Pair(StridedEncoder, UpsampleDecoder),
    "pooled": Pair(PooledEncoder, PooledDecoder),
    "transposed": Pair(StridedEncoder, TransposedDecoder),
    "residual": Pair(ResidualEncoder, ResidualDecoder, has_depth=True),
}


def register(
    name: str,
    encoder: type[Encoder],
    decoder: type[Decoder],
    *,
    has_depth: bool = False,
    uses_batch_statistics: bool = True,
) -> None:
    """Make a network of one's own a value of the setting `network`.

    Call it before a model file that names it is loaded. A name registered before stands for the
    newer network from then on.

    Args:
        name: Small letters, digits and hyphens.
        encoder: Called as `Encoder` says.
        decoder: Called as `Decoder` says.
        has_depth: Whether both take the setting `depth` as well, by its name.
        uses_batch_statistics: Whether, in training, what becomes of an image depends on its batch,
            as with batch normalisation; the prior vamp and the objective dreg refuse such networks.

    Raises:
        ConfigError: the name is convvae's own, or no name.
    """
    NETWORK_NAMES.add(name)
    NETWORKS[name] = Pair(encoder, decoder, has_depth)
    if uses_batch_statistics:
        WITHOUT_BATCH_STATISTICS.discard(name)
    else:
        WITHOUT_BATCH_STATISTICS.add(name)
