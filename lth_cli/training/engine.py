"""The one operation on trajectories: advance to a step, reusing every stored state and storing the new ones."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch

from lth_cli.config import schema
from lth_cli.config.errors import LthError
from lth_cli.config.goals import Goal
from lth_cli.config.steps import Duration
from lth_cli.config.values import interval_seconds
from lth_cli.models.blocks import permuted_blocks
from lth_cli.models.build import prunable
from lth_cli.models.initialize import keep_signs
from lth_cli.objectives.own_metrics import OwnMetric
from lth_cli.pruning import mask as mask_room
from lth_cli.pruning.isometry import isometric
from lth_cli.store.locks import Locked
from lth_cli.store.states import State, read_header
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training import lines as lines_room
from lth_cli.training import optimizers
from lth_cli.training.evaluate import Stopped
from lth_cli.training.freezing import frozen
from lth_cli.training.latent import latent
from lth_cli.training.loop import Diverged, Trainer, begun, initial_state
from lth_cli.training.teaching import Teaching, make_teaching
from lth_cli.training.trajectory import (
    Carried,
    FromState,
    Initial,
    Isometric,
    Joined,
    KeptSigns,
    Known,
    Moved,
    Permuted,
    Start,
    Trajectory,
)

_TRIES = 10  # somebody may delete the store while this trains, but not ten times in a row


class Interrupted(LthError):
    """A signal asked to stop; the state at that step is stored."""


class Observer:
    """Told what the engine does; this one ignores it all."""

    def training(self, step: int, first: int, to: int, loss: float) -> None:
        """A few times a second while training from `first` to `to`."""

    def evaluated(self, line: dict[str, Any], identity: str) -> None:
        """After each evaluation, with the identity of its trajectory."""

    def message(self, text: str) -> None:
        """Something a person should know: waiting for another process, a damaged file."""


@dataclass(frozen=True)
class Advanced:
    """What advancing a trajectory cost.

    Attributes:
        spans: (first, last + 1) of the steps this run trained, over all its processes, replays of dropped parts not
            counted twice; ascending.
        reused: how many of the steps from the trajectory's start it did not, but read from the store.
        seconds: wall clock of this call.
        metrics: an entry an evaluation, sorted by step, up to the step asked for.
        end: the step it was advanced to: that asked for, where a goal was reached, or the last evaluation before
            it diverged.
        reached: whether a goal was reached there.
        diverged: the step at which something was not finite, of a training towards a goal.
    """

    spans: list[tuple[int, int]]
    reused: int
    seconds: float
    metrics: list[dict[str, Any]]
    end: int
    reached: bool = False
    diverged: int | None = None

    @property
    def trained(self) -> int:
        """How many steps this run trained."""
        return sum(last - first for first, last in self.spans)


def _trainer(trajectory: Trajectory, state: State, teaching: Teaching | None) -> Trainer:
    return Trainer(trajectory, state, teaching=teaching)


MakeTrainer: TypeAlias = Callable[[Trajectory, State, Teaching | None], Trainer]


@dataclass
class Engine:
    """Advances trajectories through a store on behalf of one run.

    Attributes:
        store: where states are kept.
        run_id: the run that steps trained are counted for.
        evaluation: when metrics are taken.
        checkpoint_every: steps or time between resume points, as in the config.
        observer: told of progress.
        uses: told the identity of a trajectory before any of its states is looked for.
        own: metrics of a person's own, of the validation and test examples.
        make_trainer: makes the trainer of this process, or one that leads several.
        stop: when set, training stores its state and raises Interrupted.
        storing: whether a state is being written now.
    """

    store: TrajectoryStore
    run_id: str
    evaluation: schema.Evaluation
    checkpoint_every: str
    observer: Observer = field(default_factory=Observer)
    uses: Callable[[str], None] = lambda identity: None
    stop: threading.Event = field(default_factory=threading.Event)
    make_trainer: MakeTrainer = _trainer
    own: tuple[OwnMetric, ...] = ()
    storing: bool = field(default=False, init=False)
    _kept: dict[tuple[str, int], tuple[Path, dict[str, Any]]] = field(default_factory=dict, init=False)

    def advance(
        self, trajectory: Trajectory, to: int, keep: Iterable[int] = (), until: Goal | None = None
    ) -> Advanced:
        """Make sure that the states at `to` and at every step of `keep` are stored, and the metrics up to `to`.

        Towards a goal, `to` is the first evaluation that reaches it, where one does. Which that is follows from the
        metrics alone, so it is the same however often training was interrupted, and whoever trained.

        Raises:
            Diverged: when the loss stops being finite; a training towards a goal ends at the evaluation before.
            Interrupted: when told to stop.
            LthError: when a state cannot be written.
        """
        begun = time.monotonic()
        first = trajectory.first_step
        if to < first:
            raise LthError(f"step {to} lies before the start of this trajectory at step {first}")
        identity = trajectory.identity
        self.uses(identity)
        keep = set(keep)
        most, diverged = to, None
        for _ in range(_TRIES):
            end = self._first_reaching(trajectory, most, until)
            wanted = sorted({first, end} | {step for step in keep if first <= step <= end})
            plan = self._evaluation_plan(trajectory, end, last=end == trajectory.end or end < to)
            if not self._complete(identity, wanted, plan):
                if trajectory.origin is not None and self.store.load(identity, first) is None:
                    # Before this lock is taken, so that nobody waits for two.
                    self.state(trajectory.origin.parent, trajectory.origin.step)
                teaching = self._teaching(trajectory)
                try:
                    with self._locked(identity):
                        self._advance(trajectory, wanted, plan, teaching, until)
                except Diverged as error:
                    before = [step for step, _ in plan if step < error.step]
                    if until is None or not before:
                        raise
                    most, diverged = max(before), error.step
                    self.observer.message(f"{error}; it ends at step {most}, without the goal")
                    continue
                if self._first_reaching(trajectory, most, until) != end:
                    continue  # the goal was reached before
            known = self._known(identity, wanted)
            if plan <= known.keys() and all(self.store.state_path(identity, at).exists() for at in wanted):
                break
            self.observer.message(
                f"what was trained is gone from {self.store.root} again, which somebody deleted; "
                "training what is missing"
            )
        else:
            raise LthError(f"{self.store.root} is deleted again and again while this trains into it")
        spans = self.store.spans_by(identity, self.run_id, first, end)
        reused = end - first - sum(last - begin for begin, last in spans)
        metrics = sorted(
            (lines_room.told(known[key], self.own) for key in plan & known.keys()), key=_metric_order
        )
        reached = until is not None and any(map(until.reached, metrics))
        return Advanced(spans, reused, time.monotonic() - begun, metrics, end, reached, diverged)

    def _first_reaching(self, trajectory: Trajectory, to: int, until: Goal | None) -> int:
        """The step of the first planned evaluation up to `to` that is known to reach a goal; `to` where none is."""
        if until is None:
            return to
        plan, known = self._evaluation_plan(trajectory, to, last=True), self._known(trajectory.identity, ())
        return min(
            (step for step, split in plan & known.keys() if until.reached(known[step, split])), default=to
        )

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

    def state(self, trajectory: Trajectory | Known, step: int) -> State:
        """The state at a step: read where stored, trained where not.

        Raises:
            LthError: when it can be neither read nor trained.
        """
        identity = trajectory.identity
        self.uses(identity)
        for _ in range(_TRIES):
            found = self.store.load(identity, step)
            if found is None and (identity, step) in self._kept:
                self.store.adopt(identity, *self._kept[identity, step])
                found = self.store.load(identity, step)
            if found is not None:
                return found
            if isinstance(trajectory, Known):
                raise LthError(
                    f"the state at step {step} of trajectory {identity[:12]} is not stored any more"
                )
            self.advance(trajectory, step, keep=(step,))
        raise LthError(f"the state at step {step} cannot be read back; run lth verify")

    def adopt(self, identity: str, path: Path, description: dict[str, Any]) -> None:
        """Let the store have a state file that a run keeps, now and should the store be deleted later.

        Raises:
            Damaged: the file says it is of another trajectory, or is no state.
            ReadFailed, NewerFormat, WriteFailed.
        """
        self.store.adopt(identity, path, description)
        self._kept[identity, read_header(path).step] = (path, description)

    def _complete(self, identity: str, wanted: list[int], plan: set[tuple[int, str]]) -> bool:
        stored = all(self.store.load(identity, step) is not None for step in wanted)
        return (
            stored
            and plan <= self._known(identity, wanted).keys()
            and not self.store.damaged_records(identity)
        )

    def _known(self, identity: str, wanted: Iterable[int]) -> dict[tuple[int, str], dict[str, Any]]:
        return lines_room.known(self.store.metrics(identity), self.own, wanted, self.evaluation.subset)

    def _teaching(self, trajectory: Trajectory) -> Teaching | None:
        """The teachers of a training, trained where they are not stored. Raises Interrupted, LthError."""
        if trajectory.distilled is None:
            return None
        states = [self.state(teacher.of.parent, teacher.of.step) for teacher in trajectory.distilled.teachers]
        try:
            return make_teaching(trajectory, states, self.store, self.uses, self.stop.is_set)
        except Stopped:
            raise Interrupted("stopped while teachers answer; the same command goes on from there") from None

    def _advance(
        self,
        trajectory: Trajectory,
        wanted: list[int],
        plan: set[tuple[int, str]],
        teaching: Teaching | None,
        until: Goal | None,
    ) -> None:
        """Train what is missing, the shortest way: from the nearest stored state before each missing one.

        An evaluation that is not stored (damaged, or never asked for) is made from its state, trained to again.
        """
        identity = trajectory.identity
        self.store.clear_leftovers(identity)
        self.store.repair_records(identity)
        unknown = sorted({step for step, _ in plan - self._known(identity, wanted).keys()})
        trainer: Trainer | None = None
        for before, step in zip([-1, *wanted], wanted, strict=False):
            stored = self.store.load(identity, step) is not None
            evaluations = [at for at in unknown if before < at <= step]
            if stored and not evaluations:
                continue
            nearest = self.store.nearest(identity, min([*evaluations, step]))
            if trainer is None or (nearest is not None and nearest.step > trainer.step):
                trainer = self.make_trainer(trajectory, nearest or self._start(trajectory), teaching)
            goal = evaluations[-1] if stored else step
            if stored and goal > trainer.step:
                missing = ", ".join(map(str, evaluations[:5])) + (", ..." if len(evaluations) > 5 else "")
                self.observer.message(
                    f"evaluations at step {missing} are not stored; training again from step {trainer.step} for them"
                )
            if self._train(trainer, goal, plan, wanted, keep=not stored, until=until):
                return

    def _start(self, trajectory: Trajectory) -> State:
        """The state before the first step, made and stored."""
        state = begun(trajectory, self._made(trajectory, trajectory.start))
        self.store.save(trajectory.identity, state, trajectory.description)
        return state

    def _made(self, trajectory: Trajectory, start: Start) -> State:
        """The state of a start, masked as the trajectory is. Raises Interrupted."""
        if isinstance(start, Isometric):
            return self._isometric(trajectory, start, self._made(trajectory, start.of))
        if isinstance(start, Initial):
            return initial_state(trajectory, start.seed)
        if isinstance(start, KeptSigns):
            signs = self.state(start.of.parent, start.of.step)
            fresh = initial_state(trajectory, start.seed)
            weights = mask_room.apply(keep_signs(fresh.weights, signs.weights), trajectory.masks)
            return State(trajectory.first_step, weights, fresh.buffers, masks=fresh.masks)
        origin = start if isinstance(start, FromState) else start.of
        parent = self.state(origin.parent, origin.step)
        if origin.keeps_optimizer and parent.partial:
            raise LthError(
                f"the state at step {origin.step} of trajectory {origin.parent.identity[:12]} was packed without its "
                "optimizer, which rewind.optimizer=kept goes on with; lth pack --optimizer keeps it"
            )
        weights, buffers = parent.weights, parent.buffers
        if isinstance(start, Joined):
            drawn = initial_state(trajectory, start.seed)
            weights = {
                name: (drawn if name in start.fresh else parent).weights[name] for name in drawn.weights
            }
            buffers = {name: buffers.get(name, buffer) for name, buffer in drawn.buffers.items()}
        if isinstance(start, Carried):
            others = self.state(start.others.parent, start.others.step).weights
            weights = weights | {name: others[name] for name in start.names}
        if isinstance(start, Permuted):
            weights = weights | permuted_blocks(weights, start.names, start.seed)
        if isinstance(start, Moved):
            by = start.by
            weights = {name: weight + by[name] if name in by else weight for name, weight in weights.items()}
        changing = trajectory.recipe.policy is not None
        masks = (changing and parent.masks) or trajectory.masks
        weights = mask_room.apply(weights, masks)
        kept = optimizers.masked(parent.optimizer, masks) if origin.keeps_optimizer else {}
        hidden = latent(trajectory.recipe.policy, trajectory.recipe.seeds["mask"])
        memory = {} if hidden is None else hidden.carried(parent)
        return State(trajectory.first_step, weights, buffers, kept, masks if changing else {}, memory)

    def _isometric(self, trajectory: Trajectory, start: Isometric, state: State) -> State:
        """A state with its layers made isometric, in fp32 on the trajectory's device. Raises Interrupted."""
        execution, masks = trajectory.execution, state.masks or trajectory.masks
        dataclasses.replace(execution, dtype="fp32").activate()
        model = trajectory.recipe.build(init_seed=0)
        still = frozen(model, trajectory.recipe.freeze)
        layers = [name for name in prunable(model, biases=False) if name not in still]
        self.observer.message(f"making {len(layers)} layers isometric in {start.iterations:,} iterations")
        made = isometric(
            {name: state.weights[name].to(execution.device) for name in layers},
            masks,
            layers,
            iterations=start.iterations,
            rate=start.rate,
            should_stop=self.stop.is_set,
        )
        if made is None:
            raise Interrupted("stopped while weights are made isometric; the same command begins that anew")
        # Where a step is too long for a layer, its weights leave the finite numbers.
        for name, weight in made.items():
            if not torch.isfinite(weight).all():
                raise LthError(f"making {name!r} isometric diverged")
        weights = mask_room.apply(
            state.weights | {name: weight.cpu() for name, weight in made.items()}, masks
        )
        return dataclasses.replace(state, weights=weights)

    def _train(
        self,
        trainer: Trainer,
        to: int,
        plan: set[tuple[int, str]],
        wanted: list[int],
        keep: bool,
        until: Goal | None,
    ) -> bool:
        """Train to a step, evaluating where planned, leaving a resume point at each checkpoint interval.

        The state there is stored if it is to be kept; where only an evaluation was missing, nobody asked for it.

        Returns:
            Whether an evaluation reached the goal, at which it stops.
        """
        identity, saved_at = trainer.trajectory.identity, trainer.step
        if saved_at >= self.store.frontier(identity):
            self.store.cut_metrics(identity, saved_at)  # what a killed process wrote after its last state
        pending = plan - self._known(identity, wanted).keys()
        lines: list[dict[str, Any]] = []
        checkpoints = _Checkpoints(self.checkpoint_every, trainer.trajectory.steps_per_epoch)
        begun = time.monotonic()

        def tick(step: int, loss: float) -> None:
            self.observer.training(step, trainer.trajectory.first_step, to, loss)

        def pause() -> bool:
            return self.stop.is_set() or checkpoints.overdue()

        try:
            while True:
                found = self._evaluate(trainer, pending, begun)
                lines += found
                reached = until is not None and any(map(until.reached, found))
                done, stopping = reached or trainer.step == to, self.stop.is_set()
                if done or stopping or (trainer.step > saved_at and checkpoints.due(trainer.step)):
                    self._save(trainer, lines, saved_at, resume_point=not done, keep=keep)
                    saved_at, lines = trainer.step, []
                    checkpoints.restart()
                if stopping and not (done and not _splits(pending, trainer.step)):
                    raise Interrupted(
                        f"stopped at step {trainer.step} of {to}; the same command goes on from there"
                    )
                if done:
                    break
                goals = (to, checkpoints.next_step(trainer.step), *(step for step, _ in pending))
                trainer.run(int(min(step for step in goals if step > trainer.step)), pause, tick)
        except Diverged as error:
            raise error.after([*self.store.metrics(identity), *lines]) from None
        self.store.drop_resume_point(identity, trainer.step)
        return reached

    def _evaluate(
        self, trainer: Trainer, pending: set[tuple[int, str]], begun: float
    ) -> list[dict[str, Any]]:
        """Evaluate what is planned at the present step, and take it off the plan; told to stop, leave the rest."""
        lines: list[dict[str, Any]] = []
        for split in _splits(pending, trainer.step):
            try:
                lines.append(
                    _evaluate(trainer, split, begun, self.own, self.stop.is_set, self.evaluation.subset)
                )
            except Stopped:
                break
            pending.discard((trainer.step, split))
            self.observer.evaluated(lines[-1], trainer.trajectory.identity)
        return lines

    def _save(
        self,
        trainer: Trainer,
        lines: list[dict[str, Any]],
        trained_from: int,
        *,
        resume_point: bool,
        keep: bool,
    ) -> None:
        """Store metrics, then who trained, then the state.

        After a crash in between, lines beyond the last state are dropped and steps noted twice count once.
        """
        identity, step = trainer.trajectory.identity, trainer.step
        state = trainer.state()
        self.store.append_metrics(identity, lines)
        if step == trained_from:  # nothing was trained: the state is the stored one this began from
            return
        self.store.add_segment(identity, self.run_id, trained_from, step)
        self.storing = True
        try:
            if resume_point:
                self.store.save_resume_point(identity, state, trainer.trajectory.description)
            elif keep and ((found := self.store.load(identity, step)) is None or found.partial):
                self.store.save(identity, state, trainer.trajectory.description)
        finally:
            self.storing = False

    def _evaluation_plan(self, trajectory: Trajectory, to: int, *, last: bool) -> set[tuple[int, str]]:
        """The (step, split) pairs of a run: start, every interval, end; the training set at the end alone.

        `last`: whether the training ends at `to`.
        """
        every = self.evaluation.every.steps(trajectory.steps_per_epoch)
        first = trajectory.first_step
        steps = {first, *range((first // every + 1) * every, to + 1, every)}
        splits: list[str] = [split for split in ("val", "test") if split in trajectory.data.sizes]
        plan: set[tuple[int, str]] = {(step, split) for step in steps for split in splits}
        if last:
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
        self._seconds = interval_seconds(every)
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


def _evaluate(
    trainer: Trainer,
    split: str,
    begun: float,
    own: tuple[OwnMetric, ...],
    should_stop: Callable[[], bool],
    subset: int | None,
) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    metrics = trainer.evaluate(split, should_stop, subset)
    trajectory = trainer.trajectory
    further: dict[str, Any] = {}
    if own and split != "train":
        further = lines_room.measured(own, *trainer.answers(split, should_stop))
    return {
        "step": trainer.step,
        "epoch": trainer.step / trajectory.steps_per_epoch,
        "split": split,
        **({} if subset is None else {"subset": subset}),
        # Infinite, such as the PSNR of a perfect answer, is written as nothing: lines hold finite numbers.
        **{name: value if math.isfinite(value) else None for name, value in metrics.items()},
        **further,
        "lr": trajectory.learning_rate(trainer.step),
        "seconds": round(time.monotonic() - begun, 3),
    }


def _metric_order(line: dict[str, Any]) -> tuple[int, int]:
    return line["step"], ("train", "val", "test").index(line["split"])
