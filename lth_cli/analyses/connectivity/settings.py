"""What `lth analyze analysis=connectivity` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import MeasuredOnLine, StateName


class Settings(MeasuredOnLine):
    """Error and loss on the line between pairs of states, and its barrier."""

    name: Literal["connectivity"]
    states: list[StateName] = Field(
        ["0@end", "last@end"],
        description="Every two of these states make a pair. A state without a run is one of each RUN asked about.",
    )
    pairs: list[Annotated[list[StateName], Field(min_length=2, max_length=2)]] = Field(
        default_factory=list, description="Pairs named one by one, in the place of states."
    )
