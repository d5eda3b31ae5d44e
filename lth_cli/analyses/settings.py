"""What the settings of several analyses share: names of states and rounds, what is measured between states."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from lth_cli.config.references import Reference, is_round
from lth_cli.config.steps import Duration
from lth_cli.config.values import Section


def _state(value: Any) -> str:
    """A round may arrive from the command line as an integer."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError("write ROUND@STEP of the run, or RUN:ROUND@STEP")
    Reference.parse(f"run:{text}" if is_round(text) else text)
    return text.strip()


StateName = Annotated[str, BeforeValidator(_state)]
"""`3@end`, `random/3@500it` of the run asked about, or `RUN:3@end` of any."""


def _round(value: Any) -> str:
    """A round of each RUN, without a step."""
    text = str(value).strip()
    if isinstance(value, bool) or not is_round(text) or "@" in text:
        raise ValueError(f"{value!r} is no round; write 0, 3, last, random/3")
    return text


RoundName = Annotated[str, BeforeValidator(_round)]
"""`0`, `15`, `last`, `random/15`: a round of each run asked about."""


def _moment(value: Any) -> str:
    """`start`, or a step in its canonical spelling."""
    if value == "start":
        return "start"
    try:
        return str(Duration.parse(value))
    except ValueError as error:
        raise ValueError(f"{error}; or start") from None


Moment = Annotated[str, BeforeValidator(_moment)]
"""`start` of a training, or a step of it."""

Split = Literal["train", "val", "test"]


class Measured(Section):
    """What is measured at points between trained states."""

    splits: Annotated[list[Split], Field(min_length=1)] = Field(
        ["train", "test"], description="Examples that error and loss are measured on: train, val, test."
    )
    batch_norm: Literal["interpolated", "recomputed"] = Field(
        "interpolated",
        description="Batch-norm statistics between states: interpolated like weights, or recomputed there by a pass "
        "over the training set.",
    )

    @field_validator("splits")
    @classmethod
    def _each_once(cls, splits: list[Split]) -> list[Split]:
        if len(set(splits)) < len(splits):
            raise ValueError("names a split twice")
        if "test" not in splits:
            raise ValueError("must name test, by whose error states are compared")
        return splits


class MeasuredOnLine(Measured):
    """How error is measured on the line between two states (Frankle et al. 2020, arXiv:1912.05671)."""

    points: Annotated[int, Field(ge=3, le=10_000)] = Field(
        30, description="Evenly spaced points on the line, both ends included."
    )
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.02,
        description="Barrier of the test error below which two states count as connected; of objectives that know "
        "no error, of the test loss.",
    )
