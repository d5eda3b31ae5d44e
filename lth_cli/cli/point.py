"""Running one config, or going on with it: what a command, a sweep and its workers have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lth_cli.cli.progress import make_observer
from lth_cli.cli.signals import Signals
from lth_cli.config.schema import Config
from lth_cli.experiments import imp
from lth_cli.experiments.kept_data import with_kept_data
from lth_cli.experiments.loggers import check_loggers, with_loggers
from lth_cli.experiments.rewind import rewind_task
from lth_cli.experiments.session import Task, find_existing, open_session
from lth_cli.report import show
from lth_cli.store.runs import Run

TASKS: dict[str, Callable[[Config, Run | None], Task]] = {"train": imp.train_task, "prune": imp.prune_task}


def run_point(kind: str, config: Config, name: str, source: Run | None, signals: Signals, quiet: bool) -> Run:
    """Run one config, or go on with it; a finished run is left as it is.

    Raises:
        RequestError: it does not fit its data or model, or another experiment has its name.
        LthError: it fails.
    """
    existing = find_existing(config, kind, name, None if source is None else source.info["id"])
    if existing is not None and existing.info["state"] == "finished":
        sys.stderr.write(
            f"lth: {name} is finished already; delete it or give another name= to run it again\n"
        )
        return existing
    if existing is not None:
        # Another number of threads would give other bytes: what the run began with is used to its end.
        config = config.model_copy(update={key: existing.config[key] for key in ("device", "threads")})
        config = with_kept_data(config, existing)
    check_loggers(config.loggers)
    task = make_task(kind, config, source, existing)
    with (
        make_observer(task.trainings, name, quiet) as shown,
        with_loggers(config.loggers, shown) as observer,
        open_session(task, name, observer, signals.stop) as session,
        signals.working(session),
    ):
        task.program(session)
        show.draw_figures(session.run)
    return session.run


def make_task(kind: str, config: Config, source: Run | None, run: Run | None = None) -> Task:
    """What a command does with a config, checked. Raises RequestError when it does not fit its data or model.

    Args:
        kind: the command.
        config: validated.
        source: the run whose masks are retrained.
        run: the one that is gone on with.
    """
    return TASKS[kind](config, run) if source is None else rewind_task(config, source, run)
