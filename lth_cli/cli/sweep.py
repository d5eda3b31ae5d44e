"""A sweep: every point checked before the first starts, then launched, watched, and told about at the end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lth_cli.cli.point import make_task
from lth_cli.cli.signals import Signals
from lth_cli.cli.worker import ClusterPoint, run_stored_point
from lth_cli.config.compose import Point
from lth_cli.config.errors import ConfigError, LthError, RequestError
from lth_cli.config.launching import Launcher
from lth_cli.config.points import share_rewind_points
from lth_cli.config.schema import Config
from lth_cli.experiments.kept_data import with_kept_data
from lth_cli.experiments.plan import make_plan
from lth_cli.experiments.session import find_existing
from lth_cli.launchers import local, slurm
from lth_cli.report import show
from lth_cli.report.sweeps import ACTIVE, PointStatus, print_sweep, status, update_table
from lth_cli.store.files import canonical
from lth_cli.store.runs import Run
from lth_cli.store.sweeps import Sweep, SweepPoint, folder_of
from lth_cli.training import precision
from lth_cli.training.engine import Interrupted

# What cannot make a point that passes the schema unfit for its data, model or machine.
_NEVER_UNFIT: Any = {
    "name": True,
    "runs_dir": True,
    "seed": True,
    "seeds": {"init", "order", "augment", "mask"},
    "threads": True,
    "checkpoint": {"every"},
    "optimizer": {"lr"},
    "pruning": {"fraction", "density"},
}
# What the points of a dense training may differ in.
_AFTER_DENSE = {
    *("name", "runs_dir", "data", "pruning", "rewind", "controls", "control", "rounds"),
    *("checkpoint", "evaluation", "until"),
}
_MOST_SHOWN_RUNS = 12
_WATCH_SECONDS = 5.0


@dataclass(frozen=True)
class _Request:
    """A sweep as it was asked for, checked.

    Attributes:
        kind: the command.
        name: of the sweep.
        source: the run whose masks `lth rewind` retrains.
        launcher: that of all points.
        runs_dir: that of all points.
        points: in order, threads settled.
    """

    kind: str
    name: str
    source: Run | None
    launcher: Launcher
    runs_dir: Path
    points: list[SweepPoint]


def run_sweep(
    kind: str,
    name: str,
    points: Sequence[Point],
    names: Sequence[str],
    source: Run | None,
    *,
    quiet: bool,
    as_json: bool,
    shown: bool = True,
) -> None:
    """Run every point that is not finished yet, and show how all of them ended.

    Args:
        kind: the command.
        name: of the sweep.
        points: composed and validated, of one launcher and one folder of runs.
        names: of their runs.
        source: the run whose masks `lth rewind` retrains.
        quiet: print no progress.
        as_json: print the runs as JSON instead of tables.
        shown: print tables at the end; a study shows its own.

    Raises:
        RequestError: before anything is created or launched, with the mistakes of all points.
        LthError: at the end, when points failed.
    """
    request = _check(kind, name, points, names, source)
    path = folder_of(request.runs_dir, request.name)
    with Sweep(path).lock().acquire():
        jobs = _active_jobs(path, request.points)
        sweep = Sweep.write(
            request.runs_dir,
            request.name,
            [_with_job(point, jobs) for point in request.points],
            kind=kind,
            command=["lth", *sys.argv[1:]],
            launcher=request.launcher.model_dump(mode="json"),
            source=None if source is None else source.path,
        )
        known = _status(sweep)
        left = [one.point for one in known if one.state not in ("finished", *ACTIVE)]
        reporter = _Reporter(sweep, quiet or as_json)
        reporter.say(_beginning(known, request.launcher))
        try:
            if left:
                _LAUNCH[request.launcher.kind](request, sweep, left, reporter)
        finally:
            reporter.refresh()
    if request.launcher.kind == "slurm" and request.launcher.wait:
        _wait(sweep, reporter)
    leaving = request.launcher.kind == "slurm" and not request.launcher.wait
    if shown:
        _show(sweep, as_json, leaving)
    _refuse_unfinished(sweep, as_json, leaving)


def _check(
    kind: str, name: str, points: Sequence[Point], names: Sequence[str], source: Run | None
) -> _Request:
    """Everything that can be wrong, looked for before anything is made."""
    launcher, runs_dir = points[0].config.launcher, Path(points[0].config.runs_dir)
    if launcher.kind == "slurm":
        slurm.check()
    began_with = _threads_before(folder_of(runs_dir, name))
    checker = Checker(kind, launcher, source)
    problems: list[tuple[str, str]] = []
    found: list[SweepPoint] = []
    shared = share_rewind_points(points)
    for index, (point, run) in enumerate(zip(points, names, strict=True)):
        try:
            existing = find_existing(point.config, kind, run, None if source is None else source.info["id"])
            here = point.config if existing is None else with_kept_data(point.config, existing)
            trainings = checker.trainings(here, existing)
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
        except RequestError as error:
            problems.append(("", str(error)))
        else:
            config = _settled(shared[index].config, launcher, existing, began_with)
            plain = config.model_dump(mode="json", exclude={"launcher"})
            found.append(SweepPoint(index, list(point.overrides), run, trainings, plain))
    if problems:
        raise ConfigError(*problems)
    return _Request(kind, name, source, launcher, runs_dir, found)


class Checker:
    """Tries each combination of data, model and steps once, however many points share it."""

    def __init__(self, kind: str, launcher: Launcher, source: Run | None) -> None:
        self._kind, self._launcher, self._source = kind, launcher, source
        self._known: dict[str, int | RequestError] = {}

    def trainings(self, config: Config, run: Run | None) -> int:
        """Rounds and controls that a point trains, or goes on with. Raises RequestError when it does not fit."""
        plain = config.model_dump(mode="json", exclude=_NEVER_UNFIT)
        own = None if run is None else run.info.get("teachers")  # what they are taken from may be gone
        key = canonical([plain, own])
        if key not in self._known:
            try:
                self._known[key] = self._try(config, run)
            except RequestError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, RequestError):
            raise known
        return known

    def _try(self, config: Config, run: Run | None) -> int:
        if self._source is not None and self._launcher.kind == "slurm":
            # Whether its dense training can be repeated depends on the device, which may not be here.
            make_plan(self._here(config))
            return len(self._source.rounds())
        return make_task(self._kind, self._here(config), self._source, run).trainings

    def _here(self, config: Config) -> Config:
        """The config as this process can try it: what other processes or machines will do needs no GPU of ours."""
        if self._launcher.kind == "serial" or (self._source is not None and self._launcher.kind == "local"):
            return config
        if self._launcher.kind == "local":
            device = precision.resolve(config).device
            _check_gpus(config, self._launcher, device.type)
        number_format = "fp32" if config.precision.dtype == "tf32" else config.precision.dtype
        return config.model_copy(
            update={
                "device": "cpu",
                "precision": config.precision.model_copy(update={"dtype": number_format}),
            }
        )


def _check_gpus(config: Config, launcher: Launcher, device: str) -> None:
    import torch

    if not isinstance(launcher.gpus, list):
        return
    here = torch.cuda.device_count() if device == "cuda" else 0
    if config.device not in ("auto", "cuda"):
        raise ConfigError(
            ("device", f"{config.device!r} and launcher.gpus exclude each other; accepted: cuda")
        )
    if missing := [gpu for gpu in launcher.gpus if gpu >= here]:
        raise ConfigError(("launcher.gpus", f"there is no GPU {missing[0]}; this machine has {here}"))


def _threads_before(path: Path) -> int | None:
    """The threads that the sweep began with: points added later share its trajectories only with as many."""
    if not (path / "sweep.json").is_file():
        return None
    points = Sweep.open(path).points()
    return int(points[0].config["threads"]) if points else None


def _settled(config: Config, launcher: Launcher, existing: Run | None, began_with: int | None) -> Config:
    """The config with its number of threads, which is part of a run's identity, written down."""
    if existing is not None:  # another number would give other bytes: a run ends with what it began with
        stored = existing.config
        return config.model_copy(update={key: stored[key] for key in ("device", "threads")})
    if config.threads != "auto":
        return config
    if began_with is not None:
        return config.model_copy(update={"threads": began_with})
    shares = {"serial": local.share_of_cores(1), "local": local.share_of_cores(launcher.workers)}
    share = shares.get(launcher.kind, launcher.cpus)
    return config.model_copy(update={"threads": max(1, share // config.distributed.processes)})


def _active_jobs(path: Path, points: Sequence[SweepPoint]) -> dict[str, str]:
    """Jobs by run, of the sweep as it was launched before.

    Raises:
        RequestError: other points than these are still on the cluster.
    """
    if not (path / "sweep.json").is_file():
        return {}
    before = Sweep.open(path)
    jobs = {point.run: point.job for point in before.points() if point.job is not None}
    if not jobs:
        return {}
    states = slurm.job_states(jobs.values())
    if states is None:
        raise RequestError(f"sweep {before.name} has jobs on a cluster that does not answer from here")
    wanted = {point.run for point in points}
    known = status(before, states)
    strangers = [one.point.run for one in known if one.state in ACTIVE and one.point.run not in wanted]
    if strangers:
        raise RequestError(
            f"sweep {before.name} has other points on the cluster ({strangers[0]}, ...); "
            f"lth cancel {before.name}, or give another name="
        )
    return jobs


def _with_job(point: SweepPoint, jobs: dict[str, str]) -> SweepPoint:
    return SweepPoint(**{**vars(point), "job": jobs.get(point.run)})


def _status(sweep: Sweep) -> list[PointStatus]:
    return status(sweep, slurm.job_states(point.job for point in sweep.points()))


def _beginning(known: Sequence[PointStatus], launcher: Launcher) -> str:
    done = sum(one.state == "finished" for one in known)
    active = sum(one.state in ACTIVE for one in known)
    parts = [f"{len(known)} points", f"launcher {launcher.kind}"]
    parts += [f"{done} finished before"] if done else []
    parts += [f"{active} on the cluster already"] if active else []
    return ", ".join(parts)


class _Reporter:
    """Tells of points as they end, and keeps the table current."""

    def __init__(self, sweep: Sweep, quiet: bool) -> None:
        self._sweep, self.quiet = sweep, quiet
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """A line for a person."""
        if not self.quiet:
            sys.stderr.write(f"sweep: {text}\n")

    def refresh(self) -> None:
        """Bring points.csv up to date."""
        with self._lock:
            update_table(self._sweep, slurm.job_states(point.job for point in self._sweep.points()))

    def ended(self, index: int) -> None:
        """Tell how a point ended."""
        one = status(self._sweep)[index]
        score = f", test {one.told}" if one.told else ""
        reason = f": {one.error}" if one.error else ""
        self.say(f"point {index}, {one.point.run}: {one.state}{score}{reason}")


def _launch_serially(_: _Request, sweep: Sweep, left: Sequence[SweepPoint], reporter: _Reporter) -> None:
    with Signals() as signals:
        for point in left:
            try:
                run_stored_point(sweep, point.index, signals, reporter.quiet)
            except Interrupted:
                raise
            except LthError:  # noted; the other points go on
                pass
            reporter.ended(point.index)
            reporter.refresh()
    if signals.received:  # too late to stop anything, and still what ended a script around this command
        sys.exit(signals.exit_code)


def _launch_locally(request: _Request, sweep: Sweep, left: Sequence[SweepPoint], reporter: _Reporter) -> None:
    launcher = request.launcher
    dealt = launcher.gpus if isinstance(launcher.gpus, list) else None
    threads = max(int(point.config["threads"]) for point in left)
    pool = local.Pool(
        sweep,
        {point.index: _dense_training(point) for point in left},
        local.worker_command("lth_cli.cli.worker"),
        local.worker_environments(launcher.workers, threads, dealt, os.environ),
        reporter.ended,
    )
    with _stop_on_signal(pool.kill) as stop:
        pool.run(reporter.refresh, stop)


def _dense_training(point: SweepPoint) -> str:
    """What two points share that train the same dense network."""
    return canonical({key: value for key, value in point.config.items() if key not in _AFTER_DENSE})


def _launch_on_slurm(
    request: _Request, sweep: Sweep, left: Sequence[SweepPoint], reporter: _Reporter
) -> None:
    tasks: dict[int, Callable[[], None]] = {
        point.index: ClusterPoint(sweep.path.resolve(), point.index) for point in left
    }
    jobs = slurm.submit(sweep, tasks, request.launcher)
    sweep.set_jobs(jobs)
    arrays = sorted({job.partition("_")[0] for job in jobs.values()})
    reporter.say(f"{len(jobs)} points submitted as job {', '.join(arrays)}")


_LAUNCH = {"serial": _launch_serially, "local": _launch_locally, "slurm": _launch_on_slurm}


@contextmanager
def _stop_on_signal(leave_at_once: Callable[[], None]) -> Iterator[threading.Event]:
    """A first signal sets the event; the program leaves with 128 + its number. A second leaves without waiting."""
    stop = threading.Event()
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if received:
            leave_at_once()
            os._exit(128 + number)
        received.append(number)
        stop.set()
        sys.stderr.write("lth: stopping; the points that run store their states (again to leave at once)\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        sys.stderr.write("lth: stopped; the same command goes on from there\n")
        sys.exit(128 + received[0])


def _wait(sweep: Sweep, reporter: _Reporter) -> None:
    """Stay until no job is left; a signal ends the waiting alone."""
    before: dict[int, str] = {}
    try:
        while True:
            known = _status(sweep)
            for one in known:
                if before.get(one.point.index, one.state) != one.state:
                    reporter.say(f"point {one.point.index}, {one.point.run}: {one.state}")
            if not any(one.state in ACTIVE for one in known):
                break
            before = {one.point.index: one.state for one in known}
            time.sleep(_WATCH_SECONDS)
    except BaseException:
        reporter.say(
            f"the jobs go on; lth ls --sweep {sweep.name} shows them, lth cancel {sweep.name} ends them"
        )
        raise
    reporter.refresh()


def _show(sweep: Sweep, as_json: bool, leaving: bool) -> None:
    """The closing table.

    Args:
        sweep: which.
        as_json: print the finished runs as JSON instead.
        leaving: the points run on without this process.
    """
    known = _status(sweep)
    runs = [Run.open(one.path) for one in known if one.state == "finished"]
    if as_json:
        sys.stdout.write(json.dumps([show.as_json(run) for run in runs], indent=2) + "\n")
    else:
        results_shown = bool(runs) and len(runs) <= _MOST_SHOWN_RUNS and not leaving
        if results_shown:
            show.print_result(runs)
        print_sweep(sweep, known, summary_alone=results_shown and len(runs) == len(known))


def _refuse_unfinished(sweep: Sweep, as_json: bool, leaving: bool) -> None:
    """Raises LthError: points failed, or are not finished though nothing works on them any more."""
    known = _status(sweep)
    failed = [one for one in known if one.state == "failed"]
    if failed:
        reasons = [f"{one.point.run}: {one.error}" for one in failed] if as_json else []
        raise LthError("\n".join([f"{len(failed)} of {len(known)} points failed", *reasons]))
    unfinished = [one for one in known if one.state != "finished"]
    if unfinished and not leaving:
        raise LthError(f"{len(unfinished)} of {len(known)} points are not finished; the same command goes on")
