"""What `lth analyze analysis=dimension` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.config.values import Section, Seed


class Settings(Section):
    """The intrinsic dimension of the training examples (Levina and Bickel 2004; Pope et al. 2021, arXiv:2104.08894)."""

    name: Literal["dimension"]
    neighbours: Annotated[list[Annotated[int, Field(ge=2, le=1000)]], Field(min_length=1)] = Field(
        [3, 5, 10, 20], description="How many nearest neighbours; an estimate for each number."
    )
    examples: Annotated[int, Field(ge=10)] = Field(
        4000, description="Most training examples looked at, drawn by the seed."
    )
    seed: Seed = Field(0, description="Of the examples drawn.")
