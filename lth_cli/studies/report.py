"""The report of a study: Markdown, tables as CSV, everything as JSON, figures. The same runs give the same files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.report.curves import Chart, Curve, Place
from lth_cli.report.figures import chart_figure
from lth_cli.store.files import make_folder, write_sealed, write_text
from lth_cli.studies.claims import Unknown, holds
from lth_cli.studies.plan import StudyPlan
from lth_cli.studies.schema import Figure
from lth_cli.studies.tables import Pivot

_SURE = {"verified": "verified", "secondary": "from a secondary source", "recalled": "recalled, not re-read"}
_WORDS = {True: "held", False: "FAILED", None: "not checked"}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Verdict:
    """A claim and what became of it here.

    Attributes:
        claim: in words.
        check: the expression.
        held: None where a value it asks for is missing.
        why: that.
    """

    claim: str
    check: str
    held: bool | None
    why: str = ""

    @property
    def told(self) -> str:
        """For people."""
        return f"{_WORDS[self.held]}: {self.claim}" + (f" ({self.why})" if self.why else "")


def judge(plan: StudyPlan, tables: Mapping[str, Pivot]) -> list[Verdict]:
    """Check every claim of a study that is one of this profile."""
    found = []
    for one in plan.found.study.holds:
        if one.profiles and plan.profile not in one.profiles:
            continue
        try:
            found.append(Verdict(one.claim, one.check, holds(one.check, tables)))
        except Unknown as unknown:
            found.append(Verdict(one.claim, one.check, None, str(unknown)))
    return found


def markdown(plan: StudyPlan, tables: Mapping[str, Pivot], verdicts: Sequence[Verdict], seeds: str) -> str:
    """The report as Markdown."""
    study = plan.found.study
    typed = " ".join(text for text in plan.typed if not text.startswith(("data.", "runs_dir=", "launcher")))
    command = f"lth study run {plan.found.name} profile={plan.profile} {typed}".strip()
    lines = [f"# {plan.found.name}: {study.about}", "", study.paper, "", f"Claim: {study.claim}", ""]
    lines += [f"`{command}`" + (f"; {plan.size.about}" if plan.size.about else ""), ""]
    others = [
        f"- `lth study run {plan.found.name} profile={name}`" + (f"; {one.about}" if one.about else "")
        for name, one in study.profiles.items()
        if name != plan.profile
    ]
    lines += ["Other sizes:", "", *others, ""] if others else []
    lines += [f"Seeds: {seeds}.", ""]
    if verdicts:
        lines += ["## What held here", ""]
        lines += [f"- **{_WORDS[one.held]}**: {one.claim} (`{one.check}`{_reason(one)})" for one in verdicts]
        lines.append("")
    for table in tables.values():
        lines += _section(table) if table.rows else []
    for name, figure in _drawn(plan, tables):
        lines += [f"![{tables[figure.table].spec.title}]({name}.png)", ""]
    deviations = [*study.deviations, *plan.size.deviations]
    if deviations:
        lines += ["## Where this deviates from the paper", "", *(f"- {text}" for text in deviations), ""]
    return "\n".join(lines).rstrip() + "\n"


def _drawn(plan: StudyPlan, tables: Mapping[str, Pivot]) -> list[tuple[str, Figure]]:
    """Figures of tables that have anything to show, by name."""
    return [(name, one) for name, one in plan.found.study.figures.items() if tables[one.table].rows]


def _reason(one: Verdict) -> str:
    return f"; {one.why}" if one.why else ""


def _section(table: Pivot) -> list[str]:
    spec = table.spec
    seeds = max((len(cell.values) for cell in table.cells.values()), default=0)
    unit = f" in {spec.unit}" if spec.unit else ""
    metric = spec.metric.replace("_", " ")
    about = f"{metric}{unit}; " + ("mean ± standard deviation" if seeds > 1 else "one value a cell")
    about += "; published in brackets." if table.published else "."
    lines = [
        f"## {spec.title}",
        "",
        about[0].upper() + about[1:] + (f" {spec.note}" if spec.note else ""),
        "",
    ]
    lines += [
        f"| {spec.rows.rpartition('.')[2].replace('_', ' ')} | {' | '.join(table.columns)} |",
        f"| --- |{' ---: |' * len(table.columns)}",
    ]
    lines += [
        f"| {row} | {' | '.join(table.told(row, column) for column in table.columns)} |" for row in table.rows
    ]
    lines.append("")
    shown = {id(one): one for _, one in table.published.values()}.values()
    lines += [f"Published: {one.source}; {_SURE[one.sure]}.\n" for one in shown]
    return lines


def as_json(plan: StudyPlan, tables: Mapping[str, Pivot], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Everything the report tells, as plain values."""
    return {
        "format": 1,
        "study": plan.found.name,
        "profile": plan.profile,
        "typed": [text for text in plan.typed if not text.startswith(("data.", "runs_dir=", "launcher"))],
        "tables": {name: rows_of(table) for name, table in tables.items()},
        "claims": [vars(one) for one in verdicts],
        "deviations": [*plan.found.study.deviations, *plan.size.deviations],
    }


def rows_of(table: Pivot) -> list[dict[str, Any]]:
    """A row a cell: mean, spread and number of values, published value and how sure it is."""
    found = []
    for row in table.rows:
        for column in table.columns:
            cell, other = table.cells.get((row, column)), table.published.get((row, column))
            if cell is None and other is None:
                continue
            found.append(
                {
                    "row": row,
                    "column": column,
                    "mean": None if cell is None else cell.mean,
                    "spread": None if cell is None else cell.spread,
                    "values": 0 if cell is None else len(cell.values),
                    "published": None if other is None else other[0],
                    "sure": None if other is None else other[1].sure,
                }
            )
    return found


def write(
    plan: StudyPlan, tables: Mapping[str, Pivot], verdicts: Sequence[Verdict], seeds: str, folder: Path
) -> Path:
    """Write the report into a folder; returns the Markdown's path. Raises WriteFailed."""
    make_folder(folder)
    for name, table in tables.items():
        text = io.StringIO()
        columns = ["row", "column", "mean", "spread", "values", "published", "sure"]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows_of(table))
        write_text(folder / f"{name}.csv", text.getvalue())
    for name, figure in _drawn(plan, tables):
        chart_figure(_chart(name, tables[figure.table], figure), folder / name)
    write_sealed(folder / "study.json", as_json(plan, tables, verdicts))
    path = folder / "report.md"
    write_text(path, markdown(plan, tables, verdicts, seeds))
    return path


def _chart(name: str, table: Pivot, figure: Figure) -> Chart:
    """A table as lines, a column each; rows that are no numbers are left out."""
    unit = f" ({table.spec.unit})" if table.spec.unit else ""
    curves = []
    for group, column in enumerate(table.columns):
        places = tuple(
            Place(float(number[0]), cell.mean, cell.spread, len(cell.values))
            for row in table.rows
            if (number := _NUMBER.match(row)) and (cell := table.cells.get((row, column))) is not None
        )
        if places:
            curves.append(Curve(column, group, 0, places))
    return Chart(
        name,
        table.spec.title,
        figure.x or table.spec.rows,
        table.spec.metric.replace("_", " ") + unit,
        tuple(curves),
        log=figure.log,
        falling=figure.log,
    )
