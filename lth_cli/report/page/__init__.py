"""The report of runs: one HTML file that needs nothing else, neither a network nor a server."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lth_cli.config.errors import LthError, RequestError
from lth_cli.report.analyses import columns
from lth_cli.report.comparing import letter
from lth_cli.report.curves import Chart, by_what_is_left, layers, learning
from lth_cli.report.differences import beyond_experiment, differences, table
from lth_cli.report.layout import Column
from lth_cli.report.series import Axis, group_runs, labels
from lth_cli.report.show import facts
from lth_cli.report.tables import rounds_table
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.files import read_bytes, write_text
from lth_cli.store.runs import Run

_HERE = Path(__file__).parent
_GENERATOR = "lth report"
_MOST_ROWS = 200


@dataclass(frozen=True)
class Charts:
    """Everything that is drawn of some runs.

    Attributes:
        results: the metric against what is left.
        learning: learning curves.
        layers: what remains of each layer.
    """

    results: tuple[Chart, ...]
    learning: tuple[Chart, ...]
    layers: tuple[Chart, ...]

    @property
    def all(self) -> tuple[Chart, ...]:
        """In the order of the report."""
        return self.results + self.learning + self.layers


def charts_of(groups: Sequence[Sequence[Run]], axis: Axis = "density", metric: str | None = None) -> Charts:
    """What is drawn of groups of runs that differ by seed. Raises RequestError, as `by_what_is_left`."""
    chart = by_what_is_left(groups, axis, metric)
    return Charts(() if chart is None else (chart,), tuple(learning(groups, metric)), tuple(layers(groups)))


def check_place(path: Path) -> None:
    """Refuse to write where something else lies. Raises RequestError."""
    if not path.parent.is_dir():
        raise RequestError(f"{path.parent} is no folder; make it first, or name another place with --output")
    if path.is_dir():
        raise RequestError(f"{path} is a folder; --output names a file")
    if path.exists() and f'content="{_GENERATOR}"'.encode() not in read_bytes(path)[:2000]:
        raise RequestError(f"{path} is there already and no report of lth; name another place with --output")


def write_page(
    path: Path, runs: Sequence[Run], charts: Charts, *, title: str, skipped: Sequence[str] = ()
) -> None:
    """Write the report; the same runs give the same bytes.

    Args:
        path: see `check_place`.
        runs: each with a finished round.
        charts: of them.
        title: of the page.
        skipped: what was left out, and why.

    Raises:
        Damaged, ReadFailed, NewerFormat, WriteFailed.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(_HERE), undefined=jinja2.StrictUndefined
    )
    environment.filters["rows"] = lambda found: list(zip(*(column.cells for column in found), strict=True))
    script, style = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    groups = group_runs(runs)
    names = labels(groups)
    marks = [letter(place) for place in range(len(groups))]
    places = iter(range(len(runs)))
    ordered = [run for group in groups for run in group]
    members = [[next(places) for _ in group] for group in groups]
    differing = [row for row in differences(ordered) if row.key != "seed"]
    kinds = (len(charts.results), len(charts.learning), len(charts.layers))
    numbers = iter(range(sum(kinds)))
    results, curves, of_layers = ([next(numbers) for _ in range(count)] for count in kinds)
    text = environment.get_template("page.html").render(
        generator=_GENERATOR,
        title=title,
        subtitle=_subtitle(ordered),
        skipped=skipped,
        charts=[_told(chart, with_numbers=chart in charts.layers) for chart in charts.all],
        results=results,
        learning=curves,
        layers=of_layers,
        groups=[
            {
                "mark": mark,
                "name": name,
                "told": _seeds(group),
                "table": rounds_table(group),
            }
            for mark, name, group in zip(marks, names, groups, strict=True)
        ],
        differing=table(differing, marks, members) if differing and len(runs) > 1 else [],
        analyses=[answer for run in ordered for answer in _analyses(run)],
        runs=[_run(run) for run in ordered],
        data=Markup(_json([_plain(chart) for chart in charts.all])),
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
    )
    write_text(path, text)


def _hash(text: str) -> Any:
    from markupsafe import Markup

    return Markup("sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _plain(chart: Chart) -> dict[str, Any]:
    plain = dataclasses.asdict(chart)
    return {**plain, "logY": plain.pop("log_y")}


def _told(chart: Chart, *, with_numbers: bool) -> dict[str, Any]:
    """What stands beside a chart; numbers where no table of the page has them."""
    rows = chart.rows() if with_numbers else []
    headings = ("curve", chart.x, chart.y, "spread")
    cells = [[_number(row[heading]) for row in rows] for heading in headings]
    return {
        "title": chart.title,
        "shows_spread": any(place.spread is not None for curve in chart.curves for place in curve.places),
        "numbers": [
            Column(heading, column, right=heading != "curve")
            for heading, column in zip(headings, cells, strict=True)
            if rows
        ],
    }


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _subtitle(runs: Sequence[Run]) -> str:
    trained = {str(run.info.get("finished") or run.info.get("created"))[:10] for run in runs}
    days = sorted(trained)
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{len(runs)} run{'s' * (len(runs) > 1)} of {when}, lth {runs[0].info['versions']['lth']}"


def _seeds(group: Sequence[Run]) -> str:
    seeds = ", ".join(str(run.config.get("seed")) for run in group)
    if len(group) == 1:
        return f"test {group[0].headline.title}; seed {seeds}"
    return f"test {group[0].headline.title}, mean ± standard deviation over seeds {seeds}"


def _run(run: Run) -> dict[str, Any]:
    found = beyond_experiment(run)
    base, rows = found if found is not None else ("", [])
    return {
        "name": run.name,
        "facts": [*facts(run).items(), *_environment(run)],
        "beyond_told": f"Other than in {base}:",
        "beyond": [
            Column("key", [row.key for row in rows], right=False),
            Column(base, [_value(row.values[0]) for row in rows], right=False),
            Column("here", [_value(row.values[1]) for row in rows], right=False),
        ]
        if rows
        else [],
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
    }


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def _environment(run: Run) -> Iterable[tuple[str, str]]:
    yield "versions", ", ".join(f"{name} {value}" for name, value in run.info["versions"].items())
    if run.info.get("git_commit"):
        yield "commit", str(run.info["git_commit"])
    repeatable = run.info.get("repeatable")
    yield "repeatable", "yes" if repeatable else str(run.info.get("not_repeatable_because") or "no")


def _analyses(run: Run) -> Iterable[dict[str, Any]]:
    for stored in StoredAnalysis.all_of(run):
        try:
            result, found = stored.result, stored.tables()
            picture = stored.path / "figure.svg"
            drawn = base64.b64encode(read_bytes(picture)).decode() if picture.is_file() else None
        except LthError as error:
            yield {
                "name": stored.path.name,
                "run": run.name,
                "headline": [str(error)],
                "figure": None,
                "tables": [],
            }
            continue
        yield {
            "name": stored.path.name,
            "run": run.name,
            "headline": result["headline"],
            # As an image: nothing in it runs, whoever wrote it.
            "figure": f"data:image/svg+xml;base64,{drawn}" if drawn else None,
            "tables": [
                (name, columns(rows[:_MOST_ROWS]), max(0, len(rows) - _MOST_ROWS))
                for name, rows in found.items()
                if rows
            ],
        }
