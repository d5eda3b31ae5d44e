"""Runs side by side: groups that differ by seed alone in columns, tickets beside their controls, and what differs."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from lth_cli.report.differences import differences, table
from lth_cli.report.layout import Column, print_table
from lth_cli.report.series import Point, branches, headline_of, labels, main_kind, series
from lth_cli.report.tables import measured
from lth_cli.store.runs import Run

Groups = Sequence[Sequence[Run]]


def print_comparison(groups: Groups) -> None:
    """One table of all groups, by density or round, and one of what differs between them."""
    console = Console()
    names = labels(groups)
    short = [letter(place) for place in range(len(groups))] if len(groups) > 1 else names
    for name, mark, group in zip(names, short, groups, strict=True):
        seeds = ", ".join(str(run.config.get("seed")) for run in group)
        several = f" (mean ± standard deviation over seeds {seeds})" if len(group) > 1 else f" (seed {seeds})"
        title = f"{name} ({len(group)} run{'s' * (len(group) > 1)})"
        told = f"{title}: test {headline_of(group).title}{several}"
        console.print(Text(told if mark == name else f"{mark}  {told}"), soft_wrap=True)
    print_table(_columns(groups, short), console=console)
    runs = [run for group in groups for run in group]
    found = [
        row
        for row in differences(runs)
        if row.key != "seed" and (len(groups) > 1 or row.section in ("environment", "code"))
    ]
    if found:
        places = iter(range(len(runs)))
        members = [[next(places) for _ in group] for group in groups]
        console.print()
        print_table(table(found, short, members), console=console)


def letter(place: int) -> str:
    """The mark of a group: A, B, ..., AA."""
    letters = string.ascii_uppercase
    return letters[place % 26] * (place // 26 + 1)


def _columns(groups: Groups, names: Sequence[str]) -> list[Column]:
    found = [
        (f"{name} {kind}" if len(groups) > 1 else kind, headline_of(group), series(group, branch))
        for group, name in zip(groups, names, strict=True)
        for kind, branch in [(main_kind(group), None), *((branch, branch) for branch in branches(group))]
    ]
    points = [point for _, _, line in found for point in line]
    by_density = all(len({_density(point) for point in line}) == len(line) for _, _, line in found)
    rounds: dict[str, set[int]] = {}
    densities: dict[int, set[str]] = {}
    for point in points:
        rounds.setdefault(_density(point), set()).add(point.round)
        densities.setdefault(point.round, set()).add(_density(point))
    columns = []
    if by_density:
        keys: list[Any] = sorted(rounds, key=float, reverse=True)
        if all(len(same) == 1 for same in rounds.values()):
            columns = [Column("round", [str(min(rounds[key])) for key in keys], repeated=True)]
        columns.append(Column("density (%)", keys, repeated=True))
    else:
        keys = sorted(densities)
        columns = [
            Column("round", [str(key) for key in keys], repeated=True),
            Column("density (%)", [_only(densities[key]) for key in keys], repeated=True),
        ]
    for heading, metric, line in found:
        there = {_density(point) if by_density else point.round: point for point in line}
        columns.append(Column(heading, [measured(there.get(key), metric) for key in keys]))
    return columns


def _density(point: Point) -> str:
    return f"{100 * point.density:.4g}"


def _only(values: set[str]) -> str:
    return next(iter(values)) if len(values) == 1 else ""


def tidy(groups: Groups) -> list[dict[str, Any]]:
    """A row for each round of each run and each kind of controls, with every result that was measured."""
    rows = []
    for name, group in zip(labels(groups), groups, strict=True):
        for run in group:
            headline = f"test_{run.headline.name}"
            for kind, branch in [(main_kind([run]), None), *((branch, branch) for branch in run.branches())]:
                for row in run.results(branch):
                    first = {
                        "group": name,
                        "run": run.name,
                        "seed": run.config.get("seed"),
                        "kind": kind,
                        "round": row["round"],
                        "density": row["density"],
                        headline: row.get(headline),
                    }
                    rows.append({**first, **{key: value for key, value in row.items() if key not in first}})
    return rows
