"""`lth ls`: runs as a table, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.report import layout
from lth_cli.report.facts import Facts, Key
from lth_cli.report.finding import order
from lth_cli.report.layout import Column

_PLAIN = ("run", "command", "model", "dataset", "seed", "state", "rounds", "density")
_MORE = ("tags", "note", "steps_trained", "steps_reused", "created", "finished", "path")


def sorted_by(runs: Iterable[Facts], key: Key, descending: bool) -> list[Facts]:
    """Runs in the order of a value; those that have none come last either way."""
    values = [(order(key.of(facts)), facts) for facts in runs]
    there = [pair for pair in values if pair[0][0] < 2]
    there.sort(key=lambda pair: pair[0], reverse=descending)
    return [facts for _, facts in there] + [facts for where, facts in values if where[0] == 2]


def plain(facts: Facts) -> dict[str, Any]:
    """A run as `lth ls --json` tells of it, plain values."""
    entry = facts.entry
    rows = entry.trainings
    costs = [{**row, **row.get("cost", {})} for row in rows]
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


def write_json(runs: Iterable[Facts], keys: Sequence[Key], out: TextIO) -> bool:
    """Runs as JSON, whole or the columns that were asked for; whether there were any."""
    return layout.write_json((_chosen(facts, keys) if keys else plain(facts) for facts in runs), out)


def write_csv(runs: Sequence[Facts], keys: Sequence[Key], out: TextIO) -> bool:
    """Runs as CSV, the usual columns or those that were asked for; whether there were any."""
    if keys:
        layout.write_csv([_chosen(facts, keys) for facts in runs], out, [key.name for key in keys])
        return bool(runs)
    scores = list(dict.fromkeys(f"test_{facts.headline.name}" for facts in runs))
    layout.write_csv([_usual(facts) for facts in runs], out, [*_PLAIN, *scores, *_MORE])
    return bool(runs)


def _chosen(facts: Facts, keys: Sequence[Key]) -> dict[str, Any]:
    """The values of the columns that were asked for."""
    return {key.name: key.of(facts) for key in keys}


def _usual(facts: Facts) -> dict[str, Any]:
    metric = f"test_{facts.headline.name}"
    keys = [Key(name) for name in (*_PLAIN, *_MORE)]
    return {**_chosen(facts, keys), metric: facts.last.get(metric)}


def print_runs(runs: Sequence[Facts], keys: Sequence[Key]) -> bool:
    """The table of runs, the usual columns or those that were asked for; whether there were any."""
    if runs:
        layout.print_table(_chosen_columns(runs, keys) if keys else _usual_columns(runs))
    return bool(runs)


def _usual_columns(runs: Sequence[Facts]) -> list[Column]:
    """What each is, its state, how far it got, its last round."""
    metrics = {facts.headline for facts in runs if facts.last} or {ACCURACY}
    # Numbers of one metric need no name beside each.
    shared = metrics.pop() if len(metrics) == 1 else None
    model, dataset = Key("model"), Key("dataset")

    def column(title: str, cell: Callable[[Facts], Any], dispensable: int = 0, right: bool = False) -> Column:
        return Column(title, [str(cell(facts) or "") for facts in runs], right, dispensable)

    columns = [
        column("run", lambda facts: facts.entry.name),
        column("command", lambda facts: facts.own("command"), 6),
        column("model", model.of, 5),
        column("dataset", dataset.of, 5),
        column("state", lambda facts: facts.state),
        column("rounds", lambda facts: str(facts.entry.rounds), 2, right=True),
        column("density (%)", _density, 1, right=True),
        column(
            "test" if shared is None else f"test {shared.axis}",
            lambda facts: _score(facts, shared is None),
            right=True,
        ),
        column("tags", lambda facts: " ".join(facts.own("tags")), 3),
        column("note", lambda facts: facts.own("note"), 4),
        column("created", lambda facts: str(facts.own("created"))[:16].replace("T", " "), 7),
    ]
    return [one for one in columns if one.title not in ("tags", "note") or any(one.cells)]


def _density(facts: Facts) -> str:
    density = facts.last.get("density")
    return "" if density is None else f"{100 * density:.4g}"


def _score(facts: Facts, named: bool) -> str:
    metric = facts.headline
    score = facts.last.get(f"test_{metric.name}")
    return "" if score is None else f"{f'{metric.words} ' if named else ''}{metric.number(score)}"


def _chosen_columns(runs: Sequence[Facts], keys: Sequence[Key]) -> list[Column]:
    """The columns that were asked for; numbers of metrics in their unit."""
    columns = []
    for place, key in enumerate(keys):
        found = [(key.of(facts), key.metric(facts)) for facts in runs]
        metrics = {metric for value, metric in found if value is not None}
        metric = metrics.pop() if len(metrics) == 1 else None
        share = key.name in ("density", "sparsity")
        per_cent = share or (metric is not None and metric.unit == "%")
        cells = [_cell(value, metric, share) for value, _ in found]
        numbers = any(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in found)
        title = f"{key.name} (%)" if per_cent else key.name
        columns.append(Column(title, cells, numbers, place))  # where there is no room, the last go first
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
