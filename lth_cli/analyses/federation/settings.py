"""What `lth analyze analysis=federation` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import RoundName
from lth_cli.config.values import Section


class Settings(Section):
    """Communication, peak memory of activations and the headline metric of federated trainings, by rounds."""

    name: Literal["federation"]
    rounds: Annotated[list[RoundName], Field(min_length=1)] = Field(
        ["0"], description="Trainings of each RUN: rounds of pruning, not of averaging."
    )
