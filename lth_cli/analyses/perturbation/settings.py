"""What `lth analyze analysis=perturbation` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lth_cli.analyses.settings import MeasuredOnLine, RoundName


class Settings(MeasuredOnLine):
    """Whether a training ends in the same linearly connected place when its start is moved."""

    name: Literal["perturbation"]
    rounds: Annotated[list[RoundName], Field(min_length=1)] = Field(
        ["0"], description="Rounds of each RUN whose starts are moved; each needs the round after it."
    )
    directions: Annotated[list[Literal["projection", "random"]], Field(min_length=1)] = Field(
        ["projection", "random"],
        description="Where to: projection sets the weights to zero that the next round prunes; random is a Gaussian "
        "direction among the weights of the round.",
    )
    norms: list[Annotated[float, Field(gt=0.0)]] = Field(
        [1.0], description="How far, as multiples of the norm of the projection."
    )
    absolute_norms: list[Annotated[float, Field(gt=0.0)]] = Field(
        default_factory=list, description="How far, as L2 norms; beside norms, which may be []."
    )
    draws: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="Random directions drawn at each round."
    )

    @model_validator(mode="after")
    def _some_norm(self) -> Settings:
        if not self.norms and not self.absolute_norms:
            raise ValueError("norms and absolute_norms are both empty; name one")
        for name in ("directions", "norms", "absolute_norms", "rounds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice")
        return self
