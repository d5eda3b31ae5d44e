"""What `lth analyze analysis=masks` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import RoundName
from lth_cli.config.values import Section


class Settings(Section):
    """What masks have in common against chance, and which weights retraining makes small."""

    name: Literal["masks"]
    rounds: list[RoundName] = Field(
        default_factory=list,
        description="Rounds of each RUN whose masks are compared; random/15 is a control's. Empty is every finished "
        "round after the dense one.",
    )
    bins: Annotated[int, Field(ge=2, le=10_000)] = Field(
        50, description="Bins of the histograms of log10 |w|."
    )
