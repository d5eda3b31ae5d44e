"""Do copies of a training that differ in SGD noise end in one linearly connected place, and from which step on?

Instability analysis (Frankle et al. 2020, arXiv:1912.05671, algorithm 1): train to step k once, train copies from there
that differ in the order of the data and in augmentation alone, and measure the error barrier between their ends.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lth_cli.analysis.difference import answers, differing, distance
from lth_cli.config import analyzing
from lth_cli.config.errors import LthError, RequestError
from lth_cli.config.references import Reference
from lth_cli.config.seeds import derive_seed
from lth_cli.experiments.analyses.lines import curve
from lth_cli.experiments.analyses.request import (
    Answer,
    Request,
    Study,
    check_alike,
    check_splits,
    circumstances,
    settings,
)
from lth_cli.experiments.analyses.work import Work
from lth_cli.experiments.plan import taught_between
from lth_cli.experiments.recorded import Recorded
from lth_cli.store.analyses import Row
from lth_cli.store.states import State
from lth_cli.training.trajectory import NOT_HERE, FromState, Trajectory


@dataclass(frozen=True)
class Origin:
    """A step of a recorded training, from which copies are trained.

    Attributes:
        recorded: the training.
        name: of the round, as asked.
        step: k.
        copies: the trainings from there.
    """

    recorded: Recorded
    name: str
    step: int
    copies: tuple[Trajectory, ...]


def prepare(request: Request, asked: analyzing.Instability) -> Study:
    """Check the question. Raises RequestError."""
    origins = [
        _origin(request.round(name, run), name, moment, asked)
        for name in asked.rounds
        for moment in asked.at
        for run in request.runs
    ]
    rounds = [origin.recorded for origin in origins]
    check_alike(rounds)
    check_splits(asked.splits, rounds[0])
    return Study(
        "instability",
        request.runs[0],
        {
            **settings(asked, "rounds", "at", "schedule"),  # the copies say how they are trained
            **circumstances(rounds[0]),
            "copies_of": [[copy.identity for copy in origin.copies] for origin in origins],
        },
        {"runs": [run.name for run in request.runs], "rounds": asked.rounds, "at": asked.at},
        functools.partial(_answer, asked=asked, origins=origins),
        parts=len(origins),
    )


def _origin(recorded: Recorded, name: str, moment: str, asked: analyzing.Instability) -> Origin:
    step = recorded.step(Reference.parse(f"run@{moment}").step)
    if not isinstance(recorded.trajectory, Trajectory):
        raise RequestError(f"the training of {recorded.label} {NOT_HERE}, so no copies of it can be trained")
    if step >= recorded.end and asked.schedule == "resumed":
        raise RequestError(f"analysis.at: {moment} is the end of {recorded.label}; nothing is left to train")
    copies = tuple(_copy(recorded.trajectory, step, i + 1, asked.schedule) for i in range(asked.copies))
    if len({copy.identity for copy in copies}) < len(copies):
        raise RequestError(
            f"copies of {recorded.label} would all be the same training: it keeps the stored order "
            "(training.shuffle=false) and nothing in it draws random numbers, so there is no noise to be stable to"
        )
    return Origin(recorded, name, step, copies)


def _copy(trajectory: Trajectory, step: int, number: int, schedule: str) -> Trajectory:
    """The training from a state on with another order of the data and other augmentation, the optimizer fresh.

    Args:
        trajectory: the training.
        step: of the state.
        number: of the copy, from 1.
        schedule: `resumed` at that step, or `restarted` and trained in full (the control of Frankle et al. 2020).
    """
    seeds, config = trajectory.config.resolved_seeds, trajectory.config
    # Shorter than derived seeds are: a config takes 53 bits.
    other = {
        kind: derive_seed(seeds[kind], "instability.copy", number) >> 10 for kind in ("order", "augment")
    }
    copy = dataclasses.replace(
        trajectory,
        config=config.model_copy(update={"seeds": config.seeds.model_copy(update=other)}),
        start=FromState(trajectory, step),
        first_step=step,
    )
    if schedule == "resumed":
        return copy
    whole = dataclasses.replace(copy, first_step=0, ends_at=trajectory.horizon, rate_held_from=None)
    if whole.distilled is None:
        return whole
    begins, ends = taught_between(whole)  # of a training of another length
    ends_too = None if whole.distilled.ends is None else ends
    taught = dataclasses.replace(whole.distilled, begins=begins, ends=ends_too)
    return dataclasses.replace(whole, distilled=taught)


def _answer(work: Work, *, asked: analyzing.Instability, origins: Sequence[Origin]) -> Answer:
    model = work.network(origins[0].recorded)
    pairs: list[Row] = []
    curves: list[Row] = []
    for origin in origins:
        work.observer.part_started(f"{origin.recorded.label} from step {origin.step}")
        start = work.state(origin.recorded, origin.step)
        for number, copy in enumerate(origin.copies, 1):
            work.train(copy, f"{origin.recorded.label} from step {origin.step}, copy {number}")
        measured = list(_pairs(work, model, origin, start, asked))
        pairs += [row for row, _ in measured]
        curves += [point for _, points in measured for point in points]
        mean = statistics.fmean(_value(row, "test_barrier") for row, _ in measured)
        work.observer.part_finished(f"barrier {100 * mean:.2f} points of test error")
    stability = _stability(pairs, asked.threshold)
    earliest = {
        name: next((int(_value(row, "step")) for row in rows if row["stable"]), None)
        for name, rows in _by_round(stability).items()
    }
    headline = [
        f"round {name}: "
        + (f"stable from step {step:,}" if step is not None else "stable at none of these steps")
        for name, step in earliest.items()
    ]
    headline.append(f"stable: mean barrier of the test error below {100 * asked.threshold:g} points")
    summary = {"threshold": asked.threshold, "earliest_stable_step": earliest}
    return Answer({"stability": stability, "pairs": pairs, "curves": curves}, summary, headline)


def _pairs(
    work: Work, model: nn.Module, origin: Origin, start: State, asked: analyzing.Instability
) -> list[tuple[Row, list[Row]]]:
    """A row for every two copies, with the points of the line between them."""
    found = []
    for (one, first), (other, second) in itertools.combinations(enumerate(origin.copies, 1), 2):
        names: dict[str, Any] = {
            "run": origin.recorded.run.name,
            "round": origin.name,
            "step": origin.step,
            "first": one,
            "second": other,
        }
        ends = work.engine.state(first, first.end), work.engine.state(second, second.end)
        key = [first.identity, second.identity]
        line = curve(work, origin.recorded, model, ends, key, asked)
        apart = distance(ends[0].weights, ends[1].weights)
        if apart == 0:
            raise LthError(
                f"copies {one} and {other} of {origin.recorded.label} from step {origin.step} ended in the same "
                "weights: nothing that they draw from differs, so no instability can be measured"
            )
        travelled = statistics.fmean(distance(start.weights, end.weights) for end in ends)
        row: Row = {
            **names,
            "first_test_error": line.ends("test")[0],
            "second_test_error": line.ends("test")[1],
            **line.barriers(),
            "differing_test_answers": work.once(
                ["differing", key], functools.partial(_differing, work, model, origin.recorded, ends)
            ),
            "distance": apart,
            "distance_by_travelled": apart / travelled if travelled else 0.0,
        }
        found.append((row, list(line.rows(**names))))
    return found


def _differing(work: Work, model: nn.Module, recorded: Recorded, ends: tuple[State, State]) -> float:
    """Share of the test examples that the two ends classify differently."""
    said = []
    for end in ends:
        model.load_state_dict({**end.weights, **end.buffers})
        data, execution = recorded.plan.dense.data, recorded.plan.dense.execution
        said.append(answers(model, data.evaluation("test"), execution))
    return differing(*said)


def _stability(pairs: Sequence[Row], threshold: float) -> list[Row]:
    """A row a round and step: mean and spread over pairs and runs."""
    groups: dict[tuple[Any, Any], list[Row]] = {}
    for row in pairs:
        groups.setdefault((row["round"], row["step"]), []).append(row)
    found = []
    for (name, step), rows in groups.items():
        barriers = [_value(row, "test_barrier") for row in rows]
        summed: Row = {
            "round": name,
            "step": step,
            "pairs": len(rows),
            "test_barrier": statistics.fmean(barriers),
        }
        summed["test_barrier_std"] = statistics.stdev(barriers) if len(barriers) > 1 else None
        for column in (
            "train_barrier",
            "first_test_error",
            "differing_test_answers",
            "distance",
            "distance_by_travelled",
        ):
            if column in rows[0]:
                summed[column] = statistics.fmean(_value(row, column) for row in rows)
        summed["stable"] = statistics.fmean(barriers) < threshold
        found.append(summed)
    return found


def _by_round(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by round, each round's by step."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _value(row, "step")):
        groups.setdefault(str(row["round"]), []).append(row)
    return groups


def _value(row: Row, column: str) -> float:
    value = row[column]
    assert isinstance(value, int | float)
    return float(value)
