"""Are states linearly mode connected? (Frankle et al. 2020, arXiv:1912.05671, section 2)"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from lth_cli.analyses.connectivity.settings import Settings
from lth_cli.analyses.lines import curve
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
from lth_cli.analyses.yardstick import below, check_objectives, yardstick
from lth_cli.config.errors import RequestError
from lth_cli.config.references import is_round
from lth_cli.store.analyses import Row

Pair = tuple[NamedState, NamedState]


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    pairs = _pairs(request, asked)
    if not pairs:
        raise RequestError(
            "analysis.states: name two states at least, such as [0@end,last@end], or analysis.pairs"
        )
    states = [state.recorded for pair in pairs for state in pair]
    check_alike(states)
    check_objectives(states)
    check_splits(asked.splits, states[0])
    return Study(
        "connectivity",
        request.runs[0],
        {
            **settings(asked, "states", "pairs"),
            **circumstances(states[0]),
            "pairs": [[state.identity for state in pair] for pair in pairs],
        },
        {"pairs": [[state.label for state in pair] for pair in pairs]},
        functools.partial(_answer, asked=asked, pairs=pairs),
        parts=len(pairs),
        not_shown=("curves",),
    )


def _pairs(request: Request, asked: Settings) -> list[Pair]:
    """Every pair named; one with a state of no run is asked of each run."""
    named = asked.pairs or [list(pair) for pair in itertools.combinations(asked.states, 2)]
    found: dict[str, Pair] = {}
    for first, second in named:
        of_each = is_round(first) or is_round(second)
        for run in request.runs if of_each else request.runs[:1]:
            pair = request.state(first, run), request.state(second, run)
            found.setdefault(f"{pair[0].label} {pair[1].label}", pair)
    return list(found.values())


def _answer(work: Work, *, asked: Settings, pairs: Sequence[Pair]) -> Answer:
    model = work.network(pairs[0][0].recorded)
    by = yardstick(pairs[0][0].recorded)
    rows: list[Row] = []
    curves: list[Row] = []
    for first, second in pairs:
        names: dict[str, str | int | None] = {"first": first.label, "second": second.label}
        work.observer.part_started(f"{first.label} to {second.label}")
        ends = work.state(first.recorded, first.step), work.state(second.recorded, second.step)
        key = [first.identity, second.identity]
        measured = curve(work, pairs[0][0].recorded, model, ends, key, asked)
        one, other = measured.ends("test")
        rows.append(
            {
                **names,
                f"first_test_{by.quantity}": one,
                f"second_test_{by.quantity}": other,
                **measured.barriers(),
                "connected": below(measured.barrier("test"), asked.threshold),
            }
        )
        curves += measured.rows(**names)
        work.observer.part_finished(by.told(measured.barrier("test")))
    connected = [row for row in rows if row["connected"]]
    headline = [
        f"{len(connected)} of {len(rows)} pair{'s' * (len(rows) > 1)} connected ({by.below(asked.threshold)})"
    ]
    summary = {"pairs": len(rows), "connected": len(connected), **by.noted}
    return Answer({"barriers": rows, "curves": curves}, summary, headline)
