"""What `lth analyze analysis=jacobian` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import StateName
from lth_cli.config.values import Section


class Settings(Section):
    """Singular values of the Jacobian of outputs by inputs at states: mean, spread, least and largest."""

    name: Literal["jacobian"]
    states: Annotated[list[StateName], Field(min_length=1)] = Field(
        ["0@start", "last@start", "last@end"],
        description="A state without a run is one of each RUN asked about.",
    )
    examples: Annotated[int, Field(ge=1)] = Field(
        100, description="Training examples averaged over, drawn by the seed, without augmentation."
    )
    dtype: Literal["float32", "float64"] = Field(
        "float32", description="Numbers that the Jacobian is computed in; its singular values are in float64."
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(50, description="Examples a pass; bounds memory.")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Of the examples drawn.")
