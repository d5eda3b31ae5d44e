"""Sweep folders: `runs/.sweeps/<name>/`, the points of one sweep and what their workers noted about each.

```
sweep.json       kind, command, launcher, points: overrides, run, resolved config, job on the cluster
points.csv       a row a point: overrides, state, progress, headline metric, path; for spreadsheets
points/0003.json what the last worker on point 3 noted: state, error, when, where
logs/0003.log    what it printed; logs/slurm/ is submitit's and Slurm's own
```

What is true of a point stands in its run's own run.json; the notes add what a run cannot say of itself.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.errors import LthError, RequestError
from lth_cli.store.files import (
    TEMPORARY,
    Damaged,
    make_folder,
    read_sealed,
    write_sealed,
    write_text,
    writing,
)
from lth_cli.store.holder import Life
from lth_cli.store.locks import Lock
from lth_cli.store.runs import check_name, now

FORMAT = 1
FOLDER = ".sweeps"
_FILE = "sweep.json"


@dataclass(frozen=True)
class SweepPoint:
    """One point of a sweep.

    Attributes:
        index: position in the sweep, from 0.
        overrides: what was typed, with one value for each key.
        run: name of its run.
        trainings: rounds and controls that it trains; a target density may end it earlier.
        config: resolved, plain values; what a worker runs.
        job: its last job on the cluster; None without one.
    """

    index: int
    overrides: list[str]
    run: str
    trainings: int
    config: dict[str, Any]
    job: str | None = None


@dataclass(frozen=True)
class Sweep:
    """The folder of one sweep. Whoever launches points holds `lock()`; reading needs none."""

    path: Path

    @classmethod
    def write(
        cls,
        runs_dir: Path,
        name: str,
        points: Sequence[SweepPoint],
        *,
        kind: str,
        command: list[str],
        launcher: dict[str, Any],
        source: Path | None = None,
    ) -> Sweep:
        """Make the folder, or give the one that is there these points; hold the lock of one that is there.

        Args:
            runs_dir: folder of runs.
            name: of the sweep.
            points: in order.
            kind: the command of every point.
            command: what was typed.
            launcher: the launcher's config.
            source: the run whose masks `lth rewind` retrains.

        Raises:
            WriteFailed: it cannot be written.
            RequestError: the name is not one a sweep can have.
        """
        sweep = cls(folder_of(runs_dir, name))
        make_folder(sweep.path / "points")
        make_folder(sweep.path / "logs")
        for point in points:
            if point.job is None:
                # A killed launcher may have left one, of this point or of another that had this number.
                note = sweep._note_path(point.index)
                with writing(note):
                    note.unlink(missing_ok=True)
        content = {
            "format": FORMAT,
            "name": name,
            "kind": kind,
            "command": command,
            "launcher": launcher,
            "source": None if source is None else str(source.resolve()),
            "started": now(),
            "cancelled": None,
            "points": [asdict(point) for point in points],
        }
        write_sealed(sweep.path / _FILE, content)
        return sweep

    @classmethod
    def open(cls, path: Path) -> Sweep:
        """Open a sweep folder.

        Raises:
            RequestError: there is none.
            NewerFormat: a newer release made it.
            Damaged, ReadFailed: its sweep.json is not what was written.
        """
        if not (path / _FILE).is_file():
            raise RequestError(f"{path} is not a sweep: it has no {_FILE}")
        sweep = cls(path)
        version = sweep.info.get("format")
        if type(version) is not int or not isinstance(sweep.info.get("points"), list):
            raise Damaged(path / _FILE, "it has no format and points")
        return sweep

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def runs_dir(self) -> Path:
        """The folder of runs it belongs to, wherever that lies now."""
        return self.path.parent.parent

    @property
    def info(self) -> dict[str, Any]:
        """What sweep.json says now. Raises Damaged, ReadFailed."""
        return read_sealed(self.path / _FILE, FORMAT)

    def points(self) -> list[SweepPoint]:
        """The points in order. Raises Damaged, ReadFailed."""
        return [SweepPoint(**point) for point in self.info["points"]]

    def point(self, index: int) -> SweepPoint:
        """One point. Raises Damaged, ReadFailed; IndexError where there is none."""
        return SweepPoint(**self.info["points"][index])

    def set_jobs(self, jobs: Mapping[int, str]) -> None:
        """Note which jobs points are; hold the lock. Raises WriteFailed, Damaged, ReadFailed."""
        info = self.info
        for point in info["points"]:
            point["job"] = jobs.get(point["index"], point["job"])
        write_sealed(self.path / _FILE, info)

    def set_cancelled(self) -> None:
        """Note that points not finished were called off. Raises WriteFailed, Damaged, ReadFailed."""
        write_sealed(self.path / _FILE, {**self.info, "cancelled": now()})

    def note(self, index: int, state: str, error: str | None = None) -> None:
        """Note what became of a point: running, finished, failed or interrupted. Raises WriteFailed."""
        content = {
            "state": state,
            "error": error,
            "at": now(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        write_sealed(self._note_path(index), content)

    def noted(self, index: int) -> dict[str, Any]:
        """The last note about a point, {} before the first. Raises Damaged, ReadFailed."""
        path = self._note_path(index)
        return read_sealed(path) if path.exists() else {}

    def _note_path(self, index: int) -> Path:
        return self.path / "points" / f"{index:04d}.json"

    def log_path(self, index: int) -> Path:
        """Where the worker of a point prints."""
        return self.path / "logs" / f"{index:04d}.log"

    @property
    def table_path(self) -> Path:
        """The table of points."""
        return self.path / "points.csv"

    def write_table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write points.csv whole; hold `table_lock()`. Raises WriteFailed."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.table_path, text.getvalue())

    def lock(self) -> Lock:
        """The lock of the launcher, not acquired yet."""
        return Lock(self.path / ".lock", f"sweep {self.name}")

    def table_lock(self) -> Lock:
        """The lock of whoever brings points.csv up to date, not acquired yet."""
        return Lock(self.path / ".table-lock", f"the table of sweep {self.name}")

    @property
    def launching(self) -> bool:
        """Whether a launcher works on it, as far as this machine can tell. Raises ReadFailed, Damaged."""
        holder = self.lock().holder
        return holder is not None and holder.life is not Life.DEAD and not holder.rebooted


def folder_of(runs_dir: Path, name: str) -> Path:
    """Where the sweep of a name lies. Raises RequestError for a name that none can have."""
    return runs_dir / FOLDER / check_name(name)


def list_sweeps(runs_dir: Path) -> tuple[list[Sweep], list[LthError]]:
    """Every sweep in a folder of runs, the one launched last first, and what is wrong with those that do not open."""
    sweeps: list[tuple[str, Sweep]] = []
    faults: list[LthError] = []
    folder = runs_dir / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.name.startswith(TEMPORARY) and (path / _FILE).is_file():
            try:
                sweep = Sweep.open(path)
                sweeps.append((str(sweep.info["started"]), sweep))
            except LthError as error:
                faults.append(error)
    return [sweep for _, sweep in sorted(sweeps, key=lambda pair: pair[0], reverse=True)], faults


def find_sweep(runs_dir: Path, name: str) -> Sweep:
    """The sweep of a name.

    Raises:
        RequestError: there is none; names close ones.
        Damaged, ReadFailed: it is there and cannot be opened.
    """
    if (folder_of(runs_dir, name) / _FILE).is_file():
        return Sweep.open(folder_of(runs_dir, name))
    names = [sweep.name for sweep in list_sweeps(runs_dir)[0]]
    close = difflib.get_close_matches(name, names, n=3) or names[:5]
    hint = f"there are: {', '.join(close)}" if close else "it has no sweeps"
    raise RequestError(f"no sweep {name!r} in {runs_dir}; {hint}")
