"""Deleting runs and giving them other names: at once or not at all, and never while somebody works on them."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from lth_cli.config.errors import RequestError
from lth_cli.store.dependents import busy
from lth_cli.store.files import TEMPORARY, entries, remove_tree, sync_folder, temporary, writing
from lth_cli.store.runs import Run, RunExists, check_name

_REMOVED = f"{TEMPORARY}removed-"


def in_place(run: Run) -> Run:
    """A run by the whole path of its folder. Raises RequestError where a link stands in its place."""
    if run.path.is_symlink():
        raise RequestError(f"{run.path} is a link to {run.path.resolve()}; name that, or delete the link")
    return Run(run.path.resolve())


def remove_run(run: Run) -> None:
    """Delete a run. It is gone by one rename, whatever happens while its files are deleted afterwards.

    States that the shared store has too stay there until `lth gc`.

    Raises:
        Locked, RequestError: somebody works on it or on an analysis in it.
        WriteFailed: it cannot be deleted.
    """
    aside = run.path.with_name(f"{_REMOVED}{temporary(run.path).name.removeprefix(TEMPORARY)}")
    with run.lock().acquire():
        _refuse_analyses(run)
        with writing(run.path):
            run.path.rename(aside)
            sync_folder(run.path.parent)
    with writing(aside):
        remove_tree(aside)


def rename_run(run: Run, name: str) -> Run:
    """Give a run another name in its folder of runs.

    Raises:
        RequestError: the name is none that a run can have; RunExists: or there already.
        Locked: somebody works on it.
        WriteFailed: it cannot be renamed.
    """
    target = run.path.with_name(check_name(name))
    with run.lock().acquire() as held:
        _refuse_analyses(run)
        if target.exists() or target.is_symlink():
            raise RunExists(target)
        with writing(target):
            try:
                run.path.rename(target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise RunExists(target) from error
                raise
            sync_folder(target.parent)
        held.path = target / held.path.name  # it moved along
        renamed = Run(target)
        renamed.update(name=name)
    return renamed


def sweep_removed(runs_dir: Path) -> None:
    """Delete what killed deletions left of runs that are gone."""
    for path in entries(runs_dir):
        if path.name.startswith(_REMOVED):
            with contextlib.suppress(OSError):
                remove_tree(path)


def _refuse_analyses(run: Run) -> None:
    """Refuse a run in which an analysis is at work; its own lock is held by us."""
    if told := busy(run, analyses_alone=True):
        raise RequestError(told)
