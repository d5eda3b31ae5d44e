"""Is training robust to a move of its start as long as the move that pruning makes?

After Paul et al. 2023 (arXiv:2210.03044): the start of a round is moved within its mask, by the projection that the
next round's mask makes of it or by as long a random vector, and trained with the same order of data. The start is
robust if such a training ends linearly connected to the end of the unmoved one. Which norms and directions the paper
tried could not be verified; here they are settings.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lth_cli.analyses.difference import distance
from lth_cli.analyses.lines import curve
from lth_cli.analyses.perturbation.mathematics import norm, projection, random_direction, scaled
from lth_cli.analyses.perturbation.settings import Settings
from lth_cli.analyses.request import (
    Answer,
    Request,
    Study,
    check_alike,
    check_splits,
    circumstances,
    settings,
)
from lth_cli.analyses.tables import grouped, mean_of, spread_of
from lth_cli.analyses.work import Work
from lth_cli.analyses.yardstick import (
    Yardstick,
    below,
    check_objectives,
    yardstick,
)
from lth_cli.config.errors import LthError, RequestError
from lth_cli.config.seeds import derive_seed
from lth_cli.experiments.recorded import Recorded
from lth_cli.pruning.mask import Masks, Tensors, is_nested
from lth_cli.store.analyses import Row
from lth_cli.store.masks import mask_digest
from lth_cli.store.states import State
from lth_cli.training.trajectory import NOT_HERE, FromState, Moved, Trajectory


@dataclass(frozen=True)
class Origin:
    """The start of a recorded training, which is moved.

    Attributes:
        recorded: the round.
        name: of the round: 3, reinit/3.
        step: at which it starts; of the dense round the one that later rounds rewind to.
        unmoved: the training from there.
        next_masks: of the round after it, True = kept.
    """

    recorded: Recorded
    name: str
    step: int
    unmoved: Trajectory
    next_masks: Masks

    def moved(self, by: Tensors) -> Trajectory:
        """The same training from the start moved by a vector."""
        start = Moved(FromState(self.recorded.trajectory, self.step), by)
        return dataclasses.replace(self.unmoved, start=start)


@dataclass(frozen=True)
class Move:
    """A vector to move a start by.

    Attributes:
        by: tensors by name.
        about: columns that tell it from others: direction, draw, multiple (of the norm of the projection; None where
            a norm was named).
        norm: L2 norm.
    """

    by: Tensors
    about: dict[str, str | int | float | None]
    norm: float


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    origins = [_origin(request, request.round(name, run)) for name in asked.rounds for run in request.runs]
    rounds = [origin.recorded for origin in origins]
    check_alike(rounds)
    check_objectives(rounds)
    check_splits(asked.splits, rounds[0])
    vectors = ("projection" in asked.directions) + asked.draws * ("random" in asked.directions)
    return Study(
        "perturbation",
        request.runs[0],
        {
            **settings(asked, "rounds"),
            **circumstances(rounds[0]),
            "starts": [
                [
                    origin.recorded.trajectory.identity,
                    origin.step,
                    mask_digest(origin.next_masks),
                    _seed(origin),
                ]
                for origin in origins
            ],
        },
        {"runs": [run.name for run in request.runs], "rounds": asked.rounds},
        functools.partial(_answer, asked=asked, origins=origins),
        parts=len(origins) * vectors * (len(asked.norms) + len(asked.absolute_norms)),
        not_shown=("moves", "curves"),
    )


def _origin(request: Request, recorded: Recorded) -> Origin:
    trajectory, number = recorded.trajectory, recorded.round.number
    if not isinstance(trajectory, Trajectory):
        raise RequestError(
            f"the training of {recorded.label} {NOT_HERE}, so it cannot be trained from a moved start"
        )
    branch = f"{recorded.branch}/" if recorded.branch else ""
    if not recorded.run.round(number + 1, recorded.branch).finished:
        raise RequestError(
            f"analysis.rounds: {recorded.label} has no finished round {branch}{number + 1} after it, whose mask says"
            " how far pruning moves its start"
        )
    next_masks = request.round(f"{branch}{number + 1}", recorded.run).masks
    if not is_nested(next_masks, recorded.masks):
        raise RequestError(
            f"analysis.rounds: the mask of {branch}{number + 1} keeps weights that {recorded.label} has not, so it is"
            " no projection of its start; name rounds of the run itself, or controls with the ticket's masks"
        )
    plan, step, unmoved = recorded.plan, recorded.start, trajectory
    if number == 0 and plan.config.rewind.technique == "weights" and plan.rewind_to > step:
        step = plan.rewind_to
    kept = isinstance(trajectory.start, FromState) and trajectory.start.keeps_optimizer
    if step > recorded.start or kept:  # moved starts have a fresh optimizer, so the one beside them has too
        unmoved = dataclasses.replace(trajectory, start=FromState(trajectory, step), first_step=step)
    return Origin(recorded, f"{branch}{number}", step, unmoved, next_masks)


def _seed(origin: Origin) -> int:
    """Of random directions: another one for each run and round, whatever they are called."""
    return derive_seed(
        origin.recorded.plan.config.resolved_seeds["init"],
        "perturbation.direction",
        origin.recorded.round.number,
    )


def _answer(work: Work, *, asked: Settings, origins: Sequence[Origin]) -> Answer:
    model = work.network(origins[0].recorded)
    by = yardstick(origins[0].recorded)
    rows: list[Row] = []
    curves: list[Row] = []
    for origin in origins:
        start = work.state(origin.recorded, origin.step)
        if origin.step > origin.recorded.start:
            work.train(origin.unmoved, f"{origin.recorded.label} from step {origin.step}")
        end = work.engine.state(origin.unmoved, origin.unmoved.end)
        for move in _moves(origin, start, asked):
            row, points = _measured(work, model, origin, end, move, asked, by)
            rows.append(row)
            curves += points
    robustness = _robustness(rows, asked, by)
    headline = [
        f"round {row['round']}, {row['direction']}, "
        + (
            f"{row['multiple']:g} x the norm of the projection"
            if row["multiple"]
            else f"norm {row['norm']:g}"
        )
        + (": connected" if row["connected"] else ": not connected")
        for row in robustness
    ]
    headline.append(f"connected to the end of the unmoved start: mean {by.below(asked.threshold)}")
    summary = {"threshold": asked.threshold, "robustness": robustness, **by.noted}
    return Answer({"robustness": robustness, "moves": rows, "curves": curves}, summary, headline)


def _moves(origin: Origin, start: State, asked: Settings) -> Iterator[Move]:
    """Every vector in every length asked for. Raises LthError: the projection moves nothing, so nothing is as long."""
    masks = origin.recorded.masks
    projected = projection(start.weights, masks, origin.next_masks)
    length = norm(projected)
    if not length:
        raise LthError(f"what the next round prunes is zero at the start of {origin.recorded.label} already")
    directions: list[tuple[dict[str, Any], Tensors]] = []
    if "projection" in asked.directions:
        directions.append(({"direction": "projection", "draw": None}, projected))
    if "random" in asked.directions:
        for draw in range(1, asked.draws + 1):
            drawn = random_direction(start.weights, masks, derive_seed(_seed(origin), "draw", draw))
            directions.append(({"direction": "random", "draw": draw}, drawn))
    lengths = [(multiple, multiple * length) for multiple in asked.norms]
    for about, vector in directions:
        for multiple, wanted in [*lengths, *((None, wanted) for wanted in asked.absolute_norms)]:
            yield Move(scaled(vector, wanted / norm(vector)), {**about, "multiple": multiple}, wanted)


def _measured(
    work: Work,
    model: nn.Module,
    origin: Origin,
    unmoved: State,
    move: Move,
    asked: Settings,
    by: Yardstick,
) -> tuple[Row, list[Row]]:
    """Train from a moved start; a row about where it ends, and the line from the unmoved end to there."""
    names: dict[str, Any] = {
        "run": origin.recorded.run.name,
        "round": origin.name,
        "step": origin.step,
        **move.about,
        "norm": move.norm,
    }
    trajectory = origin.moved(move.by)
    work.train(trajectory, f"{origin.recorded.label} moved by {move.norm:.4g}, {move.about['direction']}")
    end = work.engine.state(trajectory, trajectory.end)
    line = curve(work, origin.recorded, model, (unmoved, end), trajectory.identity, asked)
    work.observer.part_finished(by.told(line.barrier("test")))
    row: Row = {
        **names,
        f"unmoved_test_{by.quantity}": line.ends("test")[0],
        f"test_{by.quantity}": line.ends("test")[1],
        **line.barriers(),
        "distance": distance(unmoved.weights, end.weights),
        "connected": below(line.barrier("test"), asked.threshold),
    }
    return row, list(line.rows(**names))


def _robustness(moves: Sequence[Row], asked: Settings, by: Yardstick) -> list[Row]:
    """A row a round, direction and length: means over runs and draws, and the spread of the barrier."""

    def alike(row: Row) -> tuple[Any, ...]:
        return row["round"], row["direction"], row["multiple"] is None, row["multiple"] or row["norm"]

    groups = grouped(moves, alike)
    found = []
    for rows in groups.values():
        mean = mean_of(rows, by.column)
        summed: Row = {name: rows[0][name] for name in ("round", "step", "direction", "multiple")}
        summed["moves"] = len(rows)
        for column in ("norm", f"unmoved_test_{by.quantity}", f"test_{by.quantity}", by.column):
            summed[column] = mean_of(rows, column)
        summed[f"{by.column}_std"] = spread_of(rows, by.column)
        for column in (*by.other_columns, "distance"):
            if column in rows[0]:
                summed[column] = mean_of(rows, column)
        summed["connected"] = below(mean, asked.threshold)
        found.append(summed)
    return found
