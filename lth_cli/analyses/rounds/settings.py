"""What `lth analyze analysis=rounds` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import MeasuredOnLine, RoundName


class Settings(MeasuredOnLine):
    """Whether the ends of successive rounds are linearly connected, and whether rounds match."""

    name: Literal["rounds"]
    rounds: Literal["all"] | Annotated[list[RoundName], Field(min_length=1)] = Field(
        "all",
        description="Rounds of each RUN, beside the dense one: all finished ones, or a list; random/15 is a control's.",
    )
    tolerance: Annotated[float, Field(ge=0.0)] | None = Field(
        None,
        description="How far below the mean dense test accuracy a round still matches: 0.002 is 0.2 points; null is "
        "one standard deviation of the dense accuracy over the RUNs. Of other objectives, how much worse their "
        "headline metric may be.",
    )
