"""What `lth analyze analysis=landscape` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import Measured, StateName


class Settings(Measured):
    """Error and loss on the plane through three states, or the one that four trained seeds span."""

    name: Literal["landscape"]
    states: Annotated[list[StateName], Field(min_length=1)] = Field(
        ["0@end", "1@end", "last@end"],
        description="Three states, or four; one without a run is one of each RUN asked about.",
    )
    grid: Annotated[int, Field(ge=2, le=1000)] = Field(
        21, description="Evenly spaced points along each axis: grid x grid evaluations of every split."
    )
    margin: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        0.2, description="How far the grid goes beyond the states, as a share of their extent along the axis."
    )
