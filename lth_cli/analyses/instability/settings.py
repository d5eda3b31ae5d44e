"""What `lth analyze analysis=instability` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import MeasuredOnLine, Moment, RoundName


class Settings(MeasuredOnLine):
    """Whether copies of a training that differ in the order of the data end linearly connected."""

    name: Literal["instability"]
    rounds: Annotated[list[RoundName], Field(min_length=1)] = Field(
        ["0"], description="Trainings that are copied: rounds of each RUN; random/15 is a control's."
    )
    at: Annotated[list[Moment], Field(min_length=1)] = Field(
        ["start"],
        description="Steps k from which copies are trained: start, 0, 500it, 2ep; several give the curve.",
    )
    copies: Annotated[int, Field(ge=2, le=100)] = Field(
        2, description="Copies trained from each step; every two of them make a pair."
    )
    schedule: Literal["resumed", "restarted"] = Field(
        "resumed",
        description="resumed: copies go on at step k of the schedule. restarted: they train the whole schedule.",
    )
