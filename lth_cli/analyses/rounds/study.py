"""Are the ends of successive rounds linearly connected, and is that so where rounds match the dense network?

Paul et al. 2023 (arXiv:2210.03044) find the ends of successive rounds connected as long as rounds match. Here a round
matches when its test accuracy is at least the mean dense test accuracy over the runs less a tolerance (their definition
2.2), by default one sample standard deviation of the dense accuracy over the runs. Lines go between whole state dicts,
with pruned weights as zeros (Frankle et al. 2020, arXiv:1912.05671).
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lth_cli.analyses.lines import Curve, curve
from lth_cli.analyses.request import (
    Answer,
    NamedState,
    Request,
    Study,
    check_alike,
    check_splits,
    circumstances,
    settings,
)
from lth_cli.analyses.rounds.settings import Settings
from lth_cli.analyses.tables import grouped, mean_of, spread_of
from lth_cli.analyses.work import Work
from lth_cli.analyses.yardstick import (
    Yardstick,
    below,
    check_objectives,
    check_tolerance,
    score,
    yardstick,
)
from lth_cli.config.errors import RequestError
from lth_cli.config.metrics import ACCURACY, Metric, plain
from lth_cli.experiments.recorded import Recorded
from lth_cli.pruning.mask import density
from lth_cli.store.analyses import Row
from lth_cli.store.runs import Run

_COMPARED = ("previous", "dense")


@dataclass(frozen=True)
class End:
    """The end of a round of a run.

    Attributes:
        name: of the round: 3, random/3.
        state: of its last step.
        compared: the ends that it is compared with, by `previous` (the round before it among those asked about, of
            the same branch) and `dense` (round 0), where there are such.
    """

    name: str
    state: NamedState
    compared: dict[str, End]

    @property
    def others(self) -> dict[str, End]:
        """Every end that it is compared with, once."""
        return {other.name: other for other in self.compared.values()}

    @property
    def score(self) -> float:
        """The headline metric on the test examples, as recorded when the round ended."""
        return score(self.state.recorded.round, self.state.recorded.run.headline)


@dataclass(frozen=True)
class Match:
    """When a round matches the dense network.

    Attributes:
        metric: by which.
        reference: that of the dense network, mean over the runs.
        tolerance: how much worse still matches.
    """

    metric: Metric
    reference: float
    tolerance: float

    def holds(self, value: float) -> bool:
        """Whether a round of this value matches."""
        return self.metric.matches(value, self.reference, self.tolerance)

    @property
    def told(self) -> str:
        """The limit in words."""
        metric = self.metric
        limit = metric.limit(self.reference, self.tolerance)
        unit = f" {metric.unit}" if metric.unit else ""
        words = ("at least", "less") if metric.better == "higher" else ("at most", "and")
        return (
            f"{words[0]} {metric.number(limit)}{unit}, the dense {metric.number(self.reference)}{unit} {words[1]} "
            f"{metric.points(self.tolerance)}"
        )


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    if asked.tolerance is None and len(request.runs) < 2:
        raise RequestError(
            "analysis.tolerance: its default, one standard deviation of the dense test accuracy over seeds, needs two "
            "runs or more; name several, or set it: analysis.tolerance=0.002 is 0.2 points"
        )
    runs = [_ends(request, run, asked.rounds) for run in request.runs]
    _check_runs(runs)
    recorded = [end.state.recorded for ends in runs for end in ends]
    check_alike(recorded)
    check_objectives(recorded)
    check_tolerance(asked.tolerance, recorded)
    check_splits(asked.splits, recorded[0])
    return Study(
        "rounds",
        request.runs[0],
        {
            **settings(asked, "rounds"),
            **circumstances(recorded[0]),
            "rounds": [[[end.name, *end.state.identity] for end in ends] for ends in runs],
        },
        {"runs": [run.name for run in request.runs], "rounds": [end.name for end in runs[0]]},
        functools.partial(_answer, asked=asked, runs=runs),
        parts=sum(len(end.others) for ends in runs for end in ends),
        not_shown=("curves",),
    )


def _ends(request: Request, run: Run, rounds: list[str] | str) -> list[End]:
    """The ends of the rounds asked about, the dense one first, then ascending, controls last."""
    if isinstance(rounds, str):
        rounds = [str(round_.number) for round_ in run.rounds() if round_.finished]
    found: dict[tuple[str, int], Recorded] = {}
    for name in ["0", *rounds]:
        recorded = request.round(name, run)
        recorded.check(recorded.end)
        found[recorded.branch or "", recorded.round.number] = recorded
    ends: list[End] = []
    last: dict[str, End] = {}
    for (branch, number), recorded in sorted(found.items()):
        compared = {"previous": last[branch]} if branch in last else {}
        if ends:
            compared["dense"] = ends[0]
        name = f"{branch}/{number}" if branch else str(number)
        ends.append(End(name, NamedState(recorded, recorded.end), compared))
        last[branch] = ends[-1]
    return ends


def _check_runs(runs: Sequence[Sequence[End]]) -> None:
    """Refuse runs whose rounds differ in number or name, and runs that are one and the same training.

    Raises:
        RequestError: naming two.
    """
    seen: dict[str, str] = {}
    for ends in runs:
        names = [[end.name for end in one] for one in (runs[0], ends)]
        dense = ends[0].state.recorded
        first = runs[0][0].state.recorded
        if names[0] != names[1]:
            raise RequestError(
                f"{first.run.name} has rounds {', '.join(names[0])}, {dense.run.name} has {', '.join(names[1])}; "
                "name rounds that all have: analysis.rounds=[0,1]"
            )
        if dense.trajectory.identity in seen:
            raise RequestError(
                f"{seen[dense.trajectory.identity]} and {dense.label} are one training; name runs that differ by seed"
            )
        seen[dense.trajectory.identity] = dense.label
    if len(runs[0]) < 2:
        raise RequestError(f"{runs[0][0].state.recorded.run.name}: nothing to compare with round 0")


def _answer(work: Work, *, asked: Settings, runs: Sequence[Sequence[End]]) -> Answer:
    first = runs[0][0].state.recorded
    model = work.network(first)
    by, metric = yardstick(first), first.run.headline
    dense = [ends[0].score for ends in runs]
    tolerance = statistics.stdev(dense) if asked.tolerance is None else asked.tolerance
    match = Match(metric, statistics.fmean(dense), tolerance)
    rows: list[Row] = []
    curves: list[Row] = []
    for ends in runs:
        for end in ends:
            lines = {}
            for name, other in end.others.items():
                lines[name] = _line(work, model, other, end, asked, by)
                curves += lines[name].rows(run=end.state.recorded.run.name, first=name, second=end.name)
            rows.append(_row(end, lines, match, asked, by))
    by_round = _by_round(rows, match, asked, by)
    tables = {"runs": rows, "mean": by_round} if len(runs) > 1 else {"runs": rows}
    agreement = [_agreement(what, over, table) for what in _COMPARED for over, table in tables.items()]
    matching = [str(row["round"]) for row in by_round if row["matching"]]
    headline = [
        f"mean test {metric.words} matches in rounds {', '.join(matching)}: {match.told}",
        *(
            f"connected to the {row['compared_with']} round agrees with matching in {row['agreeing']} of "
            f"{row['rounds']} {'rounds of runs' if row['over'] == 'runs' else 'rounds by means over runs'}"
            for row in agreement
        ),
        f"connected: {by.below(asked.threshold)}",
    ]
    summary = {
        "threshold": asked.threshold,
        "tolerance": tolerance,
        f"dense_test_{metric.name}": match.reference,
        "matching_rounds": matching,
        "agreement": agreement,
        **by.noted,
        **({} if metric == ACCURACY else {"metric": plain([metric])[0]}),
    }
    return Answer(
        {"rounds": rows, "by_round": by_round, "agreement": agreement, "curves": curves}, summary, headline
    )


def _line(work: Work, model: nn.Module, first: End, second: End, asked: Settings, by: Yardstick) -> Curve:
    recorded = second.state.recorded
    work.observer.part_started(f"{first.state.label} to {second.state.label}")
    ends = work.state(first.state.recorded, first.state.step), work.state(recorded, second.state.step)
    key = [first.state.identity, second.state.identity]
    measured = curve(work, recorded, model, ends, key, asked)
    work.observer.part_finished(by.told(measured.barrier("test")))
    return measured


def _row(end: End, lines: dict[str, Curve], match: Match, asked: Settings, by: Yardstick) -> Row:
    row: Row = {
        "run": end.state.recorded.run.name,
        "round": end.name,
        "density": density(end.state.recorded.masks),
        f"test_{match.metric.name}": end.score,
        "matching": match.holds(end.score),
    }
    for what in _COMPARED:
        line = lines[end.compared[what].name] if what in end.compared else None
        for split in asked.splits:
            row[f"{split}{by.suffix}_to_{what}"] = line.barrier(split) if line else None
        row[f"connected_to_{what}"] = below(line.barrier("test"), asked.threshold) if line else None
    return row


def _by_round(rows: Sequence[Row], match: Match, asked: Settings, by: Yardstick) -> list[Row]:
    """A row a round: means over the runs, which decide whether it matches and is connected, and their spread."""
    found = []
    column = f"test_{match.metric.name}"
    for name, group in grouped(rows, lambda row: row["round"]).items():
        mean = mean_of(group, column)
        summed: Row = {
            "round": name,
            "density": mean_of(group, "density"),
            column: mean,
            f"{column}_std": spread_of(group, column),
            "matching": mean is not None and match.holds(mean),
        }
        for what in _COMPARED:
            for split in asked.splits:
                barriers = f"{split}{by.suffix}_to_{what}"
                summed[barriers] = mean_of(group, barriers)
            barrier = f"{by.column}_to_{what}"
            summed[f"{barrier}_std"] = spread_of(group, barrier)
            there = group[0][f"connected_to_{what}"] is not None
            summed[f"connected_to_{what}"] = (
                below(mean_of(group, barrier), asked.threshold) if there else None
            )
        found.append(summed)
    return found


def _agreement(what: str, over: str, rows: Sequence[Row]) -> Row:
    """How often a ticket is connected where it matches: two by two counts. Controls are not counted."""
    said = [
        (row["matching"], row[f"connected_to_{what}"])
        for row in rows
        if row[f"connected_to_{what}"] is not None and "/" not in str(row["round"])
    ]
    return {
        "compared_with": what,
        "over": over,
        "rounds": len(said),
        "matching_connected": said.count((True, True)),
        "matching_not_connected": said.count((True, False)),
        "not_matching_connected": said.count((False, True)),
        "neither": said.count((False, False)),
        "agreeing": said.count((True, True)) + said.count((False, False)),
    }
