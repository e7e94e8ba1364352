"""Every setting of a model and of a training run, written once.

The command line's flags, the recipes' keys, `config.json` and the metadata of a model file are made
from these classes, which are frozen, refuse unknown keys, and check what can be checked without
opening a file. Nothing here imports torch: the command line starts at once.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from convvae.config.base import Flag, Frozen, ImageSize, Size, UserPath, check_size
from convvae.config.condition import CATEGORY, LABEL, Condition
from convvae.parts import (
    LIKELIHOOD_NAMES,
    NETWORK_NAMES,
    OBJECTIVE_NAMES,
    PRIOR_NAMES,
    WITHOUT_BATCH_STATISTICS,
    Group,
    groups_of,
)

LATENT_DIMS = 8
"""Latents of a model, where nothing else is asked for."""
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "float32", "bfloat16"]
Binarize = Literal["none", "dynamic", "static"]
CompileName = Literal["auto", "on", "off"]
Augmentation = Literal["none", "flip", "shift", "flip-shift"]
ValidatedOn = Literal["validation", "test"]
"""Images that a run's `val_*` are of: training images held out, or the test images."""


MAX_GROUPS = 100
"""Groups of latents of a ladder that may be named per resolution."""
SEMI_SUPERVISED = "semi-supervised"
"""The objective that learns from images without labels too."""
MAX_OUTLINE = 512
"""Latents of a ladder's first groups that stand for an image where each is looked at."""


class Architecture(Frozen):
    """What a user chooses about a model; the images decide the rest."""

    network: Annotated[str, NETWORK_NAMES] = "upsample"
    """Encoder and decoder pair."""
    latent_dims: int = Field(default=LATENT_DIMS, ge=1, le=2**22)
    """Number of latents D; that of a ladder follows from its groups."""
    max_filters: int = Field(default=64, ge=1, le=4096)
    """Filters of the widest convolution."""
    depth: int = Field(default=2, ge=1, le=100)
    """Residual blocks per resolution (residual); groups per resolution, which grow (ladder)."""
    groups: tuple[int, ...] | None = None
    """Groups of latents per resolution of a ladder, from the coarsest (else by --depth)."""
    group_channels: int = Field(default=8, ge=1, le=1024)
    """Channels of the latent maps of a ladder."""
    fold: int = Field(default=2, ge=1, le=8)
    """Pixels a side that a ladder takes as one cell of its finest map."""
    likelihood: Annotated[str, LIKELIHOOD_NAMES] = "gaussian"
    """p(x|z) of a pixel."""
    variance: float = Field(default=0.5, gt=0)
    """Variance of the gaussian and laplace likelihoods; gaussian at 0.5: squared error + KL."""
    posterior: Literal["diagonal", "full", "flow"] = "diagonal"
    """q(z|x): a Gaussian with a diagonal or a full covariance, or one bent by a flow."""
    prior: Annotated[str, PRIOR_NAMES] = "normal"
    """p(z): standard normal, a mixture (of posteriors: vamp), a flow; a Gaussian for each label."""
    prior_components: int = Field(default=100, ge=1, le=10_000)
    """Components of a mixture prior."""

    @field_validator("max_filters")
    @classmethod
    def _filters_divide(cls, filters: int) -> int:
        if filters % 4:
            lower, upper = filters // 4 * 4 or 4, (filters // 4 + 1) * 4
            raise ValueError(f"must be divisible by 4, such as {lower} or {upper}")
        return filters

    @property
    def location(self) -> Literal["mean", "location f(mu)", "path of means"]:
        """What the latent that stands for an image is of its posterior, for people."""
        if self.network == "ladder":
            return "path of means"
        return "location f(mu)" if self.posterior == "flow" else "mean"

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether the network, in training, computes of an image what depends on its batch."""
        return self.network not in WITHOUT_BATCH_STATISTICS

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.prior == "vamp" and self.uses_batch_statistics:
            raise ValueError(
                "prior vamp encodes learned images beside the real ones, and the batch "
                f"normalisation of network {self.network} would mix them; use `network='residual'`"
            )
        if self.prior == "vamp" and self.posterior != "diagonal":
            raise ValueError("prior vamp mixes diagonal Gaussians; use `posterior='diagonal'`")
        if self.network == "ladder" and (self.posterior, self.prior) != ("diagonal", "normal"):
            raise ValueError(
                "network ladder has Gaussian posteriors and priors of its own, group by group; "
                "leave out `posterior` and `prior`"
            )
        if self.groups is not None and self.network != "ladder":
            raise ValueError(f"network {self.network} has no groups of latents; use ladder")
        if self.groups is not None and not all(1 <= n <= MAX_GROUPS for n in self.groups or (0,)):
            raise ValueError(f"groups needs 1 to {MAX_GROUPS} groups per resolution, such as 2 4 6")
        if self.posterior == "flow" and self.latent_dims < 2:
            raise ValueError("posterior flow couples latents, and needs at least two of them")
        return self


class ModelConfig(Architecture):
    """All that is needed to rebuild a model; stored inside every model file.

    Examples:
        >>> ModelConfig(image_size=(28, 20), channels=3).pixels  # C H W
        1680
    """

    image_size: Size
    """Height and width of the images, at least 8 each; a single number is both."""
    channels: int = Field(ge=1, le=4)
    """Channels C of the images."""
    condition: Condition | None = None
    """What the model is told of an image; None of an unconditional one."""
    classifier: bool = False
    """Whether it has a classifier q(y|x) of the labels that it is told."""

    @property
    def pixels(self) -> int:
        """Values of an image, C * H * W."""
        return self.channels * math.prod(self.image_size)

    @field_validator("image_size")
    @classmethod
    def _large_enough(cls, size: tuple[int, int]) -> tuple[int, int]:
        return check_size(size)

    @model_validator(mode="after")
    def _labels_where_they_are_needed(self) -> Self:
        check_condition(self, conditional=self.condition is not None)
        if self.classifier and not (self.condition and self.condition.labels):
            raise ValueError("a classifier is of the labels of one column that a model is told")
        return self

    @property
    def plan(self) -> tuple[Group, ...]:
        """The groups of a ladder's latents, from the coarsest to the finest; else none."""
        if self.network != "ladder":
            return ()
        counts = self.groups or self.depth
        return groups_of(self.image_size, self.fold, counts, self.group_channels)

    @property
    def outline(self) -> int:
        """Latents that are looked at one by one: all, or those of a ladder's first groups.

        Of a ladder, as many whole groups as have at most `MAX_OUTLINE` latents, at least one.
        """
        ends = [group.start + group.size for group in self.plan]
        few = [end for end in ends if end <= MAX_OUTLINE]
        return (few[-1] if few else ends[0]) if ends else self.latent_dims

    @model_validator(mode="after")
    def _latents_of_a_ladder(self) -> Self:
        if self.network == "ladder":
            total = sum(group.size for group in self.plan)
            if self.latent_dims not in (LATENT_DIMS, total):
                raise ValueError(
                    f"the groups of this ladder have {total} latents, not {self.latent_dims}: "
                    "leave out `latent_dims`, or set `groups` and `group_channels`"
                )
            # The instance is frozen for others; this is still its making.
            object.__setattr__(self, "latent_dims", total)
        return self

    @model_validator(mode="after")
    def _fewer_latents_than_pixels(self) -> Self:
        if self.network != "ladder" and self.latent_dims > self.pixels:
            raise ValueError(
                f"{self.latent_dims} latents for images of {self.pixels} values: a latent space "
                "larger than the image makes no sense; lower `latent_dims`"
            )
        return self


def check_condition(model: Architecture, *, conditional: bool) -> None:
    """Check that a prior fits a model that is told labels, or is not.

    Raises:
        ValueError: it does not.
    """
    if model.prior == "conditional" and not conditional:
        raise ValueError("prior conditional is one for each label; use `condition='label'` too")
    if model.prior == "vamp" and conditional:
        raise ValueError(
            "prior vamp mixes posteriors of images that have no label; use `prior='conditional'`"
        )


class TrainConfig(Architecture):
    """One training run, whole; `convvae train --resume RUN` continues a stopped one."""

    data: Annotated[str, Flag(positional=True)]
    """Images: a name such as mnist, a folder, archive, array or table, or hf:OWNER/NAME."""
    recipe: str | None = None
    """Start from the settings of a recipe; any flag overrides it."""

    init: str | None = None
    """Start from the weights of this model: a run folder, a model file or a pretrained name."""

    data_dir: UserPath | None = None
    """Folder with the data files (else $CONVVAE_DATA, else downloaded)."""
    limit: int | None = Field(default=None, ge=2)
    """Train on the first so many images."""
    image_size: ImageSize = None
    """Resize to this height and width, padding where the aspect differs."""
    crop: bool = False
    """Cut the images to the aspect of that size at the centre, instead of padding them."""
    channels: Annotated[int | None, Flag(aliases=("--nimg-channels",))] = Field(
        default=None, ge=1, le=4
    )
    """1 grey, 2 grey and alpha, 3 RGB, 4 RGBA (else 1 if all images are grey, 3 if not)."""
    split: str = "auto"
    """How one's own are divided: auto, folders (train, test), a share held out, or none."""
    skip_bad: bool = False
    """Leave out files that cannot be read."""
    mask: str | None = None
    """Pixels that are missing: marked (NaN, not opaque), random:SHARE, box:..., a .png or .npy."""
    condition: tuple[str, ...] | None = None
    """Tell the model columns y of each image, q(z|x,y), p(x|z,y): label, or those of a table."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training images held out to choose the kept weights, at most 5,000; 0: none."""
    augment: Augmentation = "none"
    """Flip half of the training images left to right, shift each by up to 1/16 of a side."""

    binarize: Binarize = "none"
    """Draw black or white pixels by the grey values as probabilities: every epoch anew, or once."""
    binarize_seed: int = Field(default=0, ge=0)
    """Seed of the test images' draw, and of the training images' if it is static."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the images."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs that did no better on the validation images."""
    batch_size: Annotated[int, Flag(aliases=("--batchsize",))] = Field(
        default=128, ge=2, le=1_000_000
    )
    """Images per step."""
    drop_last: bool = False
    """Leave out an epoch's last batch when it is incomplete."""
    optimizer: Literal["adamw", "adam", "muon"] = "adamw"
    """Update rule; muon orthogonalises; weight decay is part of the gradient in adam only."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of the optimizer."""
    bias_correction: bool = True
    """Correct Adam's moments for their start at zero, as all but MLX do."""
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    """Course of the learning rate over the run's images."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Scale gradients down to this norm."""
    skip_norm: float | None = Field(default=None, gt=0)
    """Leave out steps whose gradient is beyond this norm; they are counted."""
    ema_images: int | None = Field(default=None, ge=1)
    """Average the weights over the run, with this half-life in images."""
    head_bias: Literal["uniform", "zero"] = "uniform"
    """Start of the biases of the mean and log-variance heads."""
    output_bias: Literal["uniform", "mean"] = "uniform"
    """Start of the decoder's last bias; mean makes it the mean pixel of the images."""

    beta: float = Field(default=1.0, ge=0)
    """Weight of the KL term in the loss (the bound is always reported at 1)."""
    kl_schedule: Literal["constant", "linear", "cyclical"] = "constant"
    """Course of that weight: up from 0 once over kl_warmup images, or in each of four cycles."""
    kl_warmup: int = Field(default=200_000, ge=1)
    """Images over which the linear schedule raises the weight of the KL term, or the capacity."""
    objective: Annotated[str, OBJECTIVE_NAMES] = "elbo"
    """ELBO; importance-weighted, by two gradients; beta on total correlation; labels that lack."""
    free_bits: float = Field(default=0.0, ge=0)
    """Nats that the KL of each latent, or group of a ladder, may have for nothing."""
    capacity: float | None = Field(default=None, ge=0)
    """Hold the KL at so many nats, from 0 over kl_warmup images; beta weighs the distance."""
    alpha: float = Field(default=50.0, ge=0)
    """Weight of -log q(y|x) of each image with a label in the objective semi-supervised."""
    labelled: int | None = Field(default=None, ge=2)
    """Keep the labels of so many training images, as many of each, and hide all others."""
    mmd: float = Field(default=0.0, ge=0)
    """Weight of the maximum mean discrepancy of q(z) from p(z) (InfoVAE)."""
    mc_samples: int = Field(default=1, ge=1, le=10_000)
    """Latent draws per image, K; averaged in the ELBO, weighted in the other objectives."""

    seed: int = Field(default=0, ge=0)
    """Seed of the whole run: weights, order, noise and pictures."""
    device: DeviceName = "auto"
    """Where to compute (--cpu is short for --device cpu)."""
    precision: PrecisionName = "auto"
    """Of the networks in training; auto is bfloat16 where the processor computes it natively."""
    compile: CompileName = "auto"
    """Compile the training step with torch.compile; auto is off: it takes a minute to begin."""
    batch_statistics: Literal["shared", "local"] = "shared"
    """Of batch normalisation in several processes: of all images of a batch, or of each share."""
    save_every: float = Field(default=10.0, gt=0)
    """Minutes between two saves of the run inside an epoch; an epoch's end is always saved."""
    rollbacks: int = Field(default=0, ge=0, le=100)
    """Go back so often to the last saved state, at half the step, if the loss is not finite."""
    log_every: int = Field(default=100, ge=1)
    """Record the loss in metrics.jsonl every so many steps."""
    preview: bool = True
    """Draw a picture after every epoch."""
    report: bool = True
    """Write a page about the finished run."""
    tensorboard: bool = False
    """Write the run for TensorBoard as well, into its folder."""
    out: UserPath | None = None
    """Run folder to make (else runs/DATA-RECIPE, numbered)."""

    @field_validator("condition", mode="before")
    @classmethod
    def _one_or_several(cls, columns: object) -> object:
        # Runs of before there were several columns have the word alone.
        columns = (columns,) if isinstance(columns, str) else columns
        return None if columns == ("none",) else columns

    @field_validator("condition")
    @classmethod
    def _columns_once(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        names = [word.removesuffix(CATEGORY) for word in columns or (LABEL,)]
        if columns == () or not all(names) or len(set(names)) != len(names):
            raise ValueError("name label, or columns of a table, each once")
        return columns

    @field_validator("image_size")
    @classmethod
    def _large_enough(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        return None if size is None else check_size(size)

    @model_validator(mode="after")
    def _patience_has_images(self) -> Self:
        if self.patience is not None and not self.validation:
            raise ValueError(
                "patience counts epochs that did no better on the validation images, and none are "
                "held out; use `validation=0.1`"
            )
        return self

    @model_validator(mode="after")
    def _objective_makes_sense(self) -> Self:
        weighted = self.beta != 1 or self.kl_schedule != "constant"
        extras = {"free_bits": self.free_bits, "capacity": self.capacity, "mmd": self.mmd}
        added = [name for name, value in extras.items() if value not in (None, 0.0)]
        if self.objective in ("iwae", "dreg") and (weighted or added):
            raise ValueError(
                f"objective {self.objective} has no KL term of its own to weigh: "
                "leave out `beta`, `kl_schedule`, `free_bits`, `capacity` and `mmd`, or use "
                "`objective='elbo'`"
            )
        if self.objective != "elbo" and added:
            raise ValueError(f"`{added[0]}` goes with `objective='elbo'` only")
        if self.capacity is not None and (self.free_bits or self.kl_schedule != "constant"):
            raise ValueError(
                "capacity sets the KL by itself: leave out `free_bits` and `kl_schedule`"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_learnt_where_some_lack(self) -> Self:
        semi = self.objective == SEMI_SUPERVISED
        if semi and self.condition != (LABEL,):
            raise ValueError(
                "objective semi-supervised learns the labels that images lack; use it with "
                "`condition='label'`"
            )
        if semi and self.likelihood == "gaussian-optimal":
            raise ValueError(
                "likelihood gaussian-optimal takes the variance that is best for one label; use "
                "`likelihood='gaussian-learned'`"
            )
        if self.labelled is not None and not semi:
            raise ValueError("`labelled` hides labels, which needs `objective='semi-supervised'`")
        return self

    @model_validator(mode="after")
    def _gradient_is_that_of_the_objective(self) -> Self:
        if self.objective == "dreg" and (self.posterior == "flow" or self.network == "ladder"):
            raise ValueError(
                "objective dreg needs a Gaussian posterior of z as a whole; use `objective='iwae'`"
            )
        if self.objective == "dreg" and self.uses_batch_statistics:
            raise ValueError(
                "objective dreg takes the weight of a draw to depend on that draw alone, and the "
                f"batch normalisation of network {self.network} mixes the draws, which makes its "
                "gradient wrong; use `network='residual'`, or `objective='iwae'`"
            )
        if self.objective in ("iwae", "dreg") and self.likelihood == "gaussian-optimal":
            raise ValueError(
                "likelihood gaussian-optimal takes the variance that is best for the mean over the "
                f"draws, which is not the best for the weighted draws of objective "
                f"{self.objective}: its gradient would be wrong; use "
                "`likelihood='gaussian-learned'`"
            )
        return self

    @model_validator(mode="after")
    def _objective_fits_the_latents(self) -> Self:
        if self.network == "ladder" and (self.mmd or self.objective == "beta-tc"):
            raise ValueError(
                "the latents of a ladder are no standard normals: leave out mmd, and objective "
                "beta-tc"
            )
        needs_both = {"free_bits": self.free_bits, "objective beta-tc": self.objective == "beta-tc"}
        for name, wanted in needs_both.items():
            if wanted and (self.posterior, self.prior) != ("diagonal", "normal"):
                raise ValueError(
                    f"{name} takes the latents one by one, which needs the diagonal posterior and "
                    "the normal prior"
                )
        if self.mmd and self.prior != "normal":
            raise ValueError("mmd compares the latents with the normal prior; use `prior='normal'`")
        return self

    @model_validator(mode="after")
    def _binary_where_it_is_needed(self) -> Self:
        if self.likelihood == "bernoulli-interleaved" and self.binarize == "none":
            raise ValueError(
                "likelihood bernoulli-interleaved is defined for black and white pixels alone; "
                "use `binarize='dynamic'`, or `binarize='static'`"
            )
        return self

    @model_validator(mode="after")
    def _labels_where_they_are_needed(self) -> Self:
        check_condition(self, conditional=self.condition is not None)
        return self

    def model(
        self, image_size: tuple[int, int], channels: int, condition: Condition | None = None
    ) -> ModelConfig:
        """The model that this run trains on images of that size, and with those labels.

        Raises:
            ConfigError: the settings do not fit the images.
            ImageSizeError: the images are smaller than `MIN_SIDE`.
        """
        chosen = {name: getattr(self, name) for name in Architecture.model_fields}
        of_images = {"image_size": image_size, "channels": channels, "condition": condition}
        learns = {"classifier": self.objective == SEMI_SUPERVISED}
        return ModelConfig.checked({**chosen, **of_images, **learns}, "model")
