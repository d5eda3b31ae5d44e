"""The one operation on trajectories: advance to a step, reusing every stored state and storing the new ones."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lth_cli.config import schema
from lth_cli.config.errors import LthError
from lth_cli.config.steps import Duration
from lth_cli.pruning import mask as mask_room
from lth_cli.store.locks import Locked
from lth_cli.store.states import State
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.loop import Diverged, Trainer, initial_state
from lth_cli.training.trajectory import FromState, Initial, Trajectory


class Interrupted(LthError):
    """A signal asked to stop; the state at that step is stored."""


class Observer:
    """Told what the engine does; this one ignores it all."""

    def training(self, step: int, first: int, to: int, loss: float) -> None:
        """A few times a second while training from `first` to `to`."""

    def evaluated(self, line: dict[str, Any]) -> None:
        """After each evaluation."""

    def message(self, text: str) -> None:
        """Something a person should know: waiting for another process, a damaged file."""


@dataclass(frozen=True)
class Advanced:
    """What advancing a trajectory cost.

    Attributes:
        trained: steps this run trained, over all its processes, replays of dropped parts not counted twice.
        reused: the rest of the steps from the trajectory's start, read from the store.
        seconds: wall clock of this call.
        metrics: an entry an evaluation, sorted by step, up to the step asked for.
    """

    trained: int
    reused: int
    seconds: float
    metrics: list[dict[str, Any]]


@dataclass
class Engine:
    """Advances trajectories through a store on behalf of one run.

    Attributes:
        store: where states are kept.
        run_id: the run that steps trained are counted for.
        evaluation: when metrics are taken.
        checkpoint_every: steps or time between resume points, as in the config.
        observer: told of progress.
        stop: when set, training stores its state and raises Interrupted.
    """

    store: TrajectoryStore
    run_id: str
    evaluation: schema.Evaluation
    checkpoint_every: str
    observer: Observer = field(default_factory=Observer)
    stop: threading.Event = field(default_factory=threading.Event)

    def advance(self, trajectory: Trajectory, to: int, keep: Iterable[int] = ()) -> Advanced:
        """Make sure that the states at `to` and at every step of `keep` are stored, and the metrics up to `to`.

        Raises:
            Diverged: when the loss stops being finite.
            Interrupted: when told to stop.
            LthError: when a state cannot be written.
        """
        begun = time.monotonic()
        first = trajectory.first_step
        if to < first:
            raise LthError(f"step {to} lies before the start of this trajectory at step {first}")
        wanted = sorted({first, to} | {step for step in keep if first <= step <= to})
        identity = trajectory.identity
        plan = self._evaluation_plan(trajectory, to)
        if not self._complete(identity, wanted, plan):
            if isinstance(trajectory.start, FromState):
                # Before this lock is taken, so that nobody waits for two.
                self.state(trajectory.start.parent, trajectory.start.step)
            with self._locked(identity):
                self._advance(trajectory, wanted, plan)
        trained = self.store.steps_by(identity, self.run_id, first, to)
        known = self._known(identity)
        metrics = sorted((known[key] for key in plan & known.keys()), key=_metric_order)
        return Advanced(trained, to - first - trained, time.monotonic() - begun, metrics)

    @contextmanager
    def _locked(self, identity: str) -> Iterator[None]:
        """Hold a trajectory's lock: one process trains it, the others wait and then read."""
        try:
            lock = self.store.lock(identity).acquire(
                wait=True, on_wait=self._report_waiting, should_stop=self.stop.is_set
            )
        except Locked as error:
            raise Interrupted(f"stopped while waiting: {error}") from error
        with lock:
            yield

    def state(self, trajectory: Trajectory, step: int) -> State:
        """The state at a step: read where stored, trained where not."""
        found = self.store.load(trajectory.identity, step)
        if found is None:
            self.advance(trajectory, step, keep=(step,))
            found = self.store.load(trajectory.identity, step)
        if found is None:
            raise LthError(f"the state at step {step} cannot be read back; run lth verify")
        return found

    def _complete(self, identity: str, wanted: list[int], plan: set[tuple[int, str]]) -> bool:
        stored = all(self.store.load(identity, step) is not None for step in wanted)
        return stored and not self._missing_at_end(identity, plan, wanted[-1])

    def _missing_at_end(self, identity: str, plan: set[tuple[int, str]], to: int) -> list[str]:
        """Splits whose metrics at the end are not known yet."""
        known = self._known(identity)
        return [split for step, split in sorted(plan - known.keys()) if step == to]

    def _known(self, identity: str) -> dict[tuple[int, str], dict[str, Any]]:
        return {(line["step"], line["split"]): line for line in self.store.metrics(identity)}

    def _advance(self, trajectory: Trajectory, wanted: list[int], plan: set[tuple[int, str]]) -> None:
        """Train what is missing, the shortest way: from the nearest stored state before each missing one."""
        identity = trajectory.identity
        self.store.clear_leftovers(identity)
        trainer: Trainer | None = None
        for step in wanted:
            if self.store.load(identity, step) is not None:
                continue
            nearest = self.store.nearest(identity, step)
            if trainer is None or (nearest is not None and nearest.step > trainer.step):
                trainer = Trainer(trajectory, nearest or self._start(trajectory, plan))
            self._train(trainer, step, plan)
        for split in self._missing_at_end(identity, plan, wanted[-1]):
            if trainer is None or trainer.step != wanted[-1]:
                trainer = Trainer(trajectory, self.state(trajectory, wanted[-1]))
            self.store.append_metrics(identity, [_evaluate(trainer, split, time.monotonic())])

    def _start(self, trajectory: Trajectory, plan: set[tuple[int, str]]) -> State:
        """The state before the first step, made and stored with its metrics."""
        if isinstance(trajectory.start, Initial):
            state = initial_state(trajectory, trajectory.start.seed)
        else:
            parent = self.state(trajectory.start.parent, trajectory.start.step)
            weights = mask_room.apply(parent.weights, trajectory.masks)
            state = State(trajectory.first_step, weights, parent.buffers, {})
        trainer = Trainer(trajectory, state)
        self._save(
            trainer, [_evaluate(trainer, split, time.monotonic()) for split in _splits(plan, state.step)]
        )
        return state

    def _train(self, trainer: Trainer, to: int, plan: set[tuple[int, str]]) -> None:
        """Train to a step, evaluating where planned, leaving a resume point at each checkpoint interval."""
        identity, start, saved_at = trainer.trajectory.identity, trainer.step, trainer.step
        if start >= self.store.frontier(identity):
            self.store.cut_metrics(identity, start)  # what a killed process wrote after its last state
        lines: list[dict[str, Any]] = []
        evaluations = {step for step, _ in plan if start < step <= to}
        checkpoints = _Checkpoints(self.checkpoint_every, trainer.trajectory.steps_per_epoch)
        begun = time.monotonic()

        def tick(step: int, loss: float) -> None:
            self.observer.training(step, trainer.trajectory.first_step, to, loss)

        def pause() -> bool:
            return self.stop.is_set() or checkpoints.overdue()

        while trainer.step < to:
            goals = (to, checkpoints.next_step(trainer.step), *evaluations)
            goal = int(min(step for step in goals if step > trainer.step))
            try:
                trainer.run(goal, pause, tick)
                for split in _splits(plan, trainer.step):
                    lines.append(_evaluate(trainer, split, begun))
                    self.observer.evaluated(lines[-1])
                if trainer.step == to or checkpoints.due(trainer.step) or self.stop.is_set():
                    self._save(trainer, lines, resume_point=trainer.step != to)
                    self.store.add_segment(identity, self.run_id, saved_at, trainer.step)
                    saved_at, lines = trainer.step, []
                    checkpoints.restart()
            except Diverged as error:
                raise error.after([*self.store.metrics(identity), *lines]) from None
            if self.stop.is_set() and trainer.step < to:
                raise Interrupted(
                    f"stopped at step {trainer.step} of {to}; the same command goes on from there"
                )
        self.store.drop_resume_point(identity, to)

    def _save(self, trainer: Trainer, lines: list[dict[str, Any]], resume_point: bool = False) -> None:
        """Store metrics, then the state: lines beyond the last state are what a crash may leave, never the reverse.

        A replay meets the metrics of the first pass again and leaves them as they are.
        """
        identity = trainer.trajectory.identity
        state = trainer.state()
        self.store.describe(identity, trainer.trajectory.description)
        known = self._known(identity)
        self.store.append_metrics(
            identity, [line for line in lines if (line["step"], line["split"]) not in known]
        )
        if resume_point:
            self.store.save_resume_point(identity, state)
        else:
            self.store.save(identity, state)

    def _evaluation_plan(self, trajectory: Trajectory, to: int) -> set[tuple[int, str]]:
        """The (step, split) pairs of a run: start, every interval, end; the training set at the end alone."""
        every = self.evaluation.every.steps(trajectory.steps_per_epoch)
        first = trajectory.first_step
        steps = {first, *range((first // every + 1) * every, to + 1, every)}
        splits: list[str] = [split for split in ("val", "test") if split in trajectory.data.sizes]
        plan: set[tuple[int, str]] = {(step, split) for step in steps for split in splits}
        if to == trajectory.horizon:
            plan |= {(to, split) for split in splits}
            if self.evaluation.train:
                plan.add((to, "train"))
        return plan

    def _report_waiting(self, holder: Any) -> None:
        self.observer.message(f"waiting for {holder}, which trains the same steps")


class _Checkpoints:
    """When the next resume point is due: after so many steps, or so much time.

    Args:
        every: the interval as in the config.
        steps_per_epoch: optimizer steps in an epoch.
    """

    def __init__(self, every: str, steps_per_epoch: int) -> None:
        self._seconds = schema.interval_seconds(every)
        self._steps = 0 if self._seconds else Duration.parse(every).steps(steps_per_epoch)
        self.restart()

    def restart(self) -> None:
        """Count time from now."""
        self._deadline = time.monotonic() + (self._seconds or math.inf)

    def overdue(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._deadline

    def due(self, step: int) -> bool:
        """Whether a resume point belongs at this step."""
        return self.overdue() or bool(self._steps and step % self._steps == 0)

    def next_step(self, step: int) -> float:
        """The next step at which one is due by count; infinity when time decides."""
        return (step // self._steps + 1) * self._steps if self._steps else math.inf


def _splits(plan: set[tuple[int, str]], step: int) -> list[str]:
    return sorted(split for planned, split in plan if planned == step)


def _evaluate(trainer: Trainer, split: str, begun: float) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    metrics = trainer.evaluate(split)
    trajectory = trainer.trajectory
    return {
        "step": trainer.step,
        "epoch": trainer.step / trajectory.steps_per_epoch,
        "split": split,
        "loss": metrics.loss,
        "accuracy": metrics.accuracy,
        "lr": trajectory.learning_rate(trainer.step),
        "seconds": round(time.monotonic() - begun, 3),
    }


def _metric_order(line: dict[str, Any]) -> tuple[int, int]:
    return line["step"], ("train", "val", "test").index(line["split"])
