"""Is a run what was written, and does it keep the promises of the lottery-ticket protocol?"""

from __future__ import annotations

import math
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from lth_cli.config.errors import LthError
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.examples import FOLDER as EXAMPLES
from lth_cli.store.examples import damaged_examples
from lth_cli.store.files import Damaged, Gone, entries, sha256_file
from lth_cli.store.formats import NewerFormat
from lth_cli.store.lines import read_lines, read_sealed_lines
from lth_cli.store.rounds import Round
from lth_cli.store.runs import Run
from lth_cli.store.states import State, load_state, read_header, stored_steps
from lth_cli.store.tensors import map_tensors, refuse_newer
from lth_cli.store.trajectories import TrajectoryStore

Masks = dict[str, Tensor]
_Stored = dict[tuple[str, object], Path]


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one file.

    Attributes:
        path: of the file.
        message: what is wrong.
        newer: it is no damage: a newer release wrote the file, and this one cannot check it.
    """

    path: Path
    message: str
    newer: bool = False


def verify_run(run: Run) -> list[Fault]:
    """Check every file of a run against its checksum, and every invariant of its finished rounds.

    Checksums of the config, the results of a finished run, masks, metrics and checkpoints; mask shapes and
    densities as recorded; masks nested from round to round; pruned weights exactly zero; start states equal
    to mask x the state they were started from, where the run has that state. Checksums of finished
    analyses, of teachers, and of condensed examples that the data are made of.
    """
    faults = list(_run_files(run))
    stored = _stored_states(run)
    all_done = _all_done(run)
    for origin in run.origins():
        if origin.finished:
            faults += _verify_round(origin, stored)[1]
        elif all_done:
            faults.append(Fault(origin.summary_path, "missing"))
    for teacher in _teachers(run):
        faults += _verify_teacher(teacher)
    for branch in (None, *run.branches()):
        faults += _results(run, branch)
        before: Masks | None = None
        for round_ in run.rounds(branch):
            if round_.finished:
                masks, found = _verify_round(round_, stored)
                faults += found
                if branch is None and masks is not None and _is_nested(round_):
                    faults += _nested(round_, before, masks)
                    before = masks
    try:
        faults += [Fault(path, "it is not what was kept") for path in damaged_examples(run)]
    except LthError as error:
        faults.append(fault_of(run.path / EXAMPLES, error))
    for answer in StoredAnalysis.all_of(run):
        try:
            faults += [Fault(*fault) for fault in answer.faults()]
        except LthError as error:
            faults.append(fault_of(answer.path, error))
    return list(dict.fromkeys(faults))


def _all_done(run: Run) -> bool:
    try:
        return run.info.get("state") == "finished"
    except LthError:  # a fault of that file
        return False


def lost_runs(runs_dir: Path) -> list[Fault]:
    """Folders among the runs that hold what a run holds, but not the file that makes them one."""
    folders = sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []
    return [
        Fault(folder / "run.json", "missing")
        for folder in folders
        if not folder.name.startswith(".")
        and not (folder / "run.json").is_file()
        and ((folder / "config.yaml").is_file() or Round.all_within(folder))
    ]


def verify_store(store: TrajectoryStore) -> list[Fault]:
    """Check every file of the shared store: descriptions, states, metrics, records of who trained.

    What was found damaged earlier and moved aside (`*.damaged`) is not looked at.
    """
    return [fault for identity in store.identities() for fault in verify_trajectory(store, identity)]


def verify_trajectory(store: TrajectoryStore, identity: str) -> Iterator[Fault]:
    """Check every file of one trajectory of the store."""
    folder = store.folder(identity)
    yield from _verify_states(folder, identity)
    for path in (folder / "metrics.jsonl", folder / "segments.jsonl"):
        try:
            damaged = read_sealed_lines(path, identity)[1]
        except LthError as error:
            yield fault_of(path, error)
            continue
        if damaged:
            yield Fault(path, f"{damaged} of its lines are not what was written")
    try:
        if _undescribed(store, identity):
            yield Fault(folder / "trajectory.json", "missing")
    except LthError as error:
        yield fault_of(folder, error)


def _undescribed(store: TrajectoryStore, identity: str) -> bool:
    """Whether states lie there without a description; looked at twice, since the store may be deleted right now."""
    for pause in (0.0, 0.2):
        time.sleep(pause)
        if store.description(identity) is not None or not _state_files(store.folder(identity)):
            return False
    return True


def _verify_states(folder: Path, identity: str) -> Iterator[Fault]:
    """States, resume point and answers of teachers. What is gone when its turn comes is no fault: a training at work
    puts another resume point in its place, and the store may be deleted at any time.
    """
    for path, step in _state_files(folder).items():
        try:
            state, header = load_state(path), read_header(path)
        except Gone:
            continue
        except LthError as error:
            yield fault_of(path, error)
            continue
        if header.trajectory != identity or step not in (None, state.step):
            yield Fault(path, f"it is step {header.step} of trajectory {header.trajectory[:12]}")
    for path in entries(folder):
        if path.name.startswith("answers") and path.suffix == ".safetensors":
            try:
                map_tensors(path, "answers")
            except Gone:
                continue
            except LthError as error:
                yield fault_of(path, error)


def _state_files(folder: Path) -> dict[Path, int | None]:
    """Files of states with the step they are of; None for the resume point, whose header alone says it."""
    states: dict[Path, int | None] = {path: step for step, path in stored_steps(folder).items()}
    resume = folder / "resume.safetensors"
    return {**states, resume: None} if resume.exists() else states


def _run_files(run: Run) -> Iterator[Fault]:
    try:
        info = run.info
        run.config  # noqa: B018 - read to be parsed
    except LthError as error:
        yield fault_of(run.path, error)
        return
    files = info.get("files", {})
    if info.get("state") != "finished":  # results and their checksum are written one after the other
        files = {name: sha for name, sha in files.items() if name == "config.yaml"}
    yield from _checksums(run.path, files, run.path / "run.json")


def _results(run: Run, branch: str | None) -> Iterator[Fault]:
    """Every row of the results is of a finished round, and every finished round of a finished run has a row."""
    path = run.results_path(branch)
    try:
        finished = run.info.get("state") == "finished"  # asked first: the run may finish while we look
        recorded = {row.get("round") for row in run.results(branch)}
    except LthError as error:
        yield fault_of(path, error)
        return
    rounds = {round_.number for round_ in run.rounds(branch) if round_.finished}
    for number in sorted(number for number in recorded if isinstance(number, int)):
        if number not in rounds:
            yield Fault(run.round(max(number, 0), branch).summary_path, "missing")
    missing = sorted(rounds - recorded)
    if missing and finished:
        yield Fault(path, f"it has no row for round {', '.join(map(str, missing))}")


def _stored_states(run: Run) -> _Stored:
    """Where the run keeps the states of which trajectories; damage is found when they are verified."""
    stored: _Stored = {}
    for round_ in (*run.origins(), *run.rounds()):
        for path in round_.checkpoints().values():
            try:
                header = read_header(path)
            except LthError:
                continue
            stored.setdefault((header.trajectory, header.step), path)
    return stored


def _verify_round(round_: Round, stored: _Stored) -> tuple[Masks | None, list[Fault]]:
    try:
        summary = round_.summary
    except LthError as error:
        return None, [fault_of(round_.summary_path, error)]
    faults = list(_checksums(round_.folder, summary.get("files"), round_.summary_path))
    masks: Masks | None = None
    try:
        masks = round_.masks()
        faults += _densities(round_, masks, summary)
    except LthError as error:
        faults.append(fault_of(round_.mask_path, error))
    start = summary.get("start")
    for step, path in round_.checkpoints().items():
        try:
            state = round_.checkpoint(step)
        except LthError as error:
            faults.append(fault_of(path, error))
            continue
        if state.masks and masks is not None and step == summary.get("end_step"):
            faults += _ended(round_, state, masks)
        faults += _masked(path, state, state.masks or masks or {})
        if isinstance(start, dict) and step == summary.get("start_step") and masks is not None:
            origin = (str(start.get("trajectory")), start.get("step"))
            faults += _started(path, state, state.masks or masks, stored.get(origin), start.get("fresh"))
    return masks, faults


def _teachers(run: Run) -> list[Round]:
    """Those that the run notes; what else lies there is of a process that was killed."""
    try:
        noted = run.info.get("teachers", {})
    except LthError:  # a fault of that file
        return []
    return [run.teacher(int(note["folder"])) for notes in noted.values() for note in notes]


def _verify_teacher(teacher: Round) -> Iterator[Fault]:
    """The one state of a teacher."""
    if not teacher.finished:
        yield Fault(teacher.summary_path, "missing")
        return
    try:
        summary = teacher.summary
    except LthError as error:
        yield fault_of(teacher.summary_path, error)
        return
    yield from _checksums(teacher.folder, summary.get("files"), teacher.summary_path)
    for step, path in teacher.checkpoints().items():
        try:
            teacher.checkpoint(step)
            if read_header(path).trajectory != summary.get("trajectory"):
                yield Fault(path, "it is of another trajectory than the summary says")
        except LthError as error:
            yield fault_of(path, error)


def _checksums(folder: Path, files: Any, record: Path) -> Iterator[Fault]:
    if not isinstance(files, dict):
        yield Fault(record, "it records no checksums")
        return
    for name, expected in files.items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            yield Fault(record, f"it names {name!r}, outside its folder")
            continue
        path = folder / relative
        if not path.is_file():
            yield Fault(path, "missing")
            continue
        try:
            if sha256_file(path) != expected:
                _refuse_newer(path)
                yield Fault(path, "its checksum is not the recorded one")
        except LthError as error:
            yield fault_of(path, error)


def _refuse_newer(path: Path) -> None:
    """Raise NewerFormat for a file that a newer release wrote anew."""
    if path.suffix == ".safetensors":
        refuse_newer(path)
    elif path.suffix == ".jsonl":
        read_lines(path)


def _densities(round_: Round, masks: Masks, summary: dict[str, Any]) -> Iterator[Fault]:
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    total = sum(mask.numel() for mask in masks.values())
    expected = {name: kept[name] / mask.numel() for name, mask in masks.items() if mask.numel()}
    if total and not _same(summary.get("density"), sum(kept.values()) / total):
        message = f"density {summary.get('density')} is recorded, the mask has {sum(kept.values()) / total}"
        yield Fault(round_.summary_path, message)
    recorded = summary.get("densities")
    recorded = recorded if isinstance(recorded, dict) else {}
    for name in sorted(expected.keys() | recorded.keys()):
        if not _same(recorded.get(name), expected.get(name)):
            message = f"density {recorded.get(name)} of {name} is recorded, the mask has {expected.get(name)}"
            yield Fault(round_.summary_path, message)


def _same(recorded: object, actual: float | None) -> bool:
    """Equal but for the rounding of a division done elsewhere."""
    if actual is None or not isinstance(recorded, (int, float)):
        return False
    return math.isclose(recorded, actual, rel_tol=1e-12)


def _is_nested(round_: Round) -> bool:
    """Whether the masks are said to be nested: those of random controls are not."""
    try:
        return bool(round_.summary.get("nested", True))
    except LthError:  # told already
        return False


def _nested(round_: Round, before: Masks | None, masks: Masks) -> Iterator[Fault]:
    if before is None:
        return
    if before.keys() != masks.keys():
        yield Fault(round_.mask_path, "it masks other tensors than the round before")
    for name in sorted(before.keys() & masks.keys()):
        old, new = before[name], masks[name]
        if old.shape != new.shape:
            yield Fault(round_.mask_path, f"{name} has another shape than in the round before")
        elif bool((new & ~old).any()):
            back = int((new & ~old).sum())
            yield Fault(round_.mask_path, f"{back} weights of {name} are kept that the round before pruned")


def _masked(path: Path, state: State, masks: Masks) -> Iterator[Fault]:
    for name, mask in masks.items():
        weight = state.weights.get(name)
        if weight is None:
            yield Fault(path, f"it has no weights {name}, which the mask prunes")
        elif weight.shape != mask.shape:
            yield Fault(path, f"{name} is {list(weight.shape)}, its mask {list(mask.shape)}")
        elif bool((weight[~mask] != 0).any()):
            yield Fault(path, f"{int((weight[~mask] != 0).sum())} pruned weights of {name} are not zero")


def _ended(round_: Round, state: State, masks: Masks) -> Iterator[Fault]:
    """Of a training that changes its masks, the round has those of its end."""
    for name in sorted(state.masks.keys() | masks.keys()):
        if name not in state.masks or name not in masks or not torch.equal(state.masks[name], masks[name]):
            yield Fault(round_.mask_path, f"{name} is masked otherwise at the end of the training")


def _started(
    path: Path, state: State, masks: Masks, source: Path | None, fresh: Container[str] | None
) -> Iterator[Fault]:
    if source is None:
        return
    try:
        origin = load_state(source)
    except LthError:  # a fault of that file, found where its own round is verified
        return
    joined = fresh is not None  # what such a state has beyond the architecture is left out
    for name, weight in origin.weights.items():
        if (fresh and name in fresh) or (joined and name not in state.weights):
            continue
        expected = weight
        if name in masks and masks[name].shape == weight.shape:
            expected = torch.where(masks[name], weight, torch.zeros_like(weight))
        if name not in state.weights or not torch.equal(state.weights[name], expected):
            yield Fault(path, f"{name} is not mask x the state it was started from ({source})")
    for name, buffer in origin.buffers.items():
        if joined and name not in state.buffers:
            continue
        if name not in state.buffers or not torch.equal(state.buffers[name], buffer):
            yield Fault(path, f"buffer {name} is not that of the state it was started from ({source})")


def fault_of(path: Path, error: LthError) -> Fault:
    """An error in reading, under the file it names."""
    if isinstance(error, NewerFormat):
        return Fault(error.path, error.reason, newer=True)
    if isinstance(error, Damaged):
        return Fault(error.path, error.reason)
    return Fault(path, str(error))
