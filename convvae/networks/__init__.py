"""Encoders x -> (mu, logvar) and decoders z -> image, for any height and width of 8 and up.

A network is a pair. Both halves are built from plain sizes; the encoder's feature map has
`ceil(H/s) x ceil(W/s)` cells for its stride s, the decoder grows it back and crops to H x W.
"""

from __future__ import annotations

from typing import NamedTuple

from convvae.networks.base import Decoder, Encoder, wide
from convvae.networks.ladder import BottomUp, TopDown
from convvae.networks.pooled import PooledDecoder, PooledEncoder
from convvae.networks.residual import ResidualDecoder, ResidualEncoder
from convvae.networks.strided import StridedEncoder, TransposedDecoder, UpsampleDecoder
from convvae.networks.upconv import UpConv2d

__all__ = [
    "NETWORKS",
    "BottomUp",
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
