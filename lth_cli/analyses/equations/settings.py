"""What `lth analyze analysis=equations` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import StateName
from lth_cli.config.values import Section

_Numbers = Annotated[list[Annotated[float, Field(gt=0.0)]], Field(min_length=1)]


class Settings(Section):
    """Terms of equations, their error on new trajectories, and those of STLSQ on the same data."""

    name: Literal["equations"]
    states: Annotated[list[StateName], Field(min_length=1)] = Field(
        ["0@end"], description="A state without a run is one of each RUN asked about."
    )
    thresholds: _Numbers = Field(
        [0.1, 0.05, 0.01],
        description="Of STLSQ; in each environment the threshold and ridge of the least error on held states count.",
    )
    ridges: _Numbers = Field([1.0, 0.5, 0.1, 0.05], description="Its ridges.")
