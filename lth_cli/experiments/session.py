"""A run being worked on: opened or continued, its rounds trained and recorded one by one."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.compose import validate
from lth_cli.config.errors import ConfigError, LthError, RequestError
from lth_cli.config.goals import Goal
from lth_cli.config.metrics import Metric, noting
from lth_cli.config.named import SURROUNDINGS
from lth_cli.config.schema import Config
from lth_cli.config.targets import locate, with_defaults
from lth_cli.experiments.environment import describe_machine, git_commit, own_code_git
from lth_cli.experiments.kept_data import keep_data, with_kept_data, without_places_of_data
from lth_cli.experiments.ledger import ledger
from lth_cli.experiments.plan import Plan, Taken, differences
from lth_cli.experiments.predictions import keep_predictions
from lth_cli.experiments.processes import trainers
from lth_cli.experiments.space import shortage
from lth_cli.experiments.trust import remember
from lth_cli.experiments.uses import Uses
from lth_cli.pruning import mask as mask_room
from lth_cli.pruning.mask import Masks
from lth_cli.store.files import Damaged, Gone, WriteFailed
from lth_cli.store.own_code import check_own_code, own_code
from lth_cli.store.results import COST_COLUMNS, GOAL_COLUMNS
from lth_cli.store.rounds import Round
from lth_cli.store.runs import Run, now
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.engine import Advanced, Engine, Interrupted, Observer
from lth_cli.training.loop import Diverged
from lth_cli.training.trajectory import FromState, Trajectory

_TRIES = 10  # the shared store may be deleted between a training and the links to its states
# What may change between two runs of the same command without making it another experiment.
_FREE_KEYS = ("name", *SURROUNDINGS)


class SessionObserver(Observer):
    """Told also of rounds; this one ignores it all."""

    def opened(self, run: Run) -> None:
        """Before any work: the run, locked by this process."""

    def measured_by(self, metric: Metric) -> None:
        """Before the first round: the metric that rounds are told by."""

    def round_started(self, branch: str | None, number: int, density: float, identity: str) -> None:
        """Before a round's training, with the identity of its trajectory."""

    def round_finished(self, branch: str | None, row: dict[str, Any]) -> None:
        """After a round is recorded, with its row of results.csv."""

    def part_started(self, label: str) -> None:
        """Before a part of an analysis."""

    def part_finished(self, found: str) -> None:
        """After it, with what it found."""


@dataclass(frozen=True)
class Task:
    """What a command does with a run.

    Attributes:
        kind: the command.
        plan: what was asked, checked.
        program: does the work.
        trainings: how many rounds and controls it trains at most.
        source: for run.json, the run whose masks are retrained; it has an `id`.
    """

    kind: str
    plan: Plan
    program: Callable[[Session], None]
    trainings: int
    source: dict[str, Any] | None = None


@dataclass(frozen=True)
class Session:
    """One run and the engine that works on it.

    Attributes:
        run: the run directory, locked by this process.
        plan: what was asked.
        engine: advances trajectories on the run's behalf.
        observer: told of progress.
    """

    run: Run
    plan: Plan
    engine: Engine
    observer: SessionObserver

    @property
    def storing(self) -> bool:
        """Whether a state is being written now."""
        return self.engine.storing

    def interrupted(self, text: str) -> None:
        """Note that the work has ended before its end. Raises WriteFailed, Damaged, ReadFailed."""
        self.run.update(state="interrupted", error=text)

    def train_round(
        self,
        number: int,
        trajectory: Trajectory,
        masks: Masks,
        branch: str | None = None,
        keep: tuple[int, ...] = (),
        nested: bool = True,
        until: Goal | None = None,
    ) -> None:
        """Advance a trajectory to its end and record it as a round of the run; a finished round is left alone.

        Args:
            number: of the round.
            trajectory: its training.
            masks: True = kept.
            branch: kind of control; None for the run itself.
            keep: further steps whose states the run keeps, beside start and end.
            nested: whether the masks keep nothing that those of earlier rounds prune.
            until: a goal that ends it before.
        """
        round_ = self.run.round(number, branch)
        keep = (trajectory.first_step, *keep, trajectory.end)
        if self._finished(round_, trajectory):
            self._adopt(round_, trajectory)
            self._write_results(branch)  # a process may have died between the round and its row
            return
        self.observer.round_started(branch, number, mask_room.density(masks), trajectory.identity)
        predictions = self.plan.config.evaluation.predictions
        self._train(round_, trajectory, masks, trajectory.end, keep, nested, predictions, until)
        self._write_results(branch)
        self.observer.round_finished(branch, row(round_.summary))

    def _finished(self, round_: Round, trajectory: Trajectory) -> bool:
        """Whether a round is there already; one whose summary is damaged is told, and recorded anew."""
        try:
            return round_.finished and bool(round_.summary["trajectory"] == trajectory.identity)
        except Damaged as damage:
            self.observer.message(f"{damage}; the round is recorded anew")
            return False

    def _write_results(self, branch: str | None) -> None:
        rows = []
        for round_ in self.run.rounds(branch):
            try:
                if round_.finished:
                    rows.append(row(round_.summary))
            except Damaged:  # told and recorded anew when its turn comes
                continue
        self.run.write_results(rows, branch)

    def train_origin(self, trajectory: Trajectory, *steps: int) -> int:
        """Advance a training that rounds start from, and keep its states at these steps with the run.

        Its own origin comes first, so that the run can be rewound further wherever it is copied to.

        Returns:
            How many trainings and weights from elsewhere lie behind it.
        """
        number = 1 + self.train_start(trajectory)
        round_ = self.run.origin(number)
        if self._finished(round_, trajectory):
            self._adopt(round_, trajectory)
        else:
            self._train(round_, trajectory, None, max(steps), steps, nested=True)
        return number

    def train_start(self, trajectory: Trajectory) -> int:
        """Have what a training starts from: another training, or weights from elsewhere.

        Returns:
            The number of that among the run's origins; -1 where it starts from nothing.
        """
        origin, taken = trajectory.origin, self.plan.taken
        if origin is None:
            return -1
        if isinstance(origin.parent, Trajectory):
            return self.train_origin(origin.parent, origin.step)
        if taken is None or origin.parent.identity != taken.of.parent.identity:
            return -1
        self._keep_taken(taken)
        return 0

    def _keep_taken(self, taken: Taken) -> None:
        """Keep weights from elsewhere in the run, so that it can always be gone on with and repeated."""
        identity, step, folder = taken.of.parent.identity, taken.of.step, self.run.origin(0)
        taken.provide(self.engine)
        if not (folder.finished and folder.summary["trajectory"] == identity):
            description = keep_state(self.engine, folder, taken.of)
            weights = self.engine.state(taken.of.parent, step).weights
            whole = mask_room.everything(
                {name: tuple(weights[name].shape) for name in self.plan.prunable if name in weights}
            )
            folder.save_masks(whole)
            folder.write_summary(
                {
                    "round": 0,
                    "density": 1.0,
                    "sparsity": 0.0,
                    "densities": mask_room.layer_densities(whole),
                    "kept": mask_room.layer_counts(whole),
                    "trajectory": identity,
                    "description": description,
                    "start_step": step,
                    "end_step": step,
                    "steps_trained": 0,
                    "steps_reused": 0,
                }
            )
        note = {"name": taken.name, "label": taken.label, "trajectory": identity, "step": step}
        if self.run.info.get("weights") != note:
            self.run.update(weights=note)

    def _adopt(self, round_: Round, trajectory: Trajectory) -> None:
        """Let the shared store have the states of a finished round, should it have been deleted."""
        for path in round_.checkpoints().values():
            self.engine.adopt(trajectory.identity, path, trajectory.description)

    def _train(
        self,
        round_: Round,
        trajectory: Trajectory,
        masks: Masks | None,
        end: int,
        keep: tuple[int, ...],
        nested: bool,
        predictions: bool = False,
        until: Goal | None = None,
    ) -> None:
        """Advance a trajectory and record it; what is deleted from the store in between is trained again.

        Masks of None keep everything; the training may have a head of its own, so its state says the shapes. Of a
        training that changes its masks, those of its end are recorded.
        """
        for _ in range(_TRIES):
            advanced = self.engine.advance(trajectory, end, keep, until)
            at, ended, kept = advanced.end, trajectory, keep
            if at < end:
                ended = dataclasses.replace(trajectory, ends_at=at)
                kept = (*(step for step in keep if step < at), at)
            chosen = masks
            if trajectory.recipe.policy is not None:
                chosen = self.plan.ordered(self.engine.state(ended, at).masks)
            if chosen is None:
                weights = self.engine.state(ended, at).weights
                chosen = mask_room.everything(
                    {name: tuple(weights[name].shape) for name in self.plan.prunable}
                )
            try:
                self._record(round_, ended, chosen, at, kept, advanced, nested, predictions, until)
            except Gone as error:
                if error.path.is_relative_to(round_.folder):
                    raise
                continue
            self._adopt(round_, ended)
            return
        raise LthError(f"{self.engine.store.root} is deleted again and again while states are taken from it")

    def _record(
        self,
        round_: Round,
        trajectory: Trajectory,
        masks: Masks,
        end: int,
        keep: tuple[int, ...],
        advanced: Advanced,
        nested: bool,
        predictions: bool,
        until: Goal | None,
    ) -> None:
        """Fill the round's folder; the summary comes last and makes it finished."""
        store, identity = self.engine.store, trajectory.identity
        round_.save_masks(masks)
        for step in sorted({step for step in keep if trajectory.first_step <= step}):
            round_.add_checkpoint(step, store.state_path(identity, step))
        round_.write_metrics(advanced.metrics)
        if predictions:
            keep_predictions(round_, trajectory, self.engine)
        density = mask_room.density(masks)
        names = ["loss", *(metric.name for metric in self.plan.metrics)]
        round_.write_summary(
            {
                "round": round_.number,
                "density": density,
                "sparsity": 1.0 - density,
                "densities": mask_room.layer_densities(masks),
                "kept": mask_room.layer_counts(masks),
                "metrics": {
                    line["split"]: {name: line[name] for name in names if name in line}
                    for line in advanced.metrics
                    if line["step"] == end
                },
                **({} if (subset := self.plan.config.evaluation.subset) is None else {"subset": subset}),
                **({} if until is None else _outcome(trajectory, until, advanced)),
                "trajectory": identity,
                "description": trajectory.description,
                "start": trajectory.description["start"],
                "start_step": trajectory.first_step,
                "end_step": end,
                "nested": nested,
                "steps_trained": advanced.trained,
                "steps_reused": advanced.reused,
                "seconds": round(advanced.seconds, 3),
                "cost": ledger(trajectory, masks, end, advanced.spans),
            }
        )


def _outcome(trajectory: Trajectory, until: Goal, advanced: Advanced) -> dict[str, Any]:
    """How a training towards a goal ended, as in `results.csv`."""
    steps = advanced.end - trajectory.first_step if advanced.reached else None
    return {"goal": until.value, "steps_to_goal": steps, "diverged_at": advanced.diverged}


def keep_state(engine: Engine, folder: Round, of: FromState) -> dict[str, Any]:
    """Link a state from elsewhere into its folder of a run; again where the store is deleted meanwhile.

    Returns:
        The description of its training.

    Raises:
        LthError: it can be neither read nor trained.
    """
    for _ in range(_TRIES):
        engine.state(of.parent, of.step)
        try:
            folder.add_checkpoint(of.step, engine.store.state_path(of.parent.identity, of.step))
        except Gone:
            continue
        description = engine.store.description(of.parent.identity)
        if description is not None:
            return description
    raise LthError(f"{engine.store.root} is deleted again and again while a state is taken from it")


def row(summary: dict[str, Any]) -> dict[str, Any]:
    """A row of results.csv, in its fixed order, from a round's summary; further metrics and what it cost come last."""
    metrics = summary["metrics"]
    splits = ("train", "val", "test")

    def scores(*quantities: str) -> dict[str, Any]:
        found = {(split, name): metrics.get(split, {}).get(name) for split in splits for name in quantities}
        return {f"{split}_{name}": value for (split, name), value in found.items()}

    known = dict.fromkeys(name for split in splits for name in metrics.get(split, {}))
    further = [scores(name) for name in known if name not in ("loss", "accuracy")]
    return {
        **{key: summary[key] for key in ("round", "density", "sparsity")},
        **scores("loss", "accuracy"),
        **{key: summary[key] for key in ("steps_trained", "steps_reused", "seconds")},
        **{column: value for columns in further for column, value in columns.items()},
        **({"evaluation_subset": summary["subset"]} if "subset" in summary else {}),
        **{column: summary[column] for column in GOAL_COLUMNS if column in summary},
        # A round that an earlier release recorded has none of these.
        **{column: summary["cost"][column] for column in COST_COLUMNS if "cost" in summary},
    }


def find_existing(config: Config, kind: str, name: str, source: str | None = None) -> Run | None:
    """The run of that name, if there is one and it is of the same experiment.

    Args:
        config: what is asked now.
        kind: the command.
        name: of the run.
        source: id of the run whose masks are retrained.

    Raises:
        RequestError: when a different run has the name.
    """
    path = Path(config.runs_dir) / name
    if not path.exists():
        return None
    run = Run.open(path)
    ours = comparable(config)
    theirs = comparable(stored_config(run))
    for key in ("device", "threads"):
        if ours[key] == "auto":
            ours[key] = theirs.get(key)
    target = config.dataset.target
    if theirs["dataset"]["_target_"] == target:
        # Of a release whose data set had fewer keys: what they are by default is what it did.
        reader = locate(target, "dataset._target_")
        ours["dataset"], theirs["dataset"] = (with_defaults(reader, one["dataset"]) for one in (ours, theirs))
    differing = differences(ours, theirs)
    if run.info["kind"] != kind:
        differing.insert(0, f"command ({run.info['kind']} there, {kind} now)")
    if source is not None and source != run.info.get("source", {}).get("id"):
        differing.insert(0, "it retrains the masks of another run")
    if differing:
        shown = "; ".join(differing[:5]) + ("; ..." if len(differing) > 5 else "")
        raise RequestError(
            f"name: the run {name!r} exists and is another experiment: {shown}. Give another name="
        )
    if "own_code" not in run.info and own_code(config):
        raise RequestError(
            f"name: the run {name!r} is of a release that kept no source of your own code, so that nobody can tell "
            "whether it is the same now. Give another name="
        )
    check_own_code(
        run,
        "Give another name= to train with the present code, or put the former back "
        "(run.json has it); a _version_ of your own beside _target_ says which changes count",
    )
    return run


def stored_config(run: Run) -> Config:
    """The config a run was made with: keys of a newer release take their defaults, scores are where they lie now.

    Raises:
        RequestError: when it is not a config this release understands.
    """
    try:
        return with_kept_data(validate(run.config), run)
    except ConfigError as error:
        raise RequestError(f"{run.path / 'config.yaml'} is not a config of this release: {error}") from error


def comparable(config: Config) -> dict[str, Any]:
    """The plain config without what may change between two runs of the same command."""
    plain = without_places_of_data(config).model_dump(mode="json")
    return {key: value for key, value in plain.items() if key not in _FREE_KEYS}


@contextmanager
def open_session(
    task: Task, name: str, observer: SessionObserver, stop: threading.Event
) -> Iterator[Session]:
    """Create the run or continue it, hold its lock, and leave its state right however the work ends.

    Raises:
        RequestError: when another process works on the run, or the folder cannot be written.
        NewerFormat: when a newer release went on with the run.
    """
    config = task.plan.config.model_copy(update={"name": name})
    # Found by `teachers.with_teachers`; without it they would be left out in silence.
    assert task.plan.teachers is not None or not config.distillation.teachers
    source = None if task.source is None else str(task.source["id"])
    existing = find_existing(config, task.kind, name, source)
    if existing is not None:
        existing.refuse_newer()
    run = existing or _create(config, task, name)
    taught = [{"model": dict(named.teacher.model)} for named in task.plan.teachers or ()]
    # What a stored config names was asked for before, or is trusted by the word that let it come here.
    remember([config.model_dump(mode="json"), (task.source or {}).get("config", {}), *taught])
    with run.lock().acquire(), trainers() as make_trainer:
        run.clear_leftovers()
        keep_data(config, run)
        run.update(state="running", error=None, diverged=None, trainings=task.trainings)
        observer.opened(run)
        observer.measured_by(task.plan.metrics[0])
        done = sum(round_.finished for branch in (None, *run.branches()) for round_ in run.rounds(branch))
        short = shortage(task.plan, max(0, task.trainings - done), run.path)
        if short is not None:
            observer.message(short)
        for warning in task.plan.warnings:
            observer.message(warning)
        engine = Engine(
            TrajectoryStore(Path(config.runs_dir) / ".store", warn=observer.message),
            run.info["id"],
            config.evaluation,
            config.checkpoint.every,
            observer,
            Uses(run),
            stop,
            make_trainer,
            task.plan.own,
        )
        try:
            yield Session(run, task.plan, engine, observer)
        except Interrupted as error:
            run.update(state="interrupted", error=str(error))
            raise
        except LthError as error:
            _mark_failed(run, error)
            raise
        except Exception as error:
            _mark_failed(run, error)
            raise
        run.update(state="finished", finished=now(), error=None)
        run.write_uses(())


def _mark_failed(run: Run, error: Exception) -> None:
    """Best effort: on a full disk the run stays marked as running by a dead process, which shows as interrupted."""
    diverged = None
    if isinstance(error, Diverged):
        diverged = {"step": error.step, "last_finite_metrics": error.last_finite}
    try:
        run.update(state="failed", error=str(error) or type(error).__name__, diverged=diverged)
    except LthError as second:
        sys.stderr.write(f"the failure could not be noted in the run: {second}\n")


def own_code_notes(config: Config) -> dict[str, Any]:
    """The code of a person's own, with what git says of its files."""
    code = own_code(config)
    if not code:
        return {}
    git = own_code_git(sorted({name for one in code.values() for name in one["modules"]}))
    return {"own_code": code, **({"own_code_git": git} if git else {})}


def _create(config: Config, task: Task, name: str) -> Run:
    runs_dir = Path(config.runs_dir)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE):
            raise WriteFailed(runs_dir, error) from error
        raise RequestError(
            f"runs_dir: cannot make the folder {config.runs_dir!r}: {error.strerror}"
        ) from error
    if not os.access(runs_dir, os.W_OK | os.X_OK):
        raise RequestError(f"runs_dir: cannot write to the folder {config.runs_dir!r}")
    return Run.create(
        runs_dir,
        name,
        config.model_dump(mode="json"),
        {
            "kind": task.kind,
            **({} if task.source is None else {"source": task.source}),
            "command": ["lth", *sys.argv[1:]],
            "state": "running",
            "created": now(),
            "finished": None,
            "seeds": config.resolved_seeds,
            **noting(task.plan.metrics),
            "git_commit": git_commit(),
            **own_code_notes(config),
            "error": None,
            **describe_machine(config),
        },
    )
