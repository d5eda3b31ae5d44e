"""What a study's YAML may say."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

TRAINING = ("train", "prune", "rewind")
_STEP = re.compile(r"[a-z][a-z0-9_]*")

Plain = bool | int | float | str


def _override_value(value: Any) -> str:
    """A plain value in Hydra's grammar. Raises ValueError for anything else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{','.join(map(_override_value, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_override_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, int | float | str):
        return str(value)
    raise ValueError(f"{value!r} is no value of a config")


def _overrides(value: Any) -> Any:
    """Overrides as typed: a list of `KEY=VALUE`, or a mapping."""
    if isinstance(value, dict):
        return [f"{key}={_override_value(inner)}" for key, inner in value.items()]
    if isinstance(value, list):
        wrong = [text for text in value if not isinstance(text, str) or "=" not in text.lstrip("~")]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no override; write KEY=VALUE, or a mapping of KEY: VALUE")
    return value


def _swept(value: Any) -> Any:
    if isinstance(value, dict):
        if wrong := [key for key, values in value.items() if not isinstance(values, list) or not values]:
            raise ValueError(f"{wrong[0]} takes a list of values")
        return {str(key): [_override_value(one) for one in values] for key, values in value.items()}
    return value


Overrides = Annotated[list[str], BeforeValidator(_overrides)]
Sweep = Annotated[dict[str, list[str]], BeforeValidator(_swept)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Next(_Part):
    """A function that says what comes next; it is given what was found and these settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    function: str = Field(
        description="Import path: lth_cli.studies.branching.NAME, or a module in the study's own folder."
    )

    @property
    def settings(self) -> dict[str, Any]:
        """Its further keyword arguments."""
        return dict(self.model_extra or {})


class Step(_Part):
    """One command of the plan, with all it is swept over."""

    command: Literal["train", "prune", "rewind", "analyze"]
    overrides: Overrides = Field(
        [], description="KEY=VALUE; {step} is the run of a step in `from`, {step/} its folder."
    )
    sweep: Sweep = Field({}, description="Values by key; every combination is a point.")
    trials: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="How many quasi-random values are tried of keys that `sweep` gives a range."
    )
    labels: dict[str, str] = Field(
        {},
        description="Values of keys of your own, for rows and columns of tables; what builds on it has them too.",
    )
    builds_on: list[str] = Field([], alias="from", description="Steps whose runs it needs.")
    onto: str | None = Field(
        None, description="rewind: a step that trains, whose settings the masks are trained with."
    )
    ask: Literal["each", "together"] = Field(
        "together",
        description="analyze: runs that differ in `seed` alone together, or each by itself; train, prune: `each` is a "
        "run for every run of the first step in `from`.",
    )
    next: Next | None = Field(None, description="What further overrides come next, by what was found so far.")


class Changes(_Part):
    """What a profile changes of a step."""

    overrides: Overrides = []
    sweep: Sweep = {}
    trials: Annotated[int, Field(ge=1, le=10_000)] | None = None
    next: dict[str, Any] = {}


class Profile(_Part):
    """A size of the study."""

    about: str = ""
    overrides: Overrides = Field([], description="For every step that trains from scratch.")
    sweep: Sweep = Field({}, description="Values in place of those of every step that sweeps the key.")
    steps: dict[str, Changes] = {}
    without: list[str] = Field([], description="Steps left out.")
    deviations: list[str] = []


class Published(_Part):
    """Numbers of a paper for cells of a table."""

    source: str
    sure: Literal["verified", "secondary", "recalled"]
    profile: str | None = Field(None, description="Shown in this profile alone, whose setting they are of.")
    values: dict[str, dict[str, float]] = Field(description="By row and column as the table shows them.")


class Table(_Part):
    """A table of one metric: rows by columns, mean and spread over all else."""

    title: str
    of: Annotated[list[str], Field(min_length=1)]
    answers: str | None = Field(None, description="Of analyze steps: which table of the answer.")
    metric: str = "test_accuracy"
    unit: Literal["%", ""] = "%"
    digits: Annotated[int, Field(ge=0, le=8)] = 2
    rows: str = Field(
        description="Key whose values are rows: round, density, kind, step, or one that is swept or in `labels`."
    )
    columns: str = Field("kind", description="Likewise.")
    where: dict[str, Plain | list[Plain]] = Field(
        {}, description="Values a row of results must have; round: last."
    )
    nearest: dict[str, list[float]] = Field({}, description="Of each run, the round nearest to each value.")
    within: float = Field(0.02, description="How far the nearest may be; farther ones are left out.")
    without_loss: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Of each run, only the last round down to which every round's test accuracy is at least that of "
        "its dense network less so many points.",
    )
    labels: dict[str, str] = Field({}, description="Words for values.")
    take: Literal["mean", "lowest", "highest", "sum"] = Field(
        "mean",
        description="Of each seed: every value, the lowest or highest alone, as of trials, or their sum.",
    )
    published: list[Published] = []
    note: str = ""


class Figure(_Part):
    """A table as lines, a column each."""

    table: str
    x: str = Field("", description="Words for the axis; rows must be numbers.")
    log: bool = Field(
        False, description="Logarithmic and falling from left to right, as of weights remaining."
    )


class Claim(_Part):
    """A sentence, and the expression over tables that is true where it holds."""

    claim: str
    check: str
    profiles: list[str] = Field([], description="Checked in these alone, of whose setting it is.")


class Study(_Part):
    """A whole study."""

    about: str = Field(description="One line for `lth study list`.")
    paper: str
    claim: str
    needs: str = Field("", description="Data that do not ship, in words.")
    overrides: Overrides = Field([], description="For every step that trains from scratch.")
    steps: Annotated[dict[str, Step], Field(min_length=1)]
    profiles: Annotated[dict[str, Profile], Field(min_length=1)]
    tables: dict[str, Table] = {}
    figures: dict[str, Figure] = {}
    deviations: list[str] = []
    holds: list[Claim] = []

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        known: list[str] = []
        for name, step in self.steps.items():
            if not _STEP.fullmatch(name):
                raise ValueError(f"steps: {name!r} is no name; small letters, digits and _")
            unknown = [other for other in step.builds_on if other not in known]
            if unknown:
                raise ValueError(f"steps.{name}.from: no step {unknown[0]!r} before it; there are {known}")
            if step.command in ("rewind", "analyze") and not step.builds_on:
                raise ValueError(f"steps.{name}.from: {step.command} needs a step whose runs it takes")
            if step.command == "rewind" and self.steps[step.builds_on[0]].command == "analyze":
                raise ValueError(f"steps.{name}.from: {step.builds_on[0]} leaves no run to retrain")
            if step.onto is not None and step.command != "rewind":
                raise ValueError(f"steps.{name}.onto: goes with rewind")
            if step.onto is not None and (
                step.onto not in known or self.steps[step.onto].command not in ("train", "prune")
            ):
                raise ValueError(
                    f"steps.{name}.onto: {step.onto!r} is no step before it that trains or prunes"
                )
            known.append(name)
        _check_profiles(self.profiles, known)
        _check_tables(self, known)
        return self


def _check_profiles(profiles: dict[str, Profile], known: list[str]) -> None:
    for profile, changes in profiles.items():
        for name in [*changes.steps, *changes.without]:
            if name not in known:
                raise ValueError(f"profiles.{profile}: there is no step {name!r}; there are {known}")


def _check_tables(study: Study, known: list[str]) -> None:
    from lth_cli.studies.claims import check_names

    for name, table in study.tables.items():
        for profile in (published.profile for published in table.published):
            if profile not in (None, *study.profiles):
                raise ValueError(
                    f"tables.{name}.published: there is no profile {profile!r}; there are {[*study.profiles]}"
                )
        if missing := [step for step in table.of if step not in known]:
            raise ValueError(f"tables.{name}.of: there is no step {missing[0]!r}; there are {known}")
        asked = {study.steps[step].command == "analyze" for step in table.of}
        if asked != {table.answers is not None}:
            raise ValueError(f"tables.{name}: `answers` goes with steps of analyze, and with no others")
        if len(table.nearest) > 1:
            raise ValueError(f"tables.{name}.nearest: takes one key")
    for name, figure in study.figures.items():
        if figure.table not in study.tables:
            raise ValueError(f"figures.{name}.table: there is no table {figure.table!r}")
    for number, one in enumerate(study.holds):
        check_names(f"holds.{number}.check", one.check, study.tables)
        if unknown := [profile for profile in one.profiles if profile not in study.profiles]:
            raise ValueError(
                f"holds.{number}.profiles: there is no profile {unknown[0]!r}; there are {[*study.profiles]}"
            )
