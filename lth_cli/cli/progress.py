"""Progress while training: live bars in a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.experiments.session import SessionObserver

_PLAIN_EVERY_SECONDS = 30.0


@contextmanager
def make_observer(total: int, name: str, quiet: bool) -> Iterator[SessionObserver]:
    """The observer that suits standard error: bars, lines, or warnings alone.

    Args:
        total: trainings of the run, controls included; parts of an analysis.
        name: of the run.
        quiet: warnings alone.
    """
    if quiet:
        yield _Plain(name, total, rounds=False)
    elif sys.stderr.isatty():
        with _Bars(name, total) as bars:
            yield bars
    else:
        yield _Plain(name, total, rounds=True)


def _label(branch: str | None, number: int) -> str:
    return f"round {number}" if branch is None else f"round {number} {branch}"


def _with_density(branch: str | None, number: int, density: float) -> str:
    return f"{_label(branch, number)} ({100 * density:.4g} % of weights)"


def _scores(row: dict[str, Any], metric: Metric) -> str:
    splits = [(split, row.get(f"{split}_{metric.name}")) for split in ("train", "val", "test")]
    return ", ".join(f"{split} {metric.told(score)}" for split, score in splits if score is not None)


class _Plain(SessionObserver):
    """A line a round, and one every half minute of a long one."""

    def __init__(self, name: str, total: int, rounds: bool) -> None:
        self._name, self._total, self._rounds = name, total, rounds
        self._done, self._label, self._last = 0, "", time.monotonic()
        self._metric = ACCURACY

    def measured_by(self, metric: Metric) -> None:
        self._metric = metric

    def round_started(self, branch: str | None, number: int, density: float, identity: str) -> None:
        self._label = _with_density(branch, number, density)

    def part_started(self, label: str) -> None:
        self._label = label

    def part_finished(self, found: str) -> None:
        self._done += 1
        if self._rounds:
            self._print(f"[{self._done}/{self._total}] {self._label}: {found}")

    def training(self, step: int, first: int, to: int, loss: float) -> None:
        if self._rounds and time.monotonic() - self._last > _PLAIN_EVERY_SECONDS:
            self._last = time.monotonic()
            self._print(f"{self._label}: step {step:,} of {to:,}, loss {loss:.4f}")

    def round_finished(self, branch: str | None, row: dict[str, Any]) -> None:
        self._done += 1
        if self._rounds:
            scores = _scores(row, self._metric)
            label = _with_density(
                branch, row["round"], row["density"]
            )  # masks may have changed since the start
            self._print(f"[{self._done}/{self._total}] {label}: {scores}, {row['seconds']:.1f} s")

    def message(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        sys.stderr.write(f"{self._name}: {text}\n")


class _Bars(SessionObserver):
    """Two bars: rounds, and the steps of the present one."""

    def __init__(self, name: str, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._rounds = self._progress.add_task(name, total=total, note="")
        self._steps = self._progress.add_task("", total=None, note="")
        self._score, self._scored_at = "", 0
        self._metric = ACCURACY

    def measured_by(self, metric: Metric) -> None:
        self._metric = metric

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def round_started(self, branch: str | None, number: int, density: float, identity: str) -> None:
        text = f"{_label(branch, number)} ({100 * density:.4g} %)"
        self._progress.reset(self._steps, description=text, total=None, note="")
        self._score = ""  # of the round before

    def part_started(self, label: str) -> None:
        self._progress.reset(self._steps, description=label, total=None, note="")

    def part_finished(self, found: str) -> None:
        self._progress.update(self._rounds, advance=1, note=found)

    def training(self, step: int, first: int, to: int, loss: float) -> None:
        score = self._score if self._scored_at > first else ""  # where it starts says nothing of where it is
        self._progress.update(
            self._steps, total=to - first, completed=step - first, note=f"loss {loss:.4f}{score}"
        )

    def evaluated(self, line: dict[str, Any], identity: str) -> None:
        score = line.get(self._metric.name)
        if line["split"] == "test" and score is not None:
            self._scored_at = line["step"]
            self._score = f"  test {self._metric.told(score)} at step {line['step']:,}"

    def round_finished(self, branch: str | None, row: dict[str, Any]) -> None:
        self._progress.update(self._rounds, advance=1, note=_scores(row, self._metric))

    def message(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)
