"""What of the shared store no run needs, and how to free it while other processes work.

A state is needed when a run shares its file (more than one hard link) or, where the file system has no links,
keeps a copy of it. A run that is not finished notes every trajectory before it looks for its states
(`Run.write_uses`), and of those nothing goes. As a run may start while we delete, what goes is first renamed, then
the notes are read again, and it comes back if it has been asked for meanwhile: whoever notes first and looks then
finds it, or waits for our lock.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.errors import LthError
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.files import Gone, entries, remove_tree, temporary, writing
from lth_cli.store.formats import NewerFormat
from lth_cli.store.holder import Life
from lth_cli.store.locks import Lock, Locked
from lth_cli.store.runs import ANALYSES, USES, Run, read_uses
from lth_cli.store.states import read_header, stored_steps
from lth_cli.store.trajectories import TrajectoryStore, size_of


@dataclass(frozen=True)
class Garbage:
    """What can go of one trajectory.

    Attributes:
        identity: of the trajectory.
        paths: its folder when all of it can go, else files in it.
        states: how many states are among them.
        size: bytes that become free.
        description: of the trajectory; None when it cannot be read.
    """

    identity: str
    paths: tuple[Path, ...]
    states: int
    size: int
    description: dict[str, Any] | None


def collection_lock(runs_dir: Path) -> Lock:
    """Held by whoever frees: of two at once, one would sweep away what the other may have to put back."""
    return Lock(runs_dir / ".store" / "gc-lock", f"the shared store in {runs_dir}")


def find_garbage(runs_dir: Path) -> list[Garbage]:
    """Everything in the shared store of a folder of runs that no run needs.

    Raises:
        Damaged, ReadFailed: the notes of an unfinished run cannot be read, so what it needs is not known.
        NewerFormat: as is what runs of a newer release need; of its files nothing is deleted.
    """
    store = TrajectoryStore(runs_dir / ".store")
    used, kept = _used(runs_dir), _kept(runs_dir)
    found = [
        _garbage(store, identity, kept)
        for identity in store.identities()
        if identity not in used and not _is_locked(store, identity)
    ]
    return [garbage for garbage in found if garbage is not None]


def free(runs_dir: Path, garbage: Garbage) -> bool:
    """Delete garbage, unless somebody has asked for it since; whether it is gone.

    Raises:
        WriteFailed: it cannot be deleted.
        Damaged, ReadFailed: as `find_garbage`.
    """
    store = TrajectoryStore(runs_dir / ".store")
    try:
        lock = store.lock(garbage.identity).acquire()
    except Locked:
        return False
    with lock, writing(store.folder(garbage.identity)):
        moved = [(path, temporary(path)) for path in garbage.paths]
        for path, aside in moved:
            with suppress(FileNotFoundError):  # somebody deletes the store itself
                path.rename(aside)
        if garbage.identity in _used(runs_dir):
            for path, aside in moved:
                with suppress(FileNotFoundError):
                    aside.rename(path)
            return False
        for _, aside in moved:
            remove_tree(aside)
    return True


def free_leftovers(runs_dir: Path) -> None:
    """Delete what killed deletions, and killed holders of locks on what is gone, left in the store."""
    store = TrajectoryStore(runs_dir / ".store")
    store.sweep()
    for path in entries(store.root):
        if (
            path.suffix == ".lock"
            and not store.folder(path.stem).is_dir()
            and not _is_locked(store, path.stem)
        ):
            try:
                store.lock(path.stem).acquire().release()
            except Locked:
                continue


def _used(runs_dir: Path) -> set[str]:
    """Trajectories that runs and analyses which are not finished have asked for."""
    used: set[str] = set()
    for path in runs_dir.glob(f"*/{USES}"):
        if not _is_finished(path.parent):
            used |= _noted(path)
    for path in runs_dir.glob(f"*/{ANALYSES}/*/{USES}"):
        if not StoredAnalysis(path.parent).finished:
            used |= _noted(path)
    return used


def _noted(path: Path) -> set[str]:
    """What a `.uses` file names; nothing where it is gone, since its work has just ended."""
    try:
        return set(read_uses(path))
    except Gone:
        return set()


def _is_finished(folder: Path) -> bool:
    try:
        return bool(Run.open(folder).info["state"] == "finished")
    except NewerFormat:
        raise
    except LthError:  # what it needs is in its notes all the same
        return False


def _kept(runs_dir: Path) -> set[tuple[str, int]]:
    """The (trajectory, step) of every state that runs keep."""
    kept: set[tuple[str, int]] = set()
    for folder in entries(runs_dir):
        if not folder.name.startswith(".") and folder.is_dir():
            _is_finished(folder)  # where a run of a newer release keeps its states is not known
            for round_ in Run(folder).every_round():
                for path in round_.checkpoints().values():
                    try:
                        header = read_header(path)
                    except NewerFormat:
                        raise
                    except LthError:
                        continue
                    kept.add((header.trajectory, header.step))
    return kept


def _is_locked(store: TrajectoryStore, identity: str) -> bool:
    holder = store.lock(identity).holder
    return holder is not None and holder.life is not Life.DEAD and not holder.rebooted


def _garbage(store: TrajectoryStore, identity: str, kept: set[tuple[str, int]]) -> Garbage | None:
    store.refuse_newer(identity)
    folder = store.folder(identity)
    states = stored_steps(folder)
    free = {step: path for step, path in states.items() if (identity, step) not in kept and _links(path) == 1}
    others = [path for path in entries(folder) if path.name.endswith((".damaged", "resume.safetensors"))]
    if len(free) == len(states):
        paths, files = [folder], entries(folder)
    else:
        paths = files = [*free.values(), *others]
    if not paths:
        return None
    size = sum(size_of(path) for path in files if _links(path) == 1)
    try:
        description = store.description(identity)
    except LthError:
        description = None
    return Garbage(identity, tuple(paths), len(free), size, description)


def _links(path: Path) -> int:
    try:
        return path.stat().st_nlink
    except FileNotFoundError:
        return 0
