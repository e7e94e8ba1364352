"""Names of the parts that a user chooses, a place for names of one's own, and a ladder's groups.

A setting names a part, the room of that part has a table from names to classes or functions, and
`register` there adds to both. Settings are checked by the names alone, so that nothing here imports
torch. A file never says where code is: what it names must be registered before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from convvae.errors import ConfigError, did_you_mean

Network = Literal["upsample", "pooled", "transposed", "residual", "ladder"]
LikelihoodName = Literal[
    "gaussian",
    "gaussian-learned",
    "gaussian-optimal",
    "laplace",
    "bernoulli",
    "bernoulli-interleaved",
    "continuous-bernoulli",
    "discretized-logistic",
    "discretized-logistic-mixture",
    "discretized-logistic-colour",
]
PriorName = Literal["normal", "mixture", "vamp", "flow", "conditional"]
ObjectiveName = Literal["elbo", "iwae", "dreg", "beta-tc", "semi-supervised"]


class Names:
    """The names that a setting may have: convvae's own, and those registered since.

    In an annotation, `Annotated[str, names]`, it is the rule of a pydantic field.

    Args:
        setting: The setting.
        register: The function that registers another name, for messages.
        built_in: Convvae's own names.
    """

    def __init__(self, setting: str, register: str, built_in: tuple[str, ...]) -> None:
        self.setting = setting
        self.register = register
        self.built_in = built_in
        self._registered: dict[str, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter((*self.built_in, *self._registered))

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self._registered

    def add(self, name: str) -> None:
        """Take a name of the user's; one taken before stands for the newer part from now on.

        Raises:
            ConfigError: it is convvae's own, or not made of small letters, digits and hyphens.
        """
        if name in self.built_in:
            raise ConfigError(f"{self.setting} {name} is convvae's own; choose another name")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ConfigError(
                f"{name!r} cannot name a {self.setting}: use small letters, digits and hyphens, "
                "such as my-part"
            )
        self._registered[name] = None

    def check(self, name: str) -> str:
        """The name itself.

        Raises:
            ValueError: nothing has that name.
        """
        if name not in self:
            raise ValueError(
                f"there is no {self.setting} {name!r}{did_you_mean(name, self)}; choose "
                f"{', '.join(self)}, or register your own with {self.register}"
            )
        return name

    def __get_pydantic_core_schema__(
        self,
        source: Any,  # noqa: ANN401
        handler: GetCoreSchemaHandler,
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


NETWORK_NAMES = Names("network", "convvae.networks.register", get_args(Network))
LIKELIHOOD_NAMES = Names(
    "likelihood", "convvae.distributions.register_likelihood", get_args(LikelihoodName)
)
PRIOR_NAMES = Names("prior", "convvae.distributions.register_prior", get_args(PriorName))
OBJECTIVE_NAMES = Names("objective", "convvae.model.objectives.register", get_args(ObjectiveName))
PARTS_OF_A_MODEL = (NETWORK_NAMES, LIKELIHOOD_NAMES, PRIOR_NAMES)
"""What a model file names; the objective is the training's alone."""

WITHOUT_BATCH_STATISTICS: set[str] = {"residual", "ladder"}
"""Networks in which no image sees another; the others normalise by the statistics of a batch."""

OF_BINARY_IMAGES = ("bernoulli", "bernoulli-interleaved")
"""Likelihoods of black or white pixels, of which they are a mass."""


class Group(NamedTuple):
    """Latents of a ladder that are drawn together: a map of `channels` x `height` x `width`."""

    name: str
    """Resolution and number, such as 8x8.2."""
    channels: int
    height: int
    width: int
    start: int
    """Place of the first of them in z."""

    @property
    def size(self) -> int:
        """Number of latents."""
        return self.channels * self.height * self.width


LEAST_CELLS = 4
"""The smaller side of the coarsest map of a ladder, where nothing else is asked for."""


def groups_of(
    image_size: tuple[int, int], fold: int, counts: tuple[int, ...] | int, channels: int
) -> tuple[Group, ...]:
    """The groups of a ladder's latents, from the coarsest to the finest.

    Args:
        image_size: Height and width of the images.
        fold: Pixels a side of a cell of the finest map; every coarser one has half as many cells a
            side.
        counts: Groups per resolution, from the coarsest; or the number d, for d, 2d, 3d, ... on
            maps that halve while their smaller side keeps `LEAST_CELLS` cells.
        channels: Of every map.

    Raises:
        ValueError: there are more resolutions than the image can be halved.
    """
    sizes = [(-(-image_size[0] // fold), -(-image_size[1] // fold))]
    wanted = None if isinstance(counts, int) else len(counts)
    while len(sizes) < wanted if wanted else min(sizes[0]) >= 2 * LEAST_CELLS:
        height, width = sizes[0]
        if height == width == 1:
            raise ValueError(
                f"`groups` names {wanted} resolutions, but images of {image_size[0]}x"
                f"{image_size[1]} with a fold of {fold} have only {len(sizes)}"
            )
        sizes.insert(0, (-(-height // 2), -(-width // 2)))
    if isinstance(counts, int):
        counts = tuple(counts * (place + 1) for place in range(len(sizes)))
    plan: list[Group] = []
    for (height, width), count in zip(sizes, counts, strict=True):
        for number in range(1, count + 1):
            start = plan[-1].start + plan[-1].size if plan else 0
            plan.append(Group(f"{height}x{width}.{number}", channels, height, width, start))
    return tuple(plan)
