"""Accuracy against total cost of a sequence of runs that learn from those before them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lth_cli.report.curves import Chart, Curve, Place
from lth_cli.report.figures import chart_figure
from lth_cli.report.layout import Column, print_table
from lth_cli.store.files import make_folder, write_text
from lth_cli.store.runs import Run

Row = dict[str, Any]
FOLDER = ".sequences"


@dataclass(frozen=True)
class Member:
    """A run of a sequence.

    Attributes:
        point: what it has that others have not.
        plain: trained without teachers; the first run always, the others when a baseline was asked for.
        taught: trained with teachers; None for the first run.
        teachers: names of the runs that taught it.
    """

    point: str
    plain: Run | None
    taught: Run | None
    teachers: tuple[str, ...]

    @property
    def run(self) -> Run:
        """The one that later runs learn from."""
        run = self.taught or self.plain
        assert run is not None
        return run


def rows_of(members: Sequence[Member]) -> list[Row]:
    """A row a run: accuracy and seconds with and without teachers, and totals up to it.

    Seconds are those of the training, evaluations and what a teacher's answers cost among them. `free` counts no
    teacher's own training; `amortised` adds an equal share of it to each run it teaches. Each run of the sequence is
    counted itself as well, so `free` is what the sequence took.
    """
    students = {member.run.name: 0 for member in members}
    for member in members:
        for teacher in member.teachers:
            students[teacher] += 1
    seconds = {member.run.name: _seconds(member.run) for member in members}
    rows: list[Row] = []
    totals = {"plain": 0.0, "free": 0.0, "amortised": 0.0}
    for number, member in enumerate(members):
        own = seconds[member.run.name]
        shares = sum(seconds[teacher] / students[teacher] for teacher in member.teachers)
        plain = None if member.plain is None else _seconds(member.plain)
        totals["plain"] += plain or 0.0
        totals["free"] += own
        totals["amortised"] += own + shares
        rows.append(
            {
                "number": number,
                "point": member.point,
                "teachers": " ".join(member.teachers),
                "run": member.run.name,
                "accuracy": _accuracy(member.run),
                "seconds": own,
                "seconds_amortised": own + shares,
                "plain_run": None if member.plain is None else member.plain.name,
                "plain_accuracy": None if member.plain is None else _accuracy(member.plain),
                "plain_seconds": plain,
                "total_free": totals["free"],
                "total_amortised": totals["amortised"],
                "total_plain": None if member.plain is None else totals["plain"],
                "steps_reused": _reused(member),
            }
        )
    return rows


def write_sequence(runs_dir: Path, name: str, rows: Sequence[Row]) -> Path:
    """Write the rows and their figure; returns the folder. Raises WriteFailed."""
    folder = runs_dir / FOLDER / name
    make_folder(folder)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "sequence.csv", text.getvalue())
    _draw(rows, folder / "accuracy")
    return folder


def print_sequence(rows: Sequence[Row], folder: Path, baseline: bool) -> None:
    """The table that people see."""
    console = Console()
    last = rows[-1]
    plain = [
        Column("plain", [*(_percent(row["plain_accuracy"]) for row in rows), ""]),
        Column("cost", [*(_cost(row["plain_seconds"]) for row in rows), _cost(last["total_plain"])]),
    ]
    columns = [
        Column("run", [*(row["point"] or row["run"] for row in rows), "total"], right=False, repeated=True),
        *(plain if baseline else []),
        Column("taught", [*(_percent(row["accuracy"]) for row in rows), ""]),
        Column("cost", [*(_cost(row["seconds"]) for row in rows), _cost(last["total_free"])]),
        Column(
            "with teachers",
            [*(_cost(row["seconds_amortised"]) for row in rows), _cost(last["total_amortised"])],
        ),
    ]
    print_table(columns, "accuracy in %, cost in seconds", console)
    console.print("with teachers: each teacher's own training shared by those it taught", highlight=False)
    reused = sum(row["steps_reused"] for row in rows)
    if reused:
        told = "steps were read from the store; they are counted with what they took when they were trained"
        console.print(f"{reused:,} {told}", highlight=False)
    console.print(f"Stored in {folder}", highlight=False, soft_wrap=True)


def _draw(rows: Sequence[Row], stem: Path) -> None:
    curves: list[Curve] = []
    for label, cost, score in (
        ("without teachers", "total_plain", "plain_accuracy"),
        ("taught, teachers free", "total_free", "accuracy"),
        ("taught, teachers amortised", "total_amortised", "accuracy"),
    ):
        places = [Place(row[cost], 100 * row[score], None, 1) for row in rows if row[cost] is not None]
        if len(places) > 1:
            curves.append(Curve(label, len(curves), 0, tuple(places)))
    title, x = "accuracy against total cost", "total cost (seconds of training)"
    chart_figure(Chart(stem.name, title, x, "test accuracy (%)", tuple(curves)), stem)


def _seconds(run: Run) -> float:
    """Of the run's trainings: what they took here, or when they were trained where they were read from the store."""
    return math.fsum(
        max(float(line["seconds"]) for line in ({"seconds": round_.summary["seconds"]}, *round_.metrics()))
        for round_ in run.rounds()
        if round_.finished
    )


def _reused(member: Member) -> int:
    runs = [run for run in (member.plain, member.taught) if run is not None]
    return sum(int(row["steps_reused"] or 0) for run in runs for row in run.results())


def _accuracy(run: Run) -> float:
    return float(run.results()[-1]["test_accuracy"] or 0.0)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _cost(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
