"""The shared store: the states, metrics and work record of every trajectory trained in a runs folder.

`<runs_dir>/.store/<identity>/` holds `trajectory.json` (whose digest is the identity), a state file for each
stored step, `metrics.jsonl` and `segments.jsonl`. Whoever writes holds the trajectory's lock; reading needs
none, as files appear whole. Runs hard-link the states they keep: deleting the store harms none.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lth_cli.store.files import (
    TEMPORARY,
    Damaged,
    Gone,
    ReadFailed,
    digest,
    entries,
    link_or_copy,
    read_json,
    remove_leftovers,
    remove_tree,
    temporary,
    write_json,
    write_within,
    writing,
)
from lth_cli.store.formats import check_format
from lth_cli.store.lines import append_lines, has_torn_line, read_sealed_lines, rewrite_lines, seal
from lth_cli.store.locks import Lock
from lth_cli.store.states import State, load_state, read_header, save_state, state_name, stored_steps
from lth_cli.store.tensors import refuse_newer

_log = logging.getLogger(__name__)
_IDENTITY = re.compile(r"[0-9a-f]{64}")


class TrajectoryStore:
    """The trajectories below one folder.

    Args:
        root: `<runs_dir>/.store`; made when first written to.
        warn: told in one sentence when damage is found and worked around.
    """

    def __init__(self, root: Path, warn: Callable[[str], None] = _log.warning) -> None:
        self.root = root
        self._warn = warn

    def folder(self, identity: str) -> Path:
        """Where a trajectory lies, stored or not. Raises ValueError when it is not a SHA-256."""
        if _IDENTITY.fullmatch(identity) is None:
            raise ValueError(f"{identity!r} is not the identity of a trajectory")
        return self.root / identity

    def lock(self, identity: str) -> Lock:
        """The lock of a trajectory's writer, not acquired yet; beside the folder, which `remove` deletes."""
        folder = self.folder(identity)
        return Lock(folder.with_name(f"{identity}.lock"), f"trajectory {identity[:12]}")

    def identities(self) -> list[str]:
        """Every stored trajectory."""
        return [p.name for p in entries(self.root) if _IDENTITY.fullmatch(p.name) and p.is_dir()]

    def size(self, identity: str) -> int:
        """Bytes of a trajectory's files, those that runs share included."""
        return sum(size_of(path) for path in entries(self.folder(identity)))

    def description(self, identity: str) -> dict[str, Any] | None:
        """The canonical description whose digest is the identity; None when absent.

        Raises:
            Damaged: it does not give that identity.
            NewerFormat: a newer release wrote it.
            ReadFailed: it cannot be read.
        """
        path = self._description_path(identity)
        try:
            value = read_json(path)
        except Gone:
            return None
        if isinstance(value, dict):
            check_format(path, value, newest=1)
        if not isinstance(value, dict) or digest(value) != identity:
            raise Damaged(path, "its digest is not the identity of the trajectory")
        return value

    def describe(self, identity: str, description: dict[str, Any]) -> None:
        """Store the description of a trajectory, unless it is there and whole.

        Raises:
            ValueError: its digest is not the identity.
            WriteFailed: it cannot be written.
        """
        if digest(description) != identity:
            raise ValueError(f"the description does not have the identity {identity}")
        try:
            present = self.description(identity) is not None
        except Damaged as damage:
            self._warn(f"{damage}; written anew")
            present = False
        if not present:
            path = self._description_path(identity)
            write_within(path.parent, lambda: write_json(path, description))

    def steps(self, identity: str) -> list[int]:
        """Steps of which a state is stored, ascending; their files may turn out damaged."""
        return list(stored_steps(self.folder(identity)))

    def state_path(self, identity: str, step: int) -> Path:
        """Where the state after `step` steps lies, stored or not."""
        return self.folder(identity) / state_name(step)

    def load(self, identity: str, step: int) -> State | None:
        """A stored state, verified; None when absent.

        A damaged file is told through `warn`, moved to `<name>.damaged` where possible, and counts as absent.

        Raises:
            ReadFailed, NewerFormat: the file is there and cannot be read.
        """
        return self._load_verified(self.state_path(identity, step), identity, step)

    def _load_verified(self, path: Path, identity: str, step: int | None) -> State | None:
        try:
            state, header = load_state(path), read_header(path)  # the header counts once all is verified
            if header.trajectory != identity or step not in (None, header.step):
                raise Damaged(path, f"it is step {header.step} of trajectory {header.trajectory[:12]}")
            return state
        except Damaged as damage:
            self.set_aside(path, damage)
        except Gone:  # never there, or deleted just now
            pass
        return None

    def set_aside(self, path: Path, damage: Damaged) -> None:
        """Rename a damaged file where possible, and warn; it counts as absent."""
        aside = _aside(path)
        try:
            path.replace(aside)
        except OSError:  # a read-only store can still be read past its damage
            self._warn(f"{damage}; not used")
        else:
            self._warn(f"{damage}; moved to {aside.name} and not used")

    def nearest(self, identity: str, at_most: int) -> State | None:
        """The valid stored state that training can go on from with the largest step not beyond `at_most`, or None.

        Raises:
            ReadFailed, NewerFormat: a file is there and cannot be read.
        """
        resume = self._load_resume_point(identity)
        if resume is not None and resume.step > at_most:
            resume = None
        for step in reversed(self.steps(identity)):
            if resume is not None and step <= resume.step:
                return resume
            if step <= at_most and (state := self.load(identity, step)) is not None and not state.partial:
                return state
        return resume

    def frontier(self, identity: str) -> int:
        """The largest step of which a state or a resume point is stored; -1 when there is none."""
        resume = self._load_resume_point(identity)
        return max([*self.steps(identity), -1 if resume is None else resume.step])

    def save_resume_point(self, identity: str, state: State, description: dict[str, Any]) -> None:
        """Store the one state that a killed training goes on from, in the place of the one before.

        Raises:
            ValueError: the description has another identity.
            WriteFailed: it cannot be written; the one before is still there.
        """
        self._save(self._resume_path(identity), identity, state, description)

    def drop_resume_point(self, identity: str, up_to: int) -> None:
        """Delete the resume point unless it lies beyond `up_to`. Raises WriteFailed."""
        resume = self._load_resume_point(identity)
        if resume is not None and resume.step <= up_to:
            with writing(self._resume_path(identity)):
                self._resume_path(identity).unlink(missing_ok=True)

    def _load_resume_point(self, identity: str) -> State | None:
        return self._load_verified(self._resume_path(identity), identity, None)

    def save(self, identity: str, state: State, description: dict[str, Any]) -> Path:
        """Store a state, and the description of the trajectory before its first one.

        Append the metrics up to this step first: after a crash, lines are kept up to the last stored state.

        Raises:
            ValueError: the description has another identity.
            WriteFailed: something cannot be written.
        """
        path = self.state_path(identity, state.step)
        self._save(path, identity, state, description)
        return path

    def _save(self, path: Path, identity: str, state: State, description: dict[str, Any]) -> None:
        def write() -> None:
            self.describe(identity, description)  # with each state: the whole store may have been deleted
            save_state(path, state, identity)
            self.describe(
                identity, description
            )  # or is being deleted, but for what comes after it was listed

        write_within(path.parent, write)

    def discard(self, identity: str, step: int) -> None:
        """Delete one stored state; nothing there is fine, and runs keep theirs. Raises WriteFailed."""
        path = self.state_path(identity, step)
        with writing(path):
            path.unlink(missing_ok=True)

    def adopt(self, identity: str, path: Path, description: dict[str, Any]) -> bool:
        """Take a state file of a run into the store (link or copy); False when its step is there.

        The content is verified when it is loaded, like that of any other stored state.

        Raises:
            ValueError: the description has another identity.
            Damaged: the file says it is of another trajectory, or is no state.
            ReadFailed, NewerFormat, WriteFailed.
        """
        header = read_header(path)
        if header.trajectory != identity:
            raise Damaged(path, f"a state of trajectory {header.trajectory[:12]}, not of {identity[:12]}")
        target = self.state_path(identity, header.step)

        def write() -> bool:
            self.describe(identity, description)
            if target.exists():
                return False
            link_or_copy(path, target)
            self.describe(identity, description)  # as in `_save`
            return True

        return write_within(target.parent, write)

    def links(self, identity: str, step: int) -> int:
        """How many names a stored state has: 1 when no run shares the file, 0 when absent."""
        try:
            return self.state_path(identity, step).stat().st_nlink
        except FileNotFoundError:
            return 0

    def append_metrics(self, identity: str, lines: list[dict[str, Any]]) -> None:
        """Append evaluations, each with an integer `step`. Raises WriteFailed; ValueError (NaN, no step)."""
        if not all(type(line.get("step")) is int for line in lines):
            raise ValueError("a line of metrics needs an integer step")
        if not lines:
            return
        path = self._metrics_path(identity)
        write_within(path.parent, lambda: append_lines(path, [seal(line, identity) for line in lines]))

    def metrics(self, identity: str) -> list[dict[str, Any]]:
        """Every evaluation in order; a line that a crash tore, or that is damaged, is left out. Raises ReadFailed."""
        return read_sealed_lines(self._metrics_path(identity), identity)[0]

    def damaged_records(self, identity: str) -> bool:
        """Whether a line of the metrics or the segments is not what was written. Raises ReadFailed."""
        return any(read_sealed_lines(path, identity)[1] for path in self._records(identity))

    def repair_records(self, identity: str) -> None:
        """Set damaged metrics and segments aside but for their undamaged lines, and tell; hold the lock.

        Raises:
            ReadFailed, WriteFailed.
        """
        for path, consequence in self._records(identity).items():
            lines, damaged = read_sealed_lines(path, identity)
            if damaged:
                aside = _aside(path)
                try:
                    link_or_copy(path, aside)
                except Gone:
                    continue
                sealed = [seal(line, identity) for line in lines]
                write_within(path.parent, partial(rewrite_lines, path, sealed))
                self._warn(
                    f"{path} is damaged: {damaged} of its lines are not what was written; "
                    f"moved to {aside.name}, {consequence}"
                )

    def _records(self, identity: str) -> dict[Path, str]:
        """The files that grow, and what the loss of a line of them means."""
        return {
            self._metrics_path(identity): "the evaluations lost are made again",
            self._segments_path(identity): "steps whose record is lost count as reused",
        }

    def cut_metrics(self, identity: str, after_step: int) -> None:
        """Drop evaluations beyond a step, and a torn line: their steps are trained again. -1 drops all.

        Raises:
            ReadFailed, WriteFailed.
        """
        path = self._metrics_path(identity)
        lines = self.metrics(identity)
        kept = [line for line in lines if line["step"] <= after_step]
        if len(kept) < len(lines) or has_torn_line(path):
            write_within(path.parent, lambda: rewrite_lines(path, [seal(line, identity) for line in kept]))

    def add_segment(self, identity: str, run_id: str, start: int, end: int) -> None:
        """Record that a run trained the steps from `start` to `end`. Raises WriteFailed."""
        path, line = self._segments_path(identity), {"run": run_id, "start": start, "end": end}
        write_within(path.parent, lambda: append_lines(path, [seal(line, identity)]))

    def segments(self, identity: str) -> list[dict[str, Any]]:
        """Which run (`run`) trained from which step (`start`) to which (`end`); damaged lines left out.

        Raises:
            ReadFailed.
        """
        return read_sealed_lines(self._segments_path(identity), identity)[0]

    def spans_by(self, identity: str, run_id: str, start: int, end: int) -> list[tuple[int, int]]:
        """The steps between `start` and `end` that a run trained; those repeated after a crash once.

        Returns:
            (first, last + 1) of spans that do not overlap, ascending.

        Raises:
            ReadFailed.
        """
        segments = [(s["start"], s["end"]) for s in self.segments(identity) if s["run"] == run_id]
        spans, reached = [], start
        for first, last in sorted(segments):
            span = max(first, reached), min(last, end)
            if span[0] < span[1]:
                spans.append(span)
                reached = span[1]
        return spans

    def refuse_newer(self, identity: str) -> None:
        """Raise NewerFormat where a newer release wrote any file of a trajectory; damage is found by others."""
        folder = self.folder(identity)
        for path in entries(folder):
            if path.suffix == ".safetensors":
                refuse_newer(path)
        with contextlib.suppress(Damaged, ReadFailed):
            self.description(identity)
        for path in self._records(identity):
            with contextlib.suppress(Damaged, ReadFailed):
                read_sealed_lines(path, identity)

    def clear_leftovers(self, identity: str) -> None:
        """Delete what killed writers left in a trajectory's folder; hold its lock.

        Raises:
            NewerFormat: a newer release wrote to it; nothing is deleted.
            WriteFailed.
        """
        self.refuse_newer(identity)
        remove_leftovers(self.folder(identity))

    def remove(self, identity: str) -> None:
        """Delete a trajectory; runs keep the states they share. It vanishes at once, never in part.

        Raises:
            Locked: somebody trains it.
            WriteFailed: it cannot be deleted.
        """
        folder = self.folder(identity)
        with self.lock(identity).acquire(), writing(folder):
            doomed = temporary(folder)
            if folder.is_dir():
                folder.rename(doomed)
                remove_tree(doomed)

    def sweep(self) -> None:
        """Delete what killed `remove`s left below the root. Raises WriteFailed."""
        with writing(self.root):
            for path in entries(self.root):
                if path.name.startswith(TEMPORARY) and path.is_dir():
                    remove_tree(path)

    def _description_path(self, identity: str) -> Path:
        return self.folder(identity) / "trajectory.json"

    def _resume_path(self, identity: str) -> Path:
        return self.folder(identity) / "resume.safetensors"

    def _metrics_path(self, identity: str) -> Path:
        return self.folder(identity) / "metrics.jsonl"

    def _segments_path(self, identity: str) -> Path:
        return self.folder(identity) / "segments.jsonl"


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none any more."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _aside(path: Path) -> Path:
    """Where a damaged file is moved; `verify_store` lists none of these, nothing reads them."""
    return path.with_name(f"{path.name}.damaged")
