"""Run directories: created whole, opened without running anything, found by name or path."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import errno
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.errors import LthError, RequestError
from lth_cli.config.metrics import Metric, noted
from lth_cli.store.files import (
    TEMPORARY,
    Damaged,
    make_folder,
    read_json,
    read_sealed,
    remove_leftovers,
    remove_tree,
    sha256_file,
    sync_folder,
    temporary,
    write_json,
    write_sealed,
    writing,
)
from lth_cli.store.formats import check_format
from lth_cli.store.holder import Holder, Life
from lth_cli.store.locks import Lock
from lth_cli.store.results import Row, read_table, write_table
from lth_cli.store.rounds import Round
from lth_cli.store.yamls import read_yaml, write_yaml

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,+-]{0,119}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RUN_FILE = "run.json"
USES = ".uses"
ANALYSES = "analysis"
LOGGERS = "loggers"
"""Folder of what loggers keep of a run; none of its content."""


class RunExists(RequestError):
    """A run of that name is there already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} exists already; choose another name= or continue that run")


@dataclass(frozen=True)
class Run:
    """The directory of one run. Whoever writes holds `lock()`; reading needs none."""

    path: Path

    @classmethod
    def create(cls, runs_dir: Path, name: str, config: dict[str, Any], info: dict[str, Any]) -> Run:
        """Make a run directory; it appears whole or not at all.

        Args:
            runs_dir: folder of runs, made when missing.
            name: of the run and its folder.
            config: the resolved config, plain values.
            info: kind, command, versions, hardware, git_commit, seeds; `id`, `format`, `name`, `state`
                (running), `created`, `finished` and `error` are filled in where missing.

        Raises:
            RunExists: the folder is there and not empty.
            RequestError: the name is not one a run can have.
            ValueError: config or info are not plain values.
            WriteFailed: it cannot be written.
        """
        path = runs_dir / check_name(name)
        make_folder(runs_dir)
        partial = temporary(path)
        try:
            make_folder(partial / "figures")
            write_yaml(partial / "config.yaml", config)
            filled = {
                "id": uuid.uuid4().hex,
                "format": FORMAT,
                "name": name,
                "state": "running",
                "created": now(),
            }
            files = {"config.yaml": sha256_file(partial / "config.yaml")}
            write_sealed(
                partial / _RUN_FILE, {**filled, "finished": None, "error": None, **info, "files": files}
            )
            with writing(path):
                _rename_new(partial, path)
                sync_folder(runs_dir)
        finally:
            with contextlib.suppress(OSError):  # gone already when all went well
                remove_tree(partial)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open a run directory, wherever it lies.

        Raises:
            RequestError: there is no run.
            NewerFormat: a newer release made it.
            Damaged, ReadFailed: its run.json is not what was written.
        """
        if not (path / _RUN_FILE).is_file():
            raise RequestError(f"{path} is not a run: it has no {_RUN_FILE}")
        run = cls(path)
        info = run.info
        if type(info.get("format")) is not int or not isinstance(info.get("id"), str):
            raise Damaged(path / _RUN_FILE, "it has no format and id")
        return run

    @property
    def name(self) -> str:
        """The name of the folder, which a copy may have changed."""
        return self.path.name

    @property
    def info(self) -> dict[str, Any]:
        """What run.json says now. Raises Damaged, ReadFailed."""
        return read_sealed(self.path / _RUN_FILE, FORMAT)

    @property
    def config(self) -> dict[str, Any]:
        """The stored config, plain values and unchecked. Raises Damaged, ReadFailed."""
        return read_yaml(self.path / "config.yaml")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is measured of its rounds; the first is the headline. Raises Damaged, ReadFailed."""
        return noted(self.info)

    @property
    def headline(self) -> Metric:
        """The metric by which its rounds are compared and the best is chosen. Raises Damaged, ReadFailed."""
        return self.metrics[0]

    def update(self, **fields: Any) -> None:
        """Change fields of run.json, atomically; hold the lock. Raises WriteFailed, Damaged, ReadFailed."""
        write_sealed(self.path / _RUN_FILE, {**self.info, **fields})

    @property
    def effective_state(self) -> str:
        """The recorded state, but `interrupted` when it says running and nobody can be running it.

        A holder on another machine counts as running: only its heartbeats, watched for a while, would tell.

        Raises:
            Damaged, ReadFailed.
        """
        state = str(self.info.get("state"))
        if state != "running":
            return state
        holder = self.lock().holder
        gone = holder is None or holder.life is Life.DEAD or holder.rebooted
        return "interrupted" if gone else "running"

    @property
    def holder(self) -> Holder | None:
        """Who holds the run, dead or alive. Raises ReadFailed, Damaged."""
        return self.lock().holder

    def lock(self) -> Lock:
        """The lock of the run's writer, not acquired yet."""
        return Lock(self.path / ".lock", f"run {self.name}")

    def branches(self) -> list[str]:
        """Kinds of controls the run has."""
        folder = self.path / "controls"
        found = folder.iterdir() if folder.is_dir() else iter(())
        return sorted(path.name for path in found if path.is_dir() and _BRANCH.fullmatch(path.name))

    def rounds(self, branch: str | None = None) -> list[Round]:
        """Rounds that have a folder, finished or not: of the run, or of one kind of controls."""
        return Round.all_within(self._folder(branch))

    def round(self, number: int, branch: str | None = None) -> Round:
        """Round `number`, there or not yet. Raises ValueError for a negative number or an odd branch."""
        if number < 0:
            raise ValueError(f"round {number} is negative")
        return Round.within(self._folder(branch), number)

    def origin(self, number: int) -> Round:
        """Training `number` of those that the rounds start from: pre-training, the dense training of a source."""
        return Round.within(self.path / "origin", number)

    def origins(self) -> list[Round]:
        """The trainings that the rounds start from and that are no rounds themselves, oldest first."""
        return Round.all_within(self.path / "origin")

    def every_round(self) -> Iterator[Round]:
        """Every round folder: of the run, its controls, its teachers and what its rounds start from."""
        yield from self.origins()
        yield from self.teachers()
        for branch in (None, *self.branches()):
            yield from self.rounds(branch)

    def refuse_newer(self) -> None:
        """Raise NewerFormat where a newer release wrote any file of the run: who goes on with it asks first."""
        self.info  # noqa: B018 - read for its format
        self.uses()
        for round_ in self.every_round():
            round_.refuse_newer()

    def teacher(self, number: int) -> Round:
        """The folder that keeps the state of teacher `number`."""
        return Round.within(self.path / "teachers", number)

    def teachers(self) -> list[Round]:
        """The folders of the teachers of all rounds."""
        return Round.all_within(self.path / "teachers")

    def uses(self) -> list[str]:
        """Identities of the trajectories that the run worked with and has not finished with."""
        path = self.path / USES
        try:
            return read_uses(path) if path.exists() else []
        except Damaged:
            return []

    def write_uses(self, identities: Iterable[str]) -> None:
        """Replace that list; hold the lock. Raises WriteFailed."""
        path, found = self.path / USES, sorted(identities)
        if found:
            write_json(path, found)
        else:
            with writing(path):
                path.unlink(missing_ok=True)

    def write_results(self, rows: list[Row], branch: str | None = None) -> None:
        """Write results.csv whole, and its checksum to run.json; hold the lock.

        Raises:
            ValueError: a value is not a finite number or None.
            WriteFailed, Damaged, ReadFailed.
        """
        path = self.results_path(branch)
        make_folder(path.parent)
        write_table(path, rows)
        files = {**self.info.get("files", {}), path.relative_to(self.path).as_posix(): sha256_file(path)}
        self.update(files=files)

    def results(self, branch: str | None = None) -> list[Row]:
        """The rows of results.csv, [] before the first. Raises Damaged, ReadFailed."""
        path = self.results_path(branch)
        return read_table(path) if path.exists() else []

    def results_path(self, branch: str | None = None) -> Path:
        """Where the results of the run, or of one kind of controls, lie."""
        return self._folder(branch) / "results.csv"

    def clear_leftovers(self) -> None:
        """Delete what killed writers left in the run; hold the lock. Raises WriteFailed.

        Analyses have locks of their own: one may be at work in the run now.
        """
        remove_leftovers(self.path, but=ANALYSES)

    def _folder(self, branch: str | None) -> Path:
        if branch is None:
            return self.path
        if _BRANCH.fullmatch(branch) is None:
            raise ValueError(f"{branch!r} is not a kind of controls")
        return self.path / "controls" / branch


def read_uses(path: Path) -> list[str]:
    """The identities in a `.uses` file. Raises Damaged, ReadFailed, NewerFormat."""
    content = read_json(path)
    if isinstance(content, dict):  # what has more to say than a list is of a newer release
        check_format(path, content, newest=1)
    if not isinstance(content, list):
        raise Damaged(path, "not a list of identities")
    return [str(identity) for identity in content]


def now() -> str:
    """The time, UTC, as run.json keeps it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def check_name(name: str) -> str:
    """The name itself, if a run can have it. Raises RequestError."""
    if _NAME.fullmatch(name) is None:
        raise RequestError(
            f"{name!r} cannot name a run: up to 120 letters, digits and . _ , + -, not starting with a sign"
        )
    return name


def list_runs(runs_dir: Path) -> tuple[list[Run], list[LthError]]:
    """Every run in a folder by name, and what is wrong with those that cannot be opened."""
    runs: list[Run] = []
    faults: list[LthError] = []
    found = sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []
    for path in found:
        if not path.name.startswith(TEMPORARY) and (path / _RUN_FILE).is_file():
            try:
                runs.append(Run.open(path))
            except LthError as error:
                faults.append(error)
    return runs, faults


def find_run(runs_dir: Path, name_or_path: str) -> Run:
    """The run of a name in a folder of runs, or at a path.

    Raises:
        RequestError: there is none; names close ones.
        Damaged, ReadFailed: it is there and cannot be opened.
    """
    if _NAME.fullmatch(name_or_path) and (runs_dir / name_or_path / _RUN_FILE).is_file():
        return Run.open(runs_dir / name_or_path)
    if name_or_path and "\0" not in name_or_path and (Path(name_or_path) / _RUN_FILE).is_file():
        return Run.open(Path(name_or_path))
    names = [run.name for run in list_runs(runs_dir)[0]]
    close = difflib.get_close_matches(name_or_path, names, n=3) or names[:5]
    hint = f"there are: {', '.join(close)}" if close else "it has no runs"
    raise RequestError(f"no run {name_or_path!r} in {runs_dir}, and no such path; {hint}")


def _rename_new(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)  # over an empty folder at most
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise RunExists(path) from error
        raise
