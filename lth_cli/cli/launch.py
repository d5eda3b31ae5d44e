"""Running one point or every point of a sweep, once everything typed has been checked."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lth_cli.cli.progress import make_observer
from lth_cli.cli.signals import Signals
from lth_cli.config import compose
from lth_cli.config.compose import Point
from lth_cli.config.errors import ConfigError, LthError, RequestError
from lth_cli.config.schema import Config
from lth_cli.config.steps import Duration
from lth_cli.experiments import imp
from lth_cli.experiments.rewind import rewind_task
from lth_cli.experiments.session import Task, find_existing, open_session
from lth_cli.report import show
from lth_cli.store.runs import Run
from lth_cli.training.engine import Interrupted

TASKS: dict[str, Callable[[Config], Task]] = {"train": imp.train_task, "prune": imp.prune_task}
# Keys that a command does not use; naming one is a misunderstanding worth stopping for.
_UNUSED = {
    "train": ("pruning", "rewind", "controls", "control", "rounds"),
    "prune": ("control", "rounds"),
    "rewind": ("pruning", "controls", "pretrain"),
}
_INSTEAD = {
    "train": "lth prune uses it",
    "prune": "write controls.kinds= and controls.rounds=, or pruning.rounds= for how many there are",
    "rewind": "it belongs to the run whose masks are retrained; write control= and rounds=",
}
# Keys that say where or how, not what: they make no part of a run's name.
_UNNAMED = ("name", "runs_dir", "device", "threads", "data", "checkpoint", "evaluation")


def launch(
    kind: str,
    primary: str,
    overrides: Sequence[str],
    *,
    source: Run | None = None,
    config_dir: Path | None = None,
    multirun: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Run what was asked and show the result.

    Args:
        kind: the command.
        primary: name of its primary config.
        overrides: what the person typed.
        source: the run whose config and masks are taken, by `lth rewind`.
        config_dir: the person's own config folder.
        multirun: run every combination of the swept values.
        quiet: show only the result.
        as_json: show it as JSON.

    Raises:
        RequestError: before anything is created, when any point is wrong.
        LthError: when a run fails; in a sweep, after all the other points.
    """
    overrides = compose.quote_rounds(overrides)
    _refuse_unused(kind, overrides)
    points = make_points(primary, overrides, config_dir, multirun, source)
    names = _names(kind if source is None else f"{kind}-{source.name}", points)
    make_task = TASKS[kind] if source is None else functools.partial(rewind_task, run=source)
    if len({point.config.rewind.to for point in points}) > 1 or (source is not None and len(points) > 1):
        for point in points:  # a step beyond the horizon in the last one is told before the first one trains
            make_task(point.config)
    points = _share_rewind_points(points)
    runs: list[Run] = []
    failures: list[str] = []
    with Signals() as signals:
        for point, name in zip(points, names, strict=True):
            try:
                runs.append(_run_point(kind, make_task, point, name, source, signals, quiet or as_json))
            except (Interrupted, ConfigError):
                raise
            except LthError as error:
                if len(points) == 1:
                    raise
                failures.append(f"{name}: {error}")
                sys.stderr.write(f"lth: {name}: {error}\n")
    if as_json:
        results = [show.as_json(run) for run in runs]
        sys.stdout.write(json.dumps(results if multirun else results[0], indent=2) + "\n")
    elif runs:
        show.print_result(runs)
    if failures:
        raise LthError(f"{len(failures)} of {len(points)} points failed:\n" + "\n".join(failures))
    if signals.received:  # too late to stop anything, and still what ended a script around this command
        sys.exit(signals.exit_code)


def _run_point(
    kind: str,
    make_task: Callable[[Config], Task],
    point: Point,
    name: str,
    source: Run | None,
    signals: Signals,
    quiet: bool,
) -> Run:
    existing = find_existing(point.config, kind, name, None if source is None else source.info["id"])
    if existing is not None and existing.info["state"] == "finished":
        sys.stderr.write(
            f"lth: {name} is finished already; delete it or give another name= to run it again\n"
        )
        return existing
    config = point.config
    if existing is not None:
        # Another number of threads would give other bytes: what the run began with is used to its end.
        config = config.model_copy(update={key: existing.config[key] for key in ("device", "threads")})
    task = make_task(config)
    with (
        make_observer(task.trainings, name, quiet) as observer,
        open_session(task, name, observer, signals.stop) as session,
        signals.working(session),
    ):
        task.program(session)
        show.draw_figures(session.run)
    return session.run


def make_points(
    primary: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    multirun: bool,
    source: Run | None = None,
) -> list[Point]:
    """Every point composed and validated; all mistakes of all points in one error."""
    load = functools.partial(compose.load, primary)
    if source is not None:
        load = functools.partial(compose.load_over, primary, source.config)
    combinations = compose.expand(overrides) if multirun else [tuple(overrides)]
    points, problems = [], []
    for combination in combinations:
        try:
            points.append(load(combination, config_dir))
        except ConfigError as error:
            if not multirun:
                raise
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError(*problems)
    return points


def _share_rewind_points(points: list[Point]) -> list[Point]:
    """Points of a sweep that differ in where they rewind to: the first to train keeps the states of all of them."""

    def alike(point: Point) -> str:
        other = ("rewind", "control", "controls", "rounds", "pruning", "name", "checkpoint")
        values = {k: v for k, v in point.config.model_dump(mode="json").items() if k not in other}
        return json.dumps(values, sort_keys=True)

    wanted: dict[str, list[Duration]] = {}
    for point in points:
        wanted.setdefault(alike(point), []).append(point.config.rewind.to)
    shared = []
    for point in points:
        checkpoint = point.config.checkpoint
        keep = list(dict.fromkeys([*checkpoint.keep, *wanted[alike(point)]]))
        if len(wanted[alike(point)]) > 1:
            checkpoint = checkpoint.model_copy(update={"keep": keep})
        config = point.config.model_copy(update={"checkpoint": checkpoint})
        shared.append(dataclasses.replace(point, config=config))
    return shared


def _refuse_unused(kind: str, overrides: Sequence[str]) -> None:
    unused = _UNUSED[kind]
    wrong = [text for text in overrides if re.split(r"[.=@]", text.lstrip("+~"), maxsplit=1)[0] in unused]
    if wrong:
        raise ConfigError(*((text, f"has no effect on lth {kind}; {_INSTEAD[kind]}") for text in wrong))


def _names(kind: str, points: Sequence[Point]) -> list[str]:
    """A folder name for every point: the one given, extended by what differs between points, or one made up."""
    names = []
    for point in points:
        given = point.config.name
        swept = [o for o in point.overrides if not all(o in other.overrides for other in points)]
        parts = [given, *map(_slug, swept)] if given else [kind, *map(_slug, _named(point.overrides))]
        name = "-".join(part for part in parts if part)
        if len(name) > 100:
            name = f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
        names.append(name)
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise RequestError(
            f"several points would be the run {sorted(twice)[0]!r}: they differ in nothing that names them"
        )
    return names


def _named(overrides: Sequence[str]) -> list[str]:
    return [o for o in overrides if re.split(r"[.=@]", o.lstrip("+~"), maxsplit=1)[0] not in _UNNAMED]


def _slug(override: str) -> str:
    """`rewind.to=500it` becomes `to_500it`; `experiment=frankle_lenet` becomes `frankle_lenet`."""
    key, _, value = override.lstrip("+~").partition("=")
    short = key.split("@")[0].replace("/", ".").split(".")[-1]
    text = value if short == "experiment" else f"{short}_{value}"
    return re.sub(r"[^A-Za-z0-9._+]+", "_", text).strip("_")
