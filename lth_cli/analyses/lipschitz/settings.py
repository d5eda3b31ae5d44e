"""What `lth analyze analysis=lipschitz` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import RoundName
from lth_cli.config.steps import Duration
from lth_cli.config.values import PositiveSteps, Section


class Settings(Section):
    """Local Lipschitz constant of the gradient along the path of training: its largest change over one update."""

    name: Literal["lipschitz"]
    rounds: Annotated[list[RoundName], Field(min_length=1)] = Field(
        ["last"], description="Rounds of each RUN asked about."
    )
    every: PositiveSteps = Field(
        Duration(iterations=1000),
        description="Measured at each update that ends so many steps after the last.",
    )
    points: Annotated[int, Field(ge=1, le=1000)] = Field(
        9, description="Points between the weights before and after the update: 9 are at 0.1 to 0.9 of it."
    )
