"""What does the loss look like between trained states? On a plane of weights, at every point of a grid.

The plane through three states (Garipov et al. 2018, arXiv:1802.10026), or the one spanned by four trained seeds
(McDermott & Cummings 2023, arXiv:2310.18769).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

from lth_cli.analyses.landscape.plane import Combination, Plane, grid, spanned_by_four, through_three
from lth_cli.analyses.landscape.settings import Settings
from lth_cli.analyses.lines import measure
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
from lth_cli.analyses.work import Work
from lth_cli.analyses.yardstick import Yardstick, check_objectives, yardstick
from lth_cli.config.errors import RequestError
from lth_cli.store.states import State

Point = dict[str, Any]
"""A row of a table: where a point is, error and loss by split, and how many variances had to be set to zero."""


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    states = request.states(asked.states)
    labels = [state.label for state in states]
    if len(states) not in (3, 4):
        raise RequestError(
            "analysis.states: a plane goes through three states or is spanned by four, "
            f"these are {len(states)}: {', '.join(labels)}"
        )
    for first, second in itertools.combinations(states, 2):
        if first.identity == second.identity:
            raise RequestError(
                f"analysis.states: {first.label} and {second.label} are the same state; name different ones"
            )
    check_alike([state.recorded for state in states])
    check_objectives([state.recorded for state in states])
    check_splits(asked.splits, states[0].recorded)
    return Study(
        "landscape",
        request.runs[0],
        {
            **settings(asked, "states"),
            **circumstances(states[0].recorded),
            "states": [state.identity for state in states],
        },
        {"states": labels},
        functools.partial(_answer, asked=asked, states=states),
        parts=asked.grid,
        not_shown=("plane",),
    )


def _answer(work: Work, *, asked: Settings, states: Sequence[NamedState]) -> Answer:
    model = work.network(states[0].recorded)
    loaded = [work.state(state.recorded, state.step) for state in states]
    plane = _plane(loaded, states)
    by = yardstick(states[0].recorded)
    mover = Combination(model, loaded)

    def point(coefficients: Sequence[float], *key: str | int) -> Point:
        def measured() -> Point:
            clamped = mover.move(coefficients)
            found: Point = {}
            for split, (error, loss) in measure(work, states[0].recorded, model, asked).items():
                found |= (
                    {f"{split}_loss": loss}
                    if error is None
                    else {f"{split}_error": error, f"{split}_loss": loss}
                )
            # Recomputed statistics replace what interpolation gave.
            return found | {"clamped_variances": clamped if asked.batch_norm == "interpolated" else 0}

        found: Point = work.once(list(key), measured)
        return found

    marks: list[Point] = []
    for index, (state, mark) in enumerate(zip(states, plane.marks, strict=True)):
        own = point([float(index == other) for other in range(len(states))], "state", index)
        where = {"state": state.label, "x": mark.x, "y": mark.y, "distance": mark.distance}
        marks.append(where | {name: value for name, value in own.items() if name != "clamped_variances"})
    xs, ys = grid(plane, asked.grid, asked.margin)
    rows: list[Point] = []
    for number, y in enumerate(ys, 1):
        work.observer.part_started(f"row {number} of the plane")
        line = [
            {"x": x, "y": y} | point(plane.coefficients(x, y), "point", column, number)
            for column, x in enumerate(xs, 1)
        ]
        rows += line
        work.observer.part_finished(f"least {by.name} {by.value(_least(line, by))}")
    return _told(plane, rows, marks, by)


def _plane(loaded: Sequence[State], states: Sequence[NamedState]) -> Plane:
    make = through_three if len(states) == 3 else spanned_by_four
    try:
        return make([state.weights for state in loaded])
    except ValueError as error:
        labels = ", ".join(state.label for state in states)
        raise RequestError(f"analysis.states: {labels} make no plane: {error}") from error


def _least(points: Sequence[Point], by: Yardstick) -> float | None:
    """The least error, or finite loss; None where none is finite."""
    return min(_known(points, by), default=None)


def _known(points: Sequence[Point], by: Yardstick) -> list[float]:
    return [value for point in points if (value := point[f"test_{by.quantity}"]) is not None]


def _told(plane: Plane, rows: list[Point], marks: list[Point], by: Yardstick) -> Answer:
    column = f"test_{by.quantity}"
    best = min(rows, key=lambda row: math.inf if row[column] is None else row[column])
    clamped = sum(row["clamped_variances"] > 0 for row in rows)
    summary = {
        "units": list(plane.units),
        "angle": plane.angle,
        f"least_{column}": best[column],
        "least_at": [best["x"], best["y"]],
        "points_with_clamped_variances": clamped,
        **by.noted,
    }
    headline = [
        f"least {by.name} on the plane {by.value(best[column])} at ({best['x']:.4g}, {best['y']:.4g}); "
        f"of the states {by.value(_least(marks, by))}"
    ]
    if clamped:
        headline.append(
            f"at {clamped} of {len(rows)} points interpolated batch-norm variances were negative and set to zero; "
            "analysis.batch_norm=recomputed does without"
        )
    return Answer({"states": marks, "plane": rows}, summary, headline)
