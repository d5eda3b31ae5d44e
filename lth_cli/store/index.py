"""What thousands of runs say of themselves, read from one file beside them: `runs/.index.jsonl`.

A line a run: all that listings show, and time, size and inode of the few files it was read from. A line counts as long
as these files are the ones it was read from; any other run is read anew, and the index written again. So it can
be deleted, lag behind, or lie in a folder that nobody can write to, and what is told is what the files say. A run that
is written to while it is read could change again within a tick of the clock of its file system; it is not put into
the index before that is over. What else decides what is told (who holds the lock of a run that says it is running) is
never kept.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.errors import LthError
from lth_cli.config.metrics import Metric, noted
from lth_cli.store.files import TEMPORARY, temporary
from lth_cli.store.results import Row
from lth_cli.store.runs import Run
from lth_cli.store.tags import FILE as TAGS
from lth_cli.store.tags import read_tags

FILE = ".index.jsonl"
FORMAT = 1
_TICK_NS = 2 * 10**9  # the coarsest clock of a file system that is still about
Signature = dict[str, list[int] | None]
"""By path in the run: time of content and of inode (ns), size, inode; None where there is no such file."""


@dataclass(frozen=True)
class Entry:
    """A run as listings know it.

    Attributes:
        path: its folder.
        content: `info` (run.json without checksums and source texts), `config`, `results`, `controls`, `origins` (what
            the trainings cost that its rounds start from), `tags`, `note`.
    """

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def info(self) -> dict[str, Any]:
        """What run.json says, without checksums and texts of own code."""
        return self.content["info"]  # type: ignore[no-any-return]

    @property
    def config(self) -> dict[str, Any]:
        """The stored config, unchecked."""
        return self.content["config"]  # type: ignore[no-any-return]

    @property
    def results(self) -> list[Row]:
        """The rows of results.csv."""
        return _rows(self.content["results"])

    @property
    def last(self) -> Row:
        """The last of them; empty before the first."""
        table = self.content["results"]
        return dict(zip(table["columns"], table["rows"][-1], strict=True)) if table["rows"] else {}

    @property
    def rounds(self) -> int:
        """How many rounds are finished."""
        return len(self.content["results"]["rows"])

    @property
    def controls(self) -> dict[str, list[Row]]:
        """The rows of each kind of controls."""
        return {branch: _rows(table) for branch, table in self.content["controls"].items()}

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is measured; the first is the headline."""
        return noted(self.info)

    @property
    def state(self) -> str:
        """The state now: as noted, but `interrupted` where it is noted as running and nobody runs it."""
        state = str(self.info.get("state"))
        return Run(self.path).effective_state if state == "running" else state

    @property
    def trainings(self) -> list[Mapping[str, Any]]:
        """What each training of the run cost: a row of results, of controls, or of what rounds start from."""
        tables = [self.content["results"], *self.content["controls"].values()]
        return [*self.content["origins"], *(row for table in tables for row in _rows(table))]


def read_runs(runs_dir: Path) -> Iterator[Entry | LthError]:
    """Every run in a folder by name, or what is wrong with it; one at a time, so that memory stays flat.

    The index is brought up to date after the last; a folder that cannot be written to goes without.
    """
    fresh: dict[str, bytes] = {}
    kept: list[str] = []
    started: int | None = None
    names = _names(runs_dir)
    with _Index(runs_dir / FILE) as index:
        for name in names:
            line = index.line(name)
            entry = None if line is None else _from_line(runs_dir / name, line)
            if entry is not None:
                kept.append(name)
                yield entry
                continue
            if started is None:
                started = _clock(runs_dir)
            try:
                signature, content = _read(runs_dir / name)
            except LthError as error:
                yield error
                continue
            if _settled(signature, started):
                fresh[name] = _to_line(name, signature, content)
            yield Entry(runs_dir / name, content)
        if not index.newer and (fresh or len(kept) < index.lines):
            with contextlib.suppress(OSError):
                _write(runs_dir / FILE, sorted([*kept, *fresh]), index, fresh)


def read_run(run: Run) -> Entry:
    """One run as listings know it. Raises Damaged, ReadFailed, NewerFormat."""
    return Entry(run.path, _read(run.path)[1])


def _names(runs_dir: Path) -> list[str]:
    try:
        with os.scandir(runs_dir) as found:
            names = sorted(one.name for one in found if not one.name.startswith(TEMPORARY))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in names if os.path.isfile(os.path.join(runs_dir, name, "run.json"))]  # noqa: PTH113, PTH118


def _clock(runs_dir: Path) -> int:
    """The time by the clock of the file system, before anything is read; 0 where nothing can be written."""
    path = temporary(runs_dir / FILE)
    try:
        path.touch()
        return path.stat().st_mtime_ns
    except OSError:
        return 0
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _settled(signature: Signature, now: int) -> bool:
    return all(found is None or max(found[0], found[1]) < now - _TICK_NS for found in signature.values())


def _read(folder: Path) -> tuple[Signature, dict[str, Any]]:
    """Read a run; again where a file of it changed meanwhile, so that all is of one moment where that is possible."""
    for _ in range(3):
        run = Run.open(folder)
        branches = run.branches()
        origins = [origin for origin in run.origins() if origin.finished]
        names = ["run.json", "config.yaml", "results.csv", TAGS, "controls", "origin"]
        names += [f"controls/{branch}/results.csv" for branch in branches]
        names += [origin.summary_path.relative_to(folder).as_posix() for origin in run.origins()]
        before = _signature(folder, names)
        tags = read_tags(folder)
        content = {
            "info": _shortened(run.info),
            "config": run.config,
            "results": _table(run.results()),
            "controls": {branch: _table(run.results(branch)) for branch in branches},
            "origins": [_origin(origin.summary) for origin in origins],
            "tags": list(tags.tags),
            "note": tags.note,
        }
        if _signature(folder, names) == before:
            break
    return before, content


def _signature(folder: Path, names: list[str]) -> Signature:
    return {name: _stat(os.path.join(folder, name)) for name in names}  # noqa: PTH118 - thousands of them


def _stat(path: str) -> list[int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - thousands of them
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino]


def _shortened(info: dict[str, Any]) -> dict[str, Any]:
    """run.json without what no listing shows: checksums, texts of own code, the config of a source."""
    kept = {key: value for key, value in info.items() if key not in ("files", "own_code", "own_code_git")}
    if "own_code" in info:
        kept["own_code"] = {
            path: {
                **one,
                "modules": {name: module["digest"] for name, module in one.get("modules", {}).items()},
            }
            for path, one in info["own_code"].items()
        }
    if isinstance(info.get("source"), dict):
        kept["source"] = {key: value for key, value in info["source"].items() if key != "config"}
    return kept


def _table(rows: list[Row]) -> dict[str, Any]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {"columns": columns, "rows": [[row.get(column) for column in columns] for row in rows]}


def _rows(table: Mapping[str, Any]) -> list[Row]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def _origin(summary: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("trajectory", "start_step", "end_step", "steps_trained", "steps_reused", "cost")
    return {key: summary[key] for key in keys if key in summary}


def _to_line(name: str, signature: Signature, content: dict[str, Any]) -> bytes:
    line = {"name": name, "files": signature, **content}
    return json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _from_line(folder: Path, line: bytes) -> Entry | None:
    """What a line says, if the files it was read from are still those."""
    try:
        content = json.loads(line)
        files = content.pop("files")
        content.pop("name")
        if files != _signature(folder, list(files)):
            return None
        if not {"info", "config", "results", "controls", "origins", "tags", "note"} <= content.keys():
            return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # torn, or nobody's
        return None
    return Entry(folder, content)


class _Index:
    """The lines of an index in the order of names, each read when its run's turn comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[bytes, tuple[int, int]] = {}
        self.newer = False
        self._file: Any = None

    @property
    def lines(self) -> int:
        """How many runs it has."""
        return len(self._places)

    def __enter__(self) -> _Index:
        with contextlib.suppress(OSError):
            self._file = self._path.open("rb")
            self._find()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def line(self, name: str) -> bytes | None:
        """The line of a run."""
        place = self._places.get(_escaped(name))
        if place is None:
            return None
        start, length = place
        try:
            self._file.seek(start)
            return bytes(self._file.read(length))
        except OSError:
            return None

    def _find(self) -> None:
        """Where the line of each run lies; nothing in a file of another format."""
        head = self._file.readline()
        try:
            number = json.loads(head)["format"]
        except (ValueError, KeyError, TypeError):
            return
        self.newer = type(number) is int and number > FORMAT
        if number != FORMAT:
            return
        place = len(head)
        for line in self._file:
            name = line[len(_NAME) : line.find(b'"', len(_NAME))]
            if line.startswith(_NAME) and line.endswith(b"}\n"):
                self._places[name] = (place, len(line))
            place += len(line)


_NAME = b'{"name":"'


def _escaped(name: str) -> bytes:
    """A name as it stands in a line; one with a quote in it is not found there, and read anew each time."""
    return json.dumps(name)[1:-1].encode()


def _write(path: Path, names: list[str], index: _Index, fresh: Mapping[str, bytes]) -> None:
    """Replace the index at once; it need not survive a power cut, so nothing waits for the disk. Raises OSError."""
    partial = temporary(path)
    try:
        with partial.open("xb") as file:
            file.write(json.dumps({"format": FORMAT}).encode() + b"\n")
            for name in names:
                line = fresh.get(name) or index.line(name)
                if line is not None:
                    file.write(line)
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
