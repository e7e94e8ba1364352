"""Named feature spaces: what images are turned into before sets of them are compared.

A distance between sets of images is one in a feature space, and has no meaning without its name.
The name of a space stands for its weights: other weights get another name.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from convvae.data import resize
from convvae.data.pixels import to_unit
from convvae.data.published.download import cache_folder, fetch
from convvae.errors import ChecksumError, MissingExtraError, UsageError, missing_extra
from convvae.evaluation.sample_quality.classifier import FEATURES, SIDE, DigitClassifier


class FeatureSpace(ABC):
    """A function from images to features; on a device of its own, in evaluation mode."""

    name: str
    """With a version: numbers of two spaces cannot be compared."""
    features: int
    """Numbers F of an image."""
    what: str
    """Where the features come from, and what they are to be taken for."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Images, uint8, [B, C, H, W] -> features, float64, [B, F], on the CPU."""


class MnistFeatures(FeatureSpace):
    """64 features of a small classifier of MNIST's digits, which comes with the package.

    Images are brought to 28x28 pixels as every image of convvae is: bilinear, antialiased, in
    8 bits. Made by `python -m benchmarks.classifier`.

    Args:
        device: Where to compute.

    Raises:
        ChecksumError: the file with the weights is not the one that the name stands for.
    """

    name = "convvae-mnist-features-v1"
    features = FEATURES
    what = f"{FEATURES} features of a classifier of MNIST's digits; not Inception's, no FID"
    sha256 = "e90a6e6871a96754aa0ca946592d586cf284a245a222a1aff5e117fca3ebf0f1"

    def __init__(self, device: torch.device) -> None:
        path = (
            Path(str(resources.files("convvae.evaluation.sample_quality")))
            / f"{self.name}.safetensors"
        )
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ChecksumError(f"{path} is not {self.name}; install convvae again")
        self._model = DigitClassifier()
        self._model.load_state_dict(load(content))
        self._model.eval().to(device)
        self._device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Images, uint8, [B, 1, H, W] -> features, float64, [B, 64], on the CPU."""
        small = to_unit(resize(images.cpu(), (SIDE, SIDE)).to(self._device))
        with torch.inference_mode():
            return self._model.features(small).cpu().double()


class InceptionFeatures(FeatureSpace):
    """The 2,048 pooled features of the Inception v3 that FID is defined by, of torch-fidelity.

    Grey images are repeated to three channels; torch-fidelity enlarges them to 299x299. Its file of
    weights holds a pickle, and is given to it only when its SHA-256 is the published one.

    Args:
        device: Where to compute.

    Raises:
        MissingExtraError: torch-fidelity is not installed, or does not run here.
        DownloadError: the weights are not in the cache and cannot be fetched.
        ChecksumError: the file with the weights is another one.

    Source: Obukhov et al. 2020, https://github.com/toshas/torch-fidelity
    """

    name = "inception-v3-compat-2048"
    features = 2048
    what = "2048 pooled features of torch-fidelity's Inception v3"
    url = (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth"
    )
    sha256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

    def __init__(self, device: torch.device) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
                FeatureExtractorInceptionV3,
            )
        except ModuleNotFoundError as error:
            raise missing_extra("`features='inception'`", "fidelity") from error
        except (ImportError, RuntimeError) as error:
            # torchvision, which it imports, does so where its build is not for this PyTorch.
            raise MissingExtraError(
                f"torch-fidelity does not start here ({' '.join(str(error).split())}); install the "
                "torchvision that was built for this PyTorch"
            ) from error
        path = fetch(self.url, self.sha256, cache_folder() / "inception")
        self._model = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        )
        self._model.eval().to(device)
        self._device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Images, uint8, [B, 1 or 3, H, W] -> features, float64, [B, 2048], on the CPU."""
        colour = images.to(self._device).expand(-1, 3, -1, -1)
        with torch.inference_mode():
            return self._model(colour)[0].cpu().double()


def feature_space(name: str, channels: int, device: torch.device) -> FeatureSpace:
    """The feature space that a user means, for images of so many channels.

    Args:
        name: `mnist` or `inception`.
        channels: Channels C of the images.
        device: Where to compute.

    Raises:
        UsageError: it takes no images of that kind.
        MissingExtraError: a library that it needs is not there.
        DownloadError, ChecksumError: its weights cannot be had, or are others.
    """
    match name:
        case "mnist":
            if channels != 1:
                raise UsageError(
                    f"`features='mnist'` takes grey images, and the model's have {channels} "
                    "channels; use `features='inception'`"
                )
            return MnistFeatures(device)
        case "inception":
            if channels not in (1, 3):
                raise UsageError(
                    f"`features='inception'` takes grey or colour images, and the model's have "
                    f"{channels} channels; leave `quality` out"
                )
            return InceptionFeatures(device)
        case _:
            raise KeyError(name)
