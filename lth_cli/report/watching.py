"""How far runs that are at work have come, looked at again and again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lth_cli.config.errors import LthError
from lth_cli.report.layout import Column, fit, render
from lth_cli.store.runs import Run
from lth_cli.store.sweeps import list_sweeps
from lth_cli.store.trajectories import TrajectoryStore


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        name: of the run.
        state: now.
        done: rounds and controls that are finished.
        total: of how many at most; None for a run of an earlier release.
        score: the headline metric of its last round, as people read it; empty before the first.
        now: of the training in progress, its last stored evaluation; empty where there is none.
    """

    name: str
    state: str
    done: int
    total: int | None
    score: str
    now: str

    @property
    def rounds(self) -> str:
        """Of how many trainings how many are done."""
        return str(self.done) if self.total is None else f"{self.done}/{self.total}"


def progress(run: Run) -> Progress:
    """How far a run is now; one that cannot be read says so."""
    try:
        info, metric = run.info, run.headline
        rows = run.results()
        done = len(rows) + sum(len(run.results(branch)) for branch in run.branches())
        score = rows[-1].get(f"test_{metric.name}") if rows else None
        state = run.effective_state
        return Progress(
            run.name,
            state,
            done,
            info.get("trainings"),
            "" if score is None else metric.told(score),
            _training(run) if state == "running" else str(info.get("error") or ""),
        )
    except LthError as error:
        gone = not run.path.exists()
        return Progress(run.name, "gone" if gone else "damaged", 0, None, "", "" if gone else str(error))


def _training(run: Run) -> str:
    """The last evaluation that is stored of the training in progress."""
    store, ours, metric = TrajectoryStore(run.path.parent / ".store"), run.holder, run.headline
    for identity in run.uses():
        holder = store.lock(identity).holder
        if ours is None or holder is None or (holder.host, holder.pid) != (ours.host, ours.pid):
            continue
        lines = [
            line for line in store.metrics(identity) if line.get("split") == "test" and metric.name in line
        ]
        if len(lines) > 1:  # the first is that of the start
            return f"step {lines[-1]['step']:,}: {metric.told(lines[-1][metric.name])}"
    return ""


def watch(runs_dir: Path, named: Sequence[Run], every: float) -> None:
    """Show how far runs are until none is at work any more: a table that changes, or in a pipe a line a change.

    Args:
        runs_dir: folder of runs.
        named: those to watch; without, all that are at work, also those that begin meanwhile.
        every: seconds between looks.
    """
    console = Console()
    looks = _looks(runs_dir, named, every)
    if not console.is_terminal:
        if not _print_changes(looks):
            _tell_nothing(runs_dir)
        return
    last: list[Progress] = []
    with Live(console=console, auto_refresh=False) as live:
        for last in looks:
            live.update(_shown(last, console.width), refresh=True)
    if not last:
        _tell_nothing(runs_dir)


def _tell_nothing(runs_dir: Path) -> None:
    sys.stderr.write(f"lth: nothing is at work in {runs_dir}\n")


def _looks(runs_dir: Path, named: Sequence[Run], every: float) -> Iterator[list[Progress]]:
    """One look after the other; the last is the one at which nothing was at work."""
    watched = {run.path: run for run in named}
    while True:
        going_on = not named and _launching(runs_dir)
        if not named:
            watched |= {run.path: run for run in _at_work(runs_dir)}
        found = [progress(run) for _, run in sorted(watched.items())]
        yield found
        if not going_on and all(one.state != "running" for one in found):
            return
        time.sleep(every)


def _at_work(runs_dir: Path) -> Iterator[Run]:
    """Runs that somebody holds: a run at work has a lock, so that no other need be opened."""
    try:
        with os.scandir(runs_dir) as found:
            names = [one.name for one in found if not one.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        run = Run(runs_dir / name)
        if (run.path / ".lock").exists() and (run.path / "run.json").exists():
            try:
                if run.effective_state == "running":
                    yield run
            except LthError:
                continue


def _launching(runs_dir: Path) -> bool:
    """Whether a sweep is being worked on, between one run and the next too."""
    for sweep in list_sweeps(runs_dir)[0]:
        try:
            if sweep.launching:
                return True
        except LthError:
            continue
    return False


def _print_changes(looks: Iterator[list[Progress]]) -> bool:
    """A line whenever a run has come further, with the time; whether there were any."""
    before: dict[str, Progress] = {}
    for found in looks:
        for one in found:
            if before.get(one.name) != one:
                if not before:
                    print("time", "run", "state", "rounds", "test", "now", sep="\t")
                before[one.name] = one
                print(
                    time.strftime("%H:%M:%S"), one.name, one.state, one.rounds, one.score, one.now, sep="\t"
                )
        sys.stdout.flush()
    return bool(before)


def _shown(found: Sequence[Progress], width: int) -> Group | Text:
    if not found:
        return Text("")
    columns = [
        Column("run", [one.name for one in found], right=False),
        Column("state", [one.state for one in found], right=False, dispensable=1),
        Column("rounds", [one.rounds for one in found]),
        Column("test", [one.score for one in found]),
        Column("now", [one.now for one in found], right=False, dispensable=2),
    ]
    tables, _ = fit(columns, width)
    return Group(*(render(table) for table in tables))
