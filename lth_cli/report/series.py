"""Runs that differ by seed alone, put together: mean and spread of a result, round by round."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lth_cli.config.errors import RequestError
from lth_cli.config.metrics import Metric
from lth_cli.config.named import SURROUNDINGS, flat
from lth_cli.store.index import Entry
from lth_cli.store.results import Row
from lth_cli.store.runs import Run

Axis = Literal["density", "parameters", "madds"]
"""What is left of a network, as columns of `results.csv` call it."""

_NOT_THE_EXPERIMENT = ("name", "seed", "seeds", *SURROUNDINGS)


class Sample:
    """Mean and spread of results that differ by seed."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation; None of one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Point(Sample):
    """One round over all runs of a group.

    Attributes:
        round: round number.
        density: mean share of prunable weights remaining.
        parameters: that remain of the whole model, mean; None where a run of an earlier release does not say.
        madds: multiply-adds that remain of a forward pass of one example, likewise.
        values: the result of every run that has it.
        steps: training steps of a run, mean, reused ones included.
        seconds: wall clock of a run, mean.
    """

    round: int
    density: float
    parameters: float | None
    madds: float | None
    values: list[float]
    steps: float
    seconds: float


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs whose configs differ in nothing but seeds and places, together, in the order given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        config = {key: value for key, value in run.config.items() if key not in _NOT_THE_EXPERIMENT}
        # Runs of a release that did not have a key did as null says.
        if config.get("until") is None:
            config.pop("until", None)
        config["evaluation"] = {k: v for k, v in config.get("evaluation", {}).items() if v is not None}
        config["imported"] = (
            "imported" in run.info
        )  # by another program: no seed of what is trained from it here
        groups.setdefault(json.dumps(config, sort_keys=True), []).append(run)
    return list(groups.values())


def branches(runs: Sequence[Run]) -> list[str]:
    """Kinds of controls that any of the runs has."""
    return sorted({branch for run in runs for branch in run.branches()})


def main_kind(runs: Sequence[Run | Entry]) -> str:
    """What the rounds themselves are: `ticket`, `dense` where nothing is pruned, or what `control` makes of them."""
    if all(run.info.get("kind") == "train" for run in runs):
        return "dense"
    chosen = {_control(run.config.get("control", {})) for run in runs}
    return chosen.pop() if len(chosen) == 1 else "ticket"


def _control(control: dict[str, str]) -> str:
    parts = (control.get("mask", "ticket"), control.get("start", "rewind"))
    return " ".join(part for part in parts if part not in ("ticket", "rewind")) or "ticket"


def headline_of(runs: Sequence[Run]) -> Metric:
    """The metric by which runs are compared.

    Raises:
        RequestError: they are measured by different ones.
    """
    found = {run.headline: run for run in reversed(runs)}
    if len(found) > 1:
        told = ", ".join(f"{run.name} by {metric.words}" for metric, run in reversed(found.items()))
        raise RequestError(f"these runs are measured by different metrics: {told}")
    return next(iter(found))


def series(runs: Sequence[Run], branch: str | None, metric: Metric | None = None) -> list[Point]:
    """A metric, by default the headline, on the test examples by round, over runs that differ by seed.

    Rounds without it have no point.
    """
    column = f"test_{(metric or headline_of(runs)).name}"
    by_round: dict[int, list[Row]] = {}
    for run in runs:
        for row in run.results(branch):
            if row.get(column) is not None:
                by_round.setdefault(int(row["round"] or 0), []).append(row)
    return [_point(number, rows, column) for number, rows in sorted(by_round.items())]


def _point(number: int, rows: list[Row], column: str) -> Point:
    def mean(name: str) -> float:
        return statistics.fmean(float(row[name] or 0) for row in rows)

    def mean_if_known(name: str) -> float | None:
        return None if any(row.get(name) is None for row in rows) else mean(name)

    return Point(
        round=number,
        density=mean("density"),
        parameters=mean_if_known("parameters"),
        madds=mean_if_known("madds"),
        values=[float(row[column] or 0) for row in rows],
        steps=mean("steps_trained") + mean("steps_reused"),
        seconds=mean("seconds"),
    )


def labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A name for each group: what sets its config apart from the others', else the run's name."""
    configs = [{k: v for k, v in flat(group[0].config).items() if v != {}} for group in groups]
    keys = [
        key
        for key in dict.fromkeys(key for config in configs for key in config)
        if key.split(".")[0] not in _NOT_THE_EXPERIMENT and len({repr(c.get(key)) for c in configs}) > 1
    ]
    if len(groups) == 1 or not keys:
        return [_common_name(group) for group in groups]
    found = [", ".join(f"{key}={config.get(key)}" for key in keys[:3]) for config in configs]
    if len(set(found)) == len(found):
        return found
    return [_common_name(group) for group in groups]  # they differ in more than fits


def _common_name(group: Sequence[Run]) -> str:
    return group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more"
