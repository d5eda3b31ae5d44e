"""What `lth analyze analysis=examples` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lth_cli.analyses.settings import StateName
from lth_cli.config.references import is_round
from lth_cli.config.values import Section


class Settings(Section):
    """What trainings find easy and hard: scores of every training example, by its position in the data set."""

    name: Literal["examples"]
    states: Annotated[list[StateName], Field(min_length=1)] = Field(
        ["0@end"],
        description="Steps of one training of each RUN, rising. Loss, margin, EL2N and GraNd are those of the last; "
        "over several, forgetting is counted too.",
    )
    grand: bool = Field(True, description="Also measure GraNd, which takes a gradient for every example.")
    between: list[StateName] = Field(
        default_factory=list,
        description="Two states, such as [0@end,OTHER:0@end], at whose midpoint the barrier of each example is "
        "measured; empty is none.",
    )

    compared: list[StateName] = Field(
        default_factory=list,
        description="Two states, such as [0@end,10@end]; improvement is by how much the loss of each example is lower "
        "at the second. Empty is none.",
    )
    groups: Annotated[int, Field(ge=2)] = Field(
        20,
        description="Groups of as many examples each, by EL2N from easy to hard, for which the loss of both compared "
        "states is also reported.",
    )

    @field_validator("states")
    @classmethod
    def _of_each_run(cls, states: list[str]) -> list[str]:
        for state in states:
            if not is_round(state):
                raise ValueError(f"{state!r} names a run; write ROUND@STEP, a step of a training of each RUN")
        return states

    @field_validator("between", "compared")
    @classmethod
    def _none_or_two(cls, states: list[str]) -> list[str]:
        if len(states) not in (0, 2):
            raise ValueError("takes two states, or none")
        return states
