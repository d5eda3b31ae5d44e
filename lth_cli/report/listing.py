"""`lth ls`: runs as a table, as CSV and as JSON. Of each run is kept what is shown, so that memory stays flat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar

from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.report import layout
from lth_cli.report.facts import Facts, Key
from lth_cli.report.finding import order
from lth_cli.report.layout import Column

_BEFORE = ("run", "command", "model", "dataset", "seed", "state", "rounds", "density")
_AFTER = ("tags", "note", "steps_trained", "steps_reused", "created", "finished", "path")
_Taken = TypeVar("_Taken")


@dataclass(frozen=True)
class Sorting:
    """An order of runs.

    Attributes:
        key: by what.
        descending: the highest first.
    """

    key: Key
    descending: bool

    def __call__(self, runs: Iterable[Facts], take: Callable[[Facts], _Taken]) -> Iterator[_Taken]:
        """What is taken of each run, in this order; those that have no such value come last either way."""
        found = [(order(self.key.of(facts)), take(facts)) for facts in runs]
        there = [pair for pair in found if pair[0][0] < 2]
        there.sort(key=lambda pair: pair[0], reverse=self.descending)
        yield from (taken for _, taken in there)
        yield from (taken for where, taken in found if where[0] == 2)


def _taken(
    runs: Iterable[Facts], sorting: Sorting | None, take: Callable[[Facts], _Taken]
) -> Iterator[_Taken]:
    return map(take, runs) if sorting is None else sorting(runs, take)


def plain(facts: Facts) -> dict[str, Any]:
    """A run as `lth ls --json` tells of it, plain values."""
    entry = facts.entry
    costs = [{**row, **row.get("cost", {})} for row in entry.trainings]
    known = all(row.get("training_madds") is not None for row in costs)
    return {
        "path": str(entry.path),
        "name": entry.name,
        "state": facts.state,
        "tags": entry.content["tags"],
        "note": entry.content["note"],
        "info": entry.info,
        "config": entry.config,
        "results": entry.results,
        "controls": entry.controls,
        "origins": entry.content["origins"],
        "steps_trained": facts.own("steps_trained"),
        "steps_reused": facts.own("steps_reused"),
        "training_madds": sum(row["training_madds"] for row in costs) if known else None,
        "reused_madds": sum(row["reused_madds"] for row in costs) if known else None,
    }


def write_json(
    runs: Iterable[Facts], keys: Sequence[Key], sorting: Sorting | None, out: TextIO, *, at_once: bool
) -> bool:
    """Runs as JSON, whole or the columns that were asked for; whether there were any.

    Args:
        runs: which.
        keys: the columns; without, everything.
        sorting: their order.
        out: where to.
        at_once: write each as it comes: what goes wrong later leaves half a list.
    """
    lines = _taken(runs, sorting, lambda facts: json.dumps(_chosen(facts, keys) if keys else plain(facts)))
    return layout.write_json(lines if at_once else list(lines), out)


def write_csv(runs: Iterable[Facts], keys: Sequence[Key], sorting: Sorting | None, out: TextIO) -> bool:
    """Runs as CSV, the usual columns or those that were asked for; whether there were any."""
    if keys:
        rows = list(_taken(runs, sorting, lambda facts: _chosen(facts, keys)))
        layout.write_csv(rows, out, [key.name for key in keys])
        return bool(rows)
    usual = [Key(name) for name in (*_BEFORE, *_AFTER)]

    def take(facts: Facts) -> dict[str, Any]:
        headline = f"test_{facts.headline.name}"
        return {headline: facts.last.get(headline), **_chosen(facts, usual)}

    rows = list(_taken(runs, sorting, take))
    scores = list(dict.fromkeys(next(iter(row)) for row in rows))
    layout.write_csv(rows, out, [*_BEFORE, *scores, *_AFTER])
    return bool(rows)


def _chosen(facts: Facts, keys: Sequence[Key]) -> dict[str, Any]:
    """The values of the columns that were asked for."""
    return {key.name: key.of(facts) for key in keys}


def print_runs(runs: Iterable[Facts], keys: Sequence[Key], sorting: Sorting | None) -> bool:
    """The table of runs, the usual columns or those that were asked for; whether there were any."""
    if keys:
        found = list(
            _taken(runs, sorting, lambda facts: [(key.of(facts), key.metric(facts)) for key in keys])
        )
        columns = _chosen_columns(found, keys)
        there = bool(found)
    else:
        rows = list(_taken(runs, sorting, _Row.of))
        columns = _usual_columns(rows)
        there = bool(rows)
    if there:
        layout.print_table(columns)
    return there


@dataclass(frozen=True, slots=True)
class _Row:
    """What the usual table shows of a run."""

    run: str
    command: str
    model: str
    dataset: str
    state: str
    rounds: int
    density: float | None
    metric: Metric
    score: float | None
    goal: str
    tags: str
    note: str
    created: str

    @classmethod
    def of(cls, facts: Facts) -> _Row:
        metric, last = facts.headline, facts.last
        return cls(
            facts.entry.name,
            str(facts.own("command") or ""),
            str(Key("model").of(facts) or ""),
            str(Key("dataset").of(facts) or ""),
            facts.state,
            facts.entry.rounds,
            last.get("density"),
            metric,
            last.get(f"test_{metric.name}"),
            facts.own("goal") or "",
            " ".join(facts.own("tags")),
            facts.own("note"),
            str(facts.own("created") or "")[:16].replace("T", " "),
        )


def _usual_columns(rows: Sequence[_Row]) -> list[Column]:
    """What each is, its state, how far it got, its last round."""
    metrics = {row.metric for row in rows if row.rounds} or {ACCURACY}
    # Numbers of one metric need no name beside each.
    shared = metrics.pop() if len(metrics) == 1 else None
    heading = "test" if shared is None else f"test {shared.axis}"
    densities = ["" if row.density is None else f"{100 * row.density:.4g}" for row in rows]
    columns = [
        Column("run", [row.run for row in rows], right=False),
        Column("command", [row.command for row in rows], right=False, dispensable=7),
        Column("model", [row.model for row in rows], right=False, dispensable=5),
        Column("dataset", [row.dataset for row in rows], right=False, dispensable=6),
        Column("state", [row.state for row in rows], right=False),
        Column("rounds", [str(row.rounds) for row in rows], dispensable=2),
        Column("density (%)", densities, dispensable=1),
        Column(heading, [_score(row, shared is None) for row in rows]),
        Column("goal", [row.goal for row in rows], right=False, dispensable=2),
        Column("tags", [row.tags for row in rows], right=False, dispensable=3),
        Column("note", [row.note for row in rows], right=False, dispensable=4),
        Column("created", [row.created for row in rows], right=False, dispensable=8),
    ]
    return [one for one in columns if one.title not in ("goal", "tags", "note") or any(one.cells)]


def _score(row: _Row, named: bool) -> str:
    if row.score is None:
        return ""
    return f"{f'{row.metric.words} ' if named else ''}{row.metric.number(row.score)}"


def _chosen_columns(rows: Sequence[Sequence[tuple[Any, Metric | None]]], keys: Sequence[Key]) -> list[Column]:
    """The columns that were asked for; numbers of metrics in their unit."""
    columns = []
    for place, key in enumerate(keys):
        found = [row[place] for row in rows]
        metrics = {metric for value, metric in found if value is not None}
        metric = metrics.pop() if len(metrics) == 1 else None
        share = key.name in ("density", "sparsity")
        per_cent = share or (metric is not None and metric.unit == "%")
        cells = [_cell(value, metric, share) for value, _ in found]
        numbers = any(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in found)
        title = f"{key.name} (%)" if per_cent else key.name
        columns.append(
            Column(title, cells, numbers, dispensable=place)
        )  # where there is no room, the last go first
    return columns


def _cell(value: Any, metric: Metric | None, share: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        words = all(isinstance(one, str) for one in value)
        return " ".join(value) if words else str(value).replace(" ", "")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int) and share:
        return f"{100 * value:.4g}"
    if isinstance(value, float | int) and metric is not None:
        return metric.number(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
