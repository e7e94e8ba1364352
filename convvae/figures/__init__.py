"""Figures of arrays, by matplotlib: every function returns a `matplotlib.figure.Figure`.

They know no model and no file of data: `gallery` computes what they show. Colours are told apart by
colour-blind readers, and nothing is told by colour alone. Matplotlib is imported by the first call;
`pyplot`, which keeps every figure alive, is not used.
"""

from convvae.figures.compared import compared
from convvae.figures.curves import information, training_curves
from convvae.figures.pictures import class_means, extremes, reconstructions, rows, samples
from convvae.figures.space import interpolations, manifold, scatter, traversals
from convvae.figures.style import FIGURE_FORMATS, INK, PALETTE, number, png, save_figure, svg

__all__ = [
    "FIGURE_FORMATS",
    "INK",
    "PALETTE",
    "class_means",
    "compared",
    "extremes",
    "information",
    "interpolations",
    "manifold",
    "number",
    "png",
    "reconstructions",
    "rows",
    "samples",
    "save_figure",
    "scatter",
    "svg",
    "training_curves",
    "traversals",
]
