"""Where images come from: four named data sets, each as uint8 `[N, C, H, W]` with its labels.

`load` finds the files of a published data set in a folder of yours, in the download cache, or on
its mirrors, and checks every one of them; `resize` brings images to the size of a model; `read_idx`
reads the file format of MNIST.
"""

from convvae.data.idx import read_idx
from convvae.data.images import ImageSet, Split, fit, resize
from convvae.data.sources import NAMES, load

__all__ = ["NAMES", "ImageSet", "Split", "fit", "load", "read_idx", "resize"]
