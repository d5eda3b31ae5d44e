"""The kinds of values and sections a config is made of."""

from __future__ import annotations

import fractions
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)

from lth_cli.config.goals import GOAL
from lth_cli.config.sources import digests
from lth_cli.config.steps import Duration, parse_rounds

Steps = Annotated[
    Duration,
    BeforeValidator(Duration.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "format": "steps"}),
]


def _positive(value: Duration) -> Duration:
    if not value:
        raise ValueError("must be longer than zero steps")
    return value


PositiveSteps = Annotated[Steps, AfterValidator(_positive)]

_SECONDS = re.compile(r"(\d{1,9})(s|min|h)", re.ASCII)


def _interval(value: Any) -> str:
    """`60s`, `10min` and `1h` are time; anything else must be steps. Kept as the canonical spelling."""
    if isinstance(value, str) and _SECONDS.fullmatch(value.strip()):
        if int(value.strip().rstrip("sminh")) == 0:
            raise ValueError("must be longer than zero seconds")
        return value.strip()
    try:
        return str(_positive(Duration.parse(value)))
    except ValueError as error:
        raise ValueError(f"{error}; or a time: 60s, 10min, 1h") from None


Interval = Annotated[str, BeforeValidator(_interval)]


def interval_seconds(interval: str) -> float | None:
    """Seconds of an interval such as `10min`; None when it counts steps."""
    match = _SECONDS.fullmatch(interval)
    return int(match[1]) * {"s": 1.0, "min": 60.0, "h": 3600.0}[match[2]] if match else None


def _round_range(value: Any) -> str:
    """A round range may arrive from the command line as one integer."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError("write all, last, or for example 3,5-8")
    parse_rounds(text, last=MOST_ROUNDS)
    return text


RoundRange = Annotated[str, BeforeValidator(_round_range)]


MOST_ROUNDS = 10_000
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
ONE_LINE = r"^[^\s].*$"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._,+-]{0,119}$"
DEVICE = r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"
JOB_TIME = r"^[1-9]\d{0,5}(min|h)$"
JOB_MEMORY = r"^[1-9]\d{0,6}[MGT]$"
FORMS = {
    ONE_LINE: "must be one line that does not begin with a space",
    NAME: "may have letters, digits and . _ , + - and begins with a letter or digit, 120 at most",
    DEVICE: "must be auto, cpu, mps, cuda or cuda:N",
    JOB_TIME: "must be a time such as 30min or 12h",
    JOB_MEMORY: "must be an amount of memory such as 500M or 16G",
    GOAL: "must be SPLIT_METRIC:VALUE of the validation or test examples, such as val_accuracy:0.98 or test_loss:0.1",
}
"""What a message says of a text that is not of a form: a regular expression is no answer."""
SlurmText = Annotated[str, Field(pattern=ONE_LINE, max_length=1000)]  # it ends up in a script
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**53)]


def exact(value: float) -> fractions.Fraction:
    """The decimal a person wrote: 0.2 is 1/5, not the nearest double, so that ceil(0.2 x 5) is 1."""
    return fractions.Fraction(str(value))


class Section(BaseModel):
    """A part of the config: unknown keys, NaN, infinity and numbers in strings are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        serialize_by_alias=True,
    )


class Component(Section):
    """A section built by a function or class named by import path; further keys are that function's arguments."""

    model_config = ConfigDict(extra="allow")

    target: str = Field(alias="_target_", description="Import path of the function or class that builds it.")
    version: Annotated[str, Field(min_length=1)] | int | None = Field(
        None,
        alias="_version_",
        description="A version of your own code; stated, results depend on it in the place of the source.",
    )

    @model_serializer(mode="wrap")
    def _without_an_unstated_version(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plain configs and identities are what they were before there were versions."""
        written: dict[str, Any] = write(self)
        return {key: value for key, value in written.items() if key != "_version_" or value is not None}

    @property
    def sources(self) -> dict[str, str]:
        """Digests of the modules of a person's own behind the target, and those that arguments name, by module.

        None of code whose version is stated.
        """
        found = {} if self.version is not None else digests(self.target)
        for value in self.arguments.values():
            if isinstance(value, dict) and "_target_" in value:
                found |= Component.model_validate(value).sources
        return found

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments for the target: every key that is not a field of the section."""
        return dict(self.model_extra or {})
