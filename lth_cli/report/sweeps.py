"""What is true of the points of a sweep now, read from their runs, and the table of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lth_cli.config.errors import LthError
from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.report.layout import Column, print_table
from lth_cli.store.runs import Run
from lth_cli.store.sweeps import Sweep, SweepPoint

# Slurm's words for a job that will go on, that goes on, and that was called off; any other end is a failure.
_QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED", "RESV_DEL_HOLD"}
_RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED"}
_STATES = ("finished", "running", "queued", "waiting", "interrupted", "cancelled", "failed", "not started")
ACTIVE = ("running", "queued")
_MOST_SWEPT_COLUMNS = 4


@dataclass(frozen=True)
class PointStatus:
    """A point and how far it is.

    Attributes:
        point: the point.
        state: one of finished, running, queued (on the cluster), waiting (for a worker), interrupted, cancelled,
            failed, not started.
        trained: rounds and controls done, of `point.trainings`.
        score: headline metric of the last round on the test examples; None before the first.
        metric: that; None without a run.
        error: why it failed; None otherwise.
        path: of its run.
    """

    point: SweepPoint
    state: str
    trained: int
    score: float | None
    metric: Metric | None
    error: str | None
    path: Path

    @property
    def told(self) -> str:
        """The score as people read it, with its unit; empty before the first round."""
        return "" if self.score is None or self.metric is None else self.metric.told(self.score)

    def row(self, metrics: Iterable[Metric]) -> dict[str, Any]:
        """The row of points.csv, with a column for each headline metric of the sweep; None is an empty field."""
        scores = {f"test_{one.name}": self.score if one == self.metric else None for one in metrics}
        return {
            "index": self.point.index,
            "overrides": " ".join(self.point.overrides),
            "run": self.point.run,
            "state": self.state,
            "trained": self.trained,
            "trainings": self.point.trainings,
            **scores,
            "error": self.error or "",
            "job": self.point.job or "",
            "path": str(self.path),
        }


def headlines(known: Iterable[PointStatus]) -> list[Metric]:
    """The headline metrics of the points of a sweep that have a run, each once."""
    return list(dict.fromkeys(one.metric for one in known if one.metric is not None)) or [ACCURACY]


def status(sweep: Sweep, cluster: Mapping[str, str] | None = None) -> list[PointStatus]:
    """How far every point is, from what its run says of itself, its worker noted, and the cluster says of its job.

    Args:
        sweep: which.
        cluster: Slurm's state of each job that it still knows; None when it was not asked or does not answer.

    Raises:
        Damaged, ReadFailed: sweep.json cannot be read. A damaged run is shown as failed.
    """
    info = sweep.info
    launching = sweep.launching
    found = []
    for plain in info["points"]:
        point = SweepPoint(**plain)
        try:
            found.append(_status(sweep, point, bool(info["cancelled"]), launching, cluster))
        except LthError as error:
            path = sweep.runs_dir / point.run
            found.append(PointStatus(point, "failed", 0, None, None, str(error), path))
    return found


def _status(
    sweep: Sweep, point: SweepPoint, cancelled: bool, launching: bool, cluster: Mapping[str, str] | None
) -> PointStatus:
    path = sweep.runs_dir / point.run
    run = Run.open(path) if (path / "run.json").is_file() else None
    noted = sweep.noted(point.index)
    state, error = _of_run(run, noted, launching)
    if point.job is not None and cluster is not None:
        state, error = _of_job(cluster.get(point.job), state, error)
    if cancelled and state in ("interrupted", "not started"):
        state = "cancelled"
    trained, score, metric = (0, None, None) if run is None else _progress(run)
    return PointStatus(point, state, trained, score, metric, error if state == "failed" else None, path)


def _of_run(run: Run | None, noted: dict[str, Any], launching: bool) -> tuple[str, str | None]:
    """State and error without a cluster. A run that works or is done is believed before any note."""
    present = None if run is None else run.effective_state
    if present in ("finished", "running"):
        return present, None
    if noted.get("state") == "failed":
        return "failed", noted.get("error")
    if run is not None:
        return str(present), run.info.get("error")
    if noted.get("state") == "running":
        return ("running" if launching else "interrupted"), None
    if noted.get("state") == "interrupted":
        return "interrupted", None
    return ("waiting" if launching else "not started"), None


def _of_job(job: str | None, state: str, error: str | None) -> tuple[str, str | None]:
    """What the cluster's word changes; None is a job that it has forgotten."""
    if state == "finished":
        return state, None
    if job in _QUEUED:
        return "queued", None
    if job in _RUNNING:
        return "running", None
    if job == "CANCELLED":
        return "cancelled", None
    if job is None or job in ("COMPLETED", "PREEMPTED"):
        return ("interrupted" if state == "running" else state), error
    return "failed", error if state == "failed" else f"the job ended as {job}"


def _progress(run: Run) -> tuple[int, float | None, Metric]:
    rows, metric = run.results(), run.headline
    trained = len(rows) + sum(len(run.results(branch)) for branch in run.branches())
    return trained, rows[-1].get(f"test_{metric.name}") if rows else None, metric


def update_table(sweep: Sweep, cluster: Mapping[str, str] | None = None) -> None:
    """Bring points.csv up to date. Raises WriteFailed, Damaged, ReadFailed."""
    with sweep.table_lock().acquire(wait=True):
        known = status(sweep, cluster)
        metrics = headlines(known)
        sweep.write_table([one.row(metrics) for one in known])


def print_sweep(sweep: Sweep, known: Sequence[PointStatus], summary_alone: bool = False) -> None:
    """The table of points, how many are in which state, and why points failed.

    Args:
        sweep: which.
        known: its points.
        summary_alone: without the table, where the results have been shown already.
    """
    console = Console()
    info = sweep.info
    if not summary_alone:
        print_table(_columns(known), console=console)
    counts = Counter(one.state for one in known)
    summary = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    console.print(f"{len(known)} point{'s' * (len(known) > 1)}: {summary}", highlight=False)
    for one in known:
        if one.state == "failed":
            log = sweep.log_path(one.point.index)
            console.print(f"  {one.point.index} {one.point.run} failed: {one.error}", **_PLAIN)
            if log.exists():
                console.print(f"    log: {log}", **_PLAIN)
    console.print(f"Sweep {sweep.name} ({info['launcher']['kind']}): more in {sweep.table_path}", **_PLAIN)


_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def _columns(known: Sequence[PointStatus]) -> list[Column]:
    metrics = headlines(known)
    shared = metrics[0] if len(metrics) == 1 else None
    typed = [dict(text.lstrip("+").partition("=")[::2] for text in one.point.overrides) for one in known]
    scores = [one.told if shared is None or one.score is None else shared.number(one.score) for one in known]
    return [
        Column("point", [str(one.point.index) for one in known]),
        *(Column(key, [values.get(key, "") for values in typed], right=False) for key in _swept(known)),
        Column("state", [one.state for one in known], right=False),
        Column("rounds", [f"{one.trained}/{one.point.trainings}" for one in known]),
        Column("test" if shared is None else f"test {shared.axis}", scores),
        Column("run", [one.point.run for one in known], right=False, dispensable=1),
    ]


def _swept(known: Sequence[PointStatus]) -> list[str]:
    """Keys that differ between points, as far as they fit beside the rest."""
    first = known[0].point.overrides
    differing = [text for text in first if any(text not in one.point.overrides for one in known)]
    return [text.lstrip("+").partition("=")[0] for text in differing][:_MOST_SWEPT_COLUMNS]


def as_json(sweep: Sweep, known: Sequence[PointStatus]) -> dict[str, Any]:
    """Everything `lth ls --sweep` tells, as plain values."""
    info = {key: value for key, value in sweep.info.items() if key != "points"}
    metrics = headlines(known)
    points = [{**one.row(metrics), "error": one.error} for one in known]
    return {**info, "path": str(sweep.path), "points": points}
