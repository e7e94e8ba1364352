"""Names of the parts that a user chooses, and a place for names of one's own.

A setting names a part, the room of that part has a table from names to classes or functions, and
`register` there adds to both. Settings are checked by the names alone, so that nothing here imports
torch. A file never says where code is: what it names must be registered before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

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
    "continuous-bernoulli",
    "discretized-logistic",
    "discretized-logistic-mixture",
    "discretized-logistic-colour",
]
PriorName = Literal["normal", "mixture", "vamp", "flow"]
ObjectiveName = Literal["elbo", "iwae", "dreg", "beta-tc"]


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
