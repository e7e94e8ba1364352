"""A convolutional VAE as a scikit-learn transformer and density estimator.

It trains by the same steps as `convvae train`, in memory and without a run folder, and its model
file is the one that every command reads.
"""

from __future__ import annotations

import math
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from convvae import runtime
from convvae.anomalies.detection import OutlierDetection
from convvae.config import Architecture, TrainConfig
from convvae.data.images import ImageSet
from convvae.data.in_memory import IN_MEMORY
from convvae.data.pixels import mean_pixel
from convvae.data.rows import image_shape, pixel_range
from convvae.errors import ConfigError
from convvae.evaluation import encode
from convvae.evaluation.bounds import image_terms
from convvae.model.checkpoint import ModelMetadata, load_model, save_model
from convvae.training.cuda_graph import make_step
from convvae.training.feeds import feed_of
from convvae.training.learner import Learner, TrainingProgress
from convvae.training.loop import BatchPlan, epoch_steps, finite_means
from convvae.training.ranks import Ranks
from convvae.training.run import resolve

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from convvae.model.vae import VAE


SETTINGS = (
    *Architecture.model_fields,
    *("epochs", "batch_size", "optimizer", "lr", "weight_decay", "schedule", "clip_norm"),
    *("ema_images", "output_bias", "beta", "kl_schedule", "kl_warmup", "objective", "free_bits"),
    *("capacity", "mmd", "mc_samples", "device", "precision"),
)
"""Parameters that are settings of `TrainConfig`, of the same name, meaning and default."""
FIXED = (*Architecture.model_fields, "optimizer", "ema_images")
"""Of them, those that cannot change without a new fit; the half-life of an average can."""
CHUNK = 1000
"""Images scaled to bytes at a time."""


class ConvVAE(OutlierDetection, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A convolutional variational autoencoder with the interface of scikit-learn.

    `transform` gives the mean of q(z|x) (of a flow f(mu), which is not its mean),
    `inverse_transform` the mean of p(x|z), `score_samples` the evidence lower bound in nats. X is a
    NumPy array, a torch tensor or whatever scikit-learn takes: flat [N, n], grey images [N, H, W],
    or images [N, C, H, W], channels first.

    **Flat rows** become images of `image_shape`. Without it, they fill row by row the smallest
    square grey image that holds them, at least 8x8, and the cells left over are black: 784 features
    are 28x28, 10 features are an 8x8 image with 54 empty cells. The bound counts the empty cells.

    **Pixels** are stored as 256 levels of `pixel_range`, as in all of convvae. Without a
    `pixel_range` it is 0 to 255 for uint8, else the smallest and the largest value of the first
    fit, over all features alike; values outside of it are clipped from then on. With one, values
    outside of it are refused.

    Parameters:
        image_shape: (H, W) or (C, H, W) of flat rows, laid out channel by channel, row by row.
        pixel_range: The values that are black and white.
        contamination: Share of the images of `fit` that `labels_` calls abnormal, as in PyOD.
        random_state: Seed of weights, order and noise; None draws one.
        verbose: Print a line per epoch.

    The other parameters are those of `TrainConfig`, under the same names.

    Attributes:
        vae_: The trained model, in evaluation mode.
        image_shape_: (C, H, W) of the images that the networks see.
        pixel_range_: The values that are black and white.
        loss_curve_: Mean over every epoch of the objective minimised, nats per image.
        n_features_in_: Values of a row.
        decision_scores_, threshold_, labels_: Of the images of `fit`, see `decision_function`.

    Source: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> X = load_digits().data[:100]
        >>> ConvVAE(latent_dims=2, max_filters=8, epochs=1, random_state=0).fit_transform(X).shape
        (100, 2)
    """

    n_features_in_: int

    def __init__(
        self,
        latent_dims: int = 8,
        *,
        image_shape: tuple[int, ...] | None = None,
        pixel_range: tuple[float, float] | None = None,
        network: str = "upsample",
        max_filters: int = 64,
        depth: int = 2,
        groups: tuple[int, ...] | None = None,
        group_channels: int = 8,
        fold: int = 2,
        likelihood: str = "gaussian",
        variance: float = 0.5,
        posterior: str = "diagonal",
        prior: str = "normal",
        prior_components: int = 100,
        epochs: int = 20,
        batch_size: int = 128,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        schedule: str = "constant",
        clip_norm: float | None = None,
        ema_images: int | None = None,
        output_bias: str = "uniform",
        beta: float = 1.0,
        kl_schedule: str = "constant",
        kl_warmup: int = 200_000,
        objective: str = "elbo",
        free_bits: float = 0.0,
        capacity: float | None = None,
        mmd: float = 0.0,
        mc_samples: int = 1,
        device: str = "auto",
        precision: str = "auto",
        contamination: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.latent_dims = latent_dims
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.network = network
        self.max_filters = max_filters
        self.depth = depth
        self.groups = groups
        self.group_channels = group_channels
        self.fold = fold
        self.likelihood = likelihood
        self.variance = variance
        self.posterior = posterior
        self.prior = prior
        self.prior_components = prior_components
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.ema_images = ema_images
        self.output_bias = output_bias
        self.beta = beta
        self.kl_schedule = kl_schedule
        self.kl_warmup = kl_warmup
        self.objective = objective
        self.free_bits = free_bits
        self.capacity = capacity
        self.mmd = mmd
        self.mc_samples = mc_samples
        self.device = device
        self.precision = precision
        self.contamination = contamination
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike | Tensor, y: object = None) -> Self:
        """Train a new model for `epochs` passes over X.

        Args:
            X: At least two images or rows.
            y: Not used.

        Raises:
            ConfigError: a parameter is out of its range.
            ImageSizeError: the images are smaller than the networks can take.
            NonFiniteLossError: the loss became infinite or not a number.
            ValueError: x is no array of finite numbers of that shape.
        """
        images = self._first_images(X)
        config = self._begin(images)
        self._train(images, config)
        self._hold_against(images)
        return self

    def partial_fit(self, X: ArrayLike | Tensor, y: object = None) -> Self:
        """Train for one pass over X, on from where the last call stopped; `lr` stays constant.

        The first call, of an estimator that was not fitted, settles shape and `pixel_range_`, and
        the seed. Parameters that were set since take effect.

        Args:
            X: At least two images or rows.
            y: Not used.

        Raises:
            As `fit`.
            ConfigError: a parameter was set that the model or the optimizer's memory hangs on.
        """
        if self.__sklearn_is_fitted__():
            images = self._images(X, at_least=2)
            self._take_settings()
        else:
            images = self._first_images(X)
            self._begin(images)
        config = self._learner.config.model_copy(update={"epochs": 1, "schedule": "constant"})
        self._train(images, config)
        self._hold_against(images)
        return self

    def transform(self, X: ArrayLike | Tensor) -> NDArray[np.float32]:
        """The mean of q(z|x), or f(mu) of a flow, of every image: float32 [N, D]."""
        check_is_fitted(self)
        return encode.posterior_means(self.vae_, self._images(X))[0].numpy()

    def inverse_transform(self, X: ArrayLike | Tensor) -> NDArray[np.float32]:
        """The mean of p(x|z) of latents [N, D], in the shape and range of the images of `fit`."""
        check_is_fitted(self)
        z = torch.from_numpy(check_array(_plain(X), dtype="float32", copy=True))
        if z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {z.shape[1]} columns, but the model has {self._n_features_out} latents"
            )
        return self._values(encode.decode(self.vae_, z))

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> NDArray[np.float32]:
        """Means of p(x|z) at draws of z from the prior, in shape and range of `fit`'s images."""
        check_is_fitted(self)
        return self._values(encode.generate(self.vae_, n_samples, seed=_seed(random_state)))

    def score_samples(self, X: ArrayLike | Tensor) -> NDArray[np.float64]:
        """The evidence lower bound of log p(x) of every image, nats, for pixels in [0, 1]: [N].

        By `mc_samples` draws of z, whose noise is a function of `random_state` and of the image.
        """
        check_is_fitted(self)
        terms = image_terms(self.vae_, self._images(X), seed=self._seed, mc_samples=self.mc_samples)
        return terms.bound.numpy()

    def score(self, X: ArrayLike | Tensor, y: object = None) -> float:
        """The mean of `score_samples`: higher is better."""
        return float(self.score_samples(X).mean())

    @property
    def vae_(self) -> VAE:
        """The trained model, in evaluation mode."""
        return self._learner.weights

    def save(self, path: str | Path) -> None:
        """Write the model file that every command of convvae reads, whole or not at all.

        It holds the model, whose pixels are in [0, 1], and not `pixel_range_`.

        Raises:
            OutputError: it cannot be written.
        """
        check_is_fitted(self)
        metadata = ModelMetadata(
            model=self.vae_.config,
            data=IN_MEMORY,
            epochs=self._progress.epoch,
            images=self._progress.images,
            bound=None,
            versions=runtime.versions(),
        )
        save_model(Path(path), self.vae_, metadata)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        pixel_range: tuple[float, float] = (0.0, 1.0),
        device: str = "auto",
    ) -> Self:
        """An estimator fitted with the weights of a model.

        `partial_fit` trains them further, its optimiser anew. Images come out as [N, C, H, W].

        Args:
            model: Run folder, .safetensors file, or name of a pretrained model.
            pixel_range: The values that are black and white; uint8 has (0, 255).
            device: Where to compute.

        Raises:
            ModelFileError: there is no such model, or its file is not whole.
            ConfigError: it is conditional.
        """
        vae, metadata = load_model(model)
        if metadata.model.condition is not None:
            raise ConfigError(
                f"{model} was trained with the labels of its images, of which an estimator knows "
                "none; use it from the command line, or by `convvae.model.conditions.given_labels`"
            )
        chosen = metadata.model.model_dump(include=set(Architecture.model_fields))
        shape = (metadata.model.channels, *metadata.model.image_size)
        made = cls(
            **chosen,
            image_shape=shape,
            pixel_range=pixel_range,
            device=device,
            random_state=0,
        )
        made.image_shape_, made.pixel_range_ = shape, pixel_range
        made.n_features_in_ = math.prod(shape)
        made._sample_shape = shape
        made._begin(torch.zeros(0, *shape, dtype=torch.uint8))
        made._learner.vae.load_state_dict(vae.state_dict())
        made._learner.vae.eval()
        made._progress = TrainingProgress(epoch=metadata.epochs, images=metadata.images)
        return made

    def _first_images(self, X: ArrayLike | Tensor) -> Tensor:
        """Settle from the first images what later ones must agree with, and convert them."""
        values, shape = self._validated(X, reset=True, at_least=2)
        self._sample_shape = shape
        given = shape if len(shape) > 1 and self.image_shape is None else self.image_shape
        self.image_shape_ = image_shape(values.shape[1], given)
        self.pixel_range_ = pixel_range(values, self.pixel_range)
        return self._to_uint8(values)

    def _images(self, X: ArrayLike | Tensor, at_least: int = 1) -> Tensor:
        return self._to_uint8(self._validated(X, reset=False, at_least=at_least)[0])

    def _validated(
        self,
        X: ArrayLike | Tensor,
        *,
        reset: bool,
        at_least: int,
    ) -> tuple[NDArray[Any], tuple[int, ...]]:
        """Flat rows [N, n] of finite numbers, and the shape that a row had."""
        array: Any = _plain(X)
        shape = array.shape[1:]
        if len(shape) in (2, 3):
            array = np.reshape(array, (len(array), -1))
        checked = np.asarray(validate_data(self, array, reset=reset, ensure_min_samples=at_least))
        known = () if reset else (self._sample_shape, self.image_shape_, self.image_shape_[1:])
        if len(shape) > 1 and known and shape not in known:
            raise ValueError(
                f"X holds images of shape {shape}, but {type(self).__name__} was fitted on "
                f"images of shape {self.image_shape_}, channels first"
            )
        return checked, checked.shape[1:] if len(shape) == 1 else shape

    def _to_uint8(self, values: NDArray[Any]) -> Tensor:
        """Flat rows -> images uint8 [N, C, H, W], 256 levels of `pixel_range_`."""
        low, high = self.pixel_range_
        if self.pixel_range is not None and (values.min() < low or values.max() > high):
            raise ValueError(
                f"X has values from {values.min():g} to {values.max():g}, outside of pixel_range "
                f"({low:g}, {high:g}); give the range of your pixels"
            )
        images = np.zeros((len(values), math.prod(self.image_shape_)), dtype=np.uint8)
        scale = 255 / ((high - low) or 1)
        for start in range(0, len(values), CHUNK):
            part = values[start : start + CHUNK].astype(np.float64)
            levels = np.rint((part - low) * scale).clip(0, 255)
            images[start : start + CHUNK, : values.shape[1]] = levels
        return torch.from_numpy(images).reshape(-1, *self.image_shape_)

    def _values(self, x: Tensor) -> NDArray[np.float32]:
        """Images [N, C, H, W] in [0, 1] -> the shape and the range of the images of `fit`."""
        low, high = self.pixel_range_
        flat = x.flatten(1)[:, : self.n_features_in_].numpy()
        values = flat * np.float32(high - low) + np.float32(low)
        return values.reshape(-1, *self._sample_shape)

    def _begin(self, images: Tensor) -> TrainConfig:
        """A new learner for images of that shape."""
        self._seed = _seed(self.random_state)
        config, device = self._settings()
        channels, height, width = self.image_shape_
        model = config.model((height, width), channels)
        self._learner = Learner(config, model, device, len(images))
        if config.output_bias == "mean" and len(images):
            self._learner.start_at(mean_pixel(images.split(1000)))
        self._progress = TrainingProgress()
        self.loss_curve_: list[float] = []
        return config

    def _settings(self) -> tuple[TrainConfig, torch.device]:
        """The parameters as the settings of a run, and its device."""
        chosen = {name: _python(getattr(self, name)) for name in SETTINGS}
        settings = {**chosen, "data": IN_MEMORY, "seed": self._seed, "validation": 0.0}
        return resolve(TrainConfig.checked(settings, type(self).__name__))

    def _take_settings(self) -> None:
        """Go on by the parameters as they are now, with the weights and moments as they are.

        Raises:
            ConfigError: one of them cannot change without a new fit.
        """
        old, (config, device) = self._learner, self._settings()
        if config == old.config:
            return
        for name in FIXED:
            was, now = getattr(old.config, name), getattr(config, name)
            if was != now and not (name == "ema_images" and was and now):
                raise ConfigError(
                    f"{name} was {was} when the model was made and is {now}; set it back, or call "
                    "fit for a new model"
                )
        self._learner = Learner(config, old.vae.config, device, old.count)
        self._learner.take(old.tensors())

    def _train(self, images: Tensor, config: TrainConfig) -> None:
        """Train for the epochs of `config`."""
        learner, progress = self._learner, self._progress
        plan = BatchPlan(config, torch.arange(len(images)))
        learner.count = len(images)
        learner.vae.train()
        step = make_step(learner)
        feed = feed_of(ImageSet(images, None, IN_MEMORY, "train"), learner.vae.device, Ranks())
        for _ in range(config.epochs):
            learner.sums.zero_()
            for _ in epoch_steps(step, feed, plan, progress):
                pass
            self.loss_curve_.append(float(finite_means(learner, progress).loss))
            progress.next_epoch()
            if self.verbose:
                print(f"epoch {progress.epoch}  loss {self.loss_curve_[-1]:.2f} nats/image")
        learner.vae.eval()

    @property
    def _n_features_out(self) -> int:
        return self.vae_.config.latent_dims

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float32"]  # latents are float32 always
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_learner")

    def __getstate__(self) -> dict[str, Any]:
        """The state with all tensors on the CPU, so that it can be unpickled without a GPU."""
        state = super().__getstate__()
        assert isinstance(state, dict)
        if "_learner" in state:
            learner = state["_learner"]
            tensors = {name: value.detach().cpu() for name, value in learner.tensors().items()}
            made_of = (learner.config, learner.vae.config, learner.count, tensors)
            state = {**state, "_learner": made_of}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the learner on the device that `device` means here."""
        if "_learner" in state:
            config, model, count, tensors = state["_learner"]
            device = runtime.pick_device(state["device"])
            config = config.model_copy(update={"device": device.type})
            learner = Learner(config, model, device, count)
            learner.take(tensors)
            learner.vae.eval()
            state = {**state, "_learner": learner}
        super().__setstate__(state)


def _plain(X: ArrayLike | Tensor) -> Any:  # noqa: ANN401
    """A torch tensor or a list as a NumPy array; arrays, tables and sparse matrices as they are."""
    if isinstance(X, Tensor):
        return X.detach().cpu().numpy()
    return X if isinstance(getattr(X, "shape", None), tuple) else np.asarray(X)


def _python(value: Any) -> Any:  # noqa: ANN401
    """A NumPy scalar, as grids have them, as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _seed(random_state: int | np.random.RandomState | None) -> int:
    """A seed from whatever scikit-learn takes for one; a number is the seed itself."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
