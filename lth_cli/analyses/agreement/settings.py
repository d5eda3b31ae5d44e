"""What `lth analyze analysis=agreement` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import RoundName, Split
from lth_cli.config.values import Section


class Settings(Section):
    """How far trainings that differ by chance alone agree, by example (Cooper et al. 2022, arXiv:2206.11834)."""

    name: Literal["agreement"]
    rounds: Annotated[list[RoundName], Field(min_length=1)] = Field(
        ["0", "last"],
        description="Rounds compared side by side, each over all RUNs: 0 is dense; random/15 is a control's.",
    )
    split: Split = Field("test", description="Examples that are classified: train, val, test.")
