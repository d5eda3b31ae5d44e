"""Which runs build upon which: asked before a run is deleted or gets another name.

A run keeps what it was made from (masks, teachers, starts, scores, condensed examples) once it has it, so one that is
finished loses nothing with its source; one that is not may need it to go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.errors import LthError
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.examples import kept_examples
from lth_cli.store.files import entries
from lth_cli.store.holder import Life
from lth_cli.store.locks import Lock, Locked
from lth_cli.store.runs import ANALYSES, Run, list_runs
from lth_cli.store.sweeps import list_sweeps


@dataclass(frozen=True)
class Dependent:
    """What builds upon a run.

    Attributes:
        told: what it is and how it uses the run, for messages.
        needs: whether it is not finished, and cannot go on without the run.
    """

    told: str
    needs: bool


def dependents(run: Run, runs_dir: Path, but: Sequence[Run] = ()) -> list[Dependent]:
    """What builds upon a run: rewound runs, students, analyses and chosen data of other runs, sweeps.

    Args:
        run: which.
        runs_dir: where others are looked for.
        but: runs that go with it.

    Raises:
        Damaged, ReadFailed, NewerFormat: of the run itself; others that cannot be read tell nothing.
    """
    run_id, own = run.info["id"], trajectories(run)
    going = {other.path.resolve() for other in (run, *but)}
    found: list[Dependent] = []
    for other in list_runs(runs_dir)[0]:
        if other.path.resolve() in going:
            continue
        try:
            found += _of_run(run, run_id, own, other)
        except LthError:  # lth verify tells what is wrong with it
            continue
    for sweep in list_sweeps(runs_dir)[0]:
        try:
            info = sweep.info
            points = [str(point["run"]) for point in info["points"]]
        except (LthError, KeyError, TypeError):
            continue
        unfinished = sweep.launching or not all(_is_finished(runs_dir / name) for name in points)
        if info.get("source") is not None and Path(info["source"]) == run.path.resolve():
            found.append(Dependent(f"sweep {sweep.name} retrains its masks", unfinished))
        elif run.name in points and run.path.resolve() == (runs_dir / run.name).resolve():
            found.append(
                Dependent(f"it is point {points.index(run.name)} of sweep {sweep.name}", sweep.launching)
            )
    return found


def busy(run: Run, *, analyses_alone: bool = False) -> str | None:
    """Who works on a run or on an analysis in it; None for nobody. One elsewhere is watched for its next heartbeat."""
    locks = [StoredAnalysis(path).lock() for path in entries(run.path / ANALYSES) if path.is_dir()]
    if not analyses_alone:
        locks.insert(0, run.lock())
    return next((f"{lock.subject} is in use by {lock.holder}" for lock in locks if _is_held(lock)), None)


def trajectories(run: Run) -> set[str]:
    """Identities of the trainings whose rounds the run has."""
    found = set()
    for round_ in run.every_round():
        if round_.finished and round_.folder.parent.name != "teachers":
            try:
                found.add(str(round_.summary["trajectory"]))
            except (LthError, KeyError):
                continue
    return found


def _of_run(run: Run, run_id: str, own: set[str], other: Run) -> Iterator[Dependent]:
    info = other.info
    unfinished = info.get("state") != "finished"
    if info.get("source", {}).get("id") == run_id:
        yield Dependent(f"{other.name} retrains its masks", unfinished)
    kept = info.get("teachers", {})
    taught = any(
        _names(str(note["label"]), run) and note["teacher"].get("trajectory") in own
        for notes in kept.values()
        for note in notes
    )
    named = [name for name in _named_teachers(other) if name not in kept and _names(name, run)]
    if taught or named:
        yield Dependent(f"{other.name} learns from it", unfinished and bool(named))
    for scores in _named(other.config, "scores"):
        if Path(scores).expanduser().resolve().is_relative_to(run.path.resolve()):
            there = StoredAnalysis(other.path / ANALYSES / Path(scores).name).finished
            yield Dependent(
                f"the data of {other.name} are chosen by an analysis of it", unfinished and not there
            )
    for condensed in _named(other.config, "condensed"):
        if Path(condensed).expanduser().resolve().is_relative_to(run.path.resolve()):
            there = kept_examples(other, condensed) is not None
            yield Dependent(f"the data of {other.name} are its examples", unfinished and not there)
    for path in entries(other.path / ANALYSES):
        answer = StoredAnalysis(path)
        if not path.is_dir():
            continue
        if answer.finished:
            if _mentions(answer.result, run.name) and own & _identities(answer.result):
                yield Dependent(f"the analysis {path.name} of {other.name} asks about it", False)
        elif own & set(answer.uses()) and not own & trajectories(other):
            yield Dependent(f"the analysis {path.name} of {other.name} asks about it", True)


def _is_finished(folder: Path) -> bool:
    try:
        return bool(Run.open(folder).info["state"] == "finished")
    except LthError:
        return False


def _is_held(lock: Lock) -> bool:
    """Whether somebody holds a lock; taking it tells, where the holder is on another machine."""
    holder = lock.holder
    if holder is None or holder.life is Life.DEAD or holder.rebooted:
        return False
    if holder.life is Life.ALIVE:
        return True
    try:
        lock.acquire().release()
    except Locked:
        return True
    return False


def _named_teachers(run: Run) -> list[str]:
    return [str(name) for name in run.config.get("distillation", {}).get("teachers", [])]


def _names(reference: str, run: Run) -> bool:
    """Whether `RUN:ROUND@STEP` names the run, by name or path."""
    name = reference.partition("@")[0].partition(":")[0]
    return name == run.name or ("/" in name and Path(name).resolve() == run.path.resolve())


def _named(values: Any, wanted: str) -> Iterator[str]:
    """Every value of a key, `scores` or `condensed`, in a config."""
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        if key == wanted and isinstance(value, str):
            yield value
        yield from _named(value, wanted)


def _mentions(labels: Any, name: str) -> bool:
    """Whether labels of an answer name a run, alone or as `RUN:ROUND@STEP`."""
    if isinstance(labels, dict):
        return any(_mentions(value, name) for value in labels.values())
    if isinstance(labels, list):
        return any(_mentions(value, name) for value in labels)
    return isinstance(labels, str) and labels.partition("@")[0].partition(":")[0] == name


def _identities(values: Any) -> set[str]:
    """Every text in plain values, identities among them."""
    if isinstance(values, dict):
        return set[str]().union(*map(_identities, values.values()))
    if isinstance(values, list):
        return set[str]().union(*map(_identities, values))
    return {values} if isinstance(values, str) else set()
