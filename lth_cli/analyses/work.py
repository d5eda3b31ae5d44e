"""An analysis at work: its folder held, states read or trained, parts that are done remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from lth_cli.analyses.schema import Analyze
from lth_cli.config.schema import Evaluation
from lth_cli.config.steps import Duration
from lth_cli.data.batches import Batch, mixed_order
from lth_cli.experiments.processes import trainers
from lth_cli.experiments.recorded import Recorded
from lth_cli.experiments.session import SessionObserver
from lth_cli.experiments.uses import Uses
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.files import digest
from lth_cli.store.locks import Locked
from lth_cli.store.states import State
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.engine import Engine, Interrupted
from lth_cli.training.evaluate import Metrics, Stopped, evaluate
from lth_cli.training.trajectory import Trajectory

# Trainings that an analysis makes are evaluated at their start and end alone.
_SELDOM = Evaluation(every=Duration(iterations=10**9))


@dataclass
class Work:
    """What a study does its work with.

    Attributes:
        stored: the folder of the answer, locked by this process.
        identity: of the question.
        engine: advances trajectories on its behalf.
        observer: told of progress.
        trained: steps that were trained for this answer.
        reused: the rest of the steps that the trainings it asked for consist of.
    """

    stored: StoredAnalysis
    identity: str
    engine: Engine
    observer: SessionObserver
    trained: int = 0
    reused: int = 0
    _parts: dict[str, Any] = field(default_factory=dict)

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """A part of the work, whose plain result outlives a kill: computed, or read where it is done already.

        Args:
            key: plain values that tell this part from others of the same question.
            compute: returns plain values, finite numbers only.

        Raises:
            Interrupted: told to stop, before or in the middle of it.
        """
        name = digest(key)
        if name not in self._parts:
            self.check_stop()
            try:
                value = compute()
            except Stopped:
                raise Interrupted("stopped; the same command goes on with what is missing") from None
            self.stored.add_part(self.identity, name, value)
            self._parts[name] = value
        return self._parts[name]

    def check_stop(self) -> None:
        """Raise Interrupted once told to stop."""
        if self.should_stop():
            raise Interrupted("stopped; the same command goes on with what is missing")

    def should_stop(self) -> bool:
        """Whether told to stop."""
        return self.engine.stop.is_set()

    def train(self, trajectory: Trajectory, label: str, keep: Iterable[int] = ()) -> list[dict[str, Any]]:
        """Advance a training to its end, count its steps, and return its metrics (start and end)."""
        self.observer.part_started(label)
        advanced = self.engine.advance(trajectory, trajectory.end, keep)
        self.trained += advanced.trained
        self.reused += advanced.reused
        return advanced.metrics

    def state(self, recorded: Recorded, step: int) -> State:
        """A state of a recorded round: read, or trained. Raises LthError."""
        return recorded.state(step, self.engine)

    def network(self, recorded: Recorded) -> nn.Module:
        """A model of a run's architecture on its device, weights of no meaning; in evaluation mode.

        Sets this process to the run's threads and number formats.
        """
        dense = recorded.plan.dense
        dense.execution.activate()
        return dense.execution.place(dense.recipe.build(init_seed=0)).eval()

    def evaluate(self, model: nn.Module, recorded: Recorded, split: str) -> Metrics:
        """Loss and accuracy of a model on a split of a run's data. Raises Stopped."""
        dense = recorded.plan.dense
        return evaluate(model, dense.recipe.objective, dense.data, split, dense.execution, self.should_stop)

    def examples(self, recorded: Recorded, split: str, *, mixed: bool = False) -> Iterator[Batch]:
        """Evaluation batches of a run's data without augmentation, in stored order or `mixed`, a fixed random one.

        Raises Stopped once told to.
        """
        data = recorded.plan.dense.data
        order = mixed_order(data.sizes[split]) if mixed else None
        for batch in data.evaluation(split, order=order):
            if self.should_stop():
                raise Stopped
            yield batch

    @property
    def storing(self) -> bool:
        """Whether a state is being written now."""
        return self.engine.storing

    def interrupted(self, text: str) -> None:
        """An analysis without a result is one that is not finished: there is nothing to note."""


@contextmanager
def open_work(
    stored: StoredAnalysis,
    identity: str,
    config: Analyze,
    observer: SessionObserver,
    stop: threading.Event,
) -> Iterator[Work]:
    """Hold the folder of an analysis and work on it; another process at the same question is waited for.

    Raises:
        Interrupted: told to stop while waiting.
        WriteFailed: the folder cannot be written.
    """
    try:
        lock = stored.lock().acquire(
            wait=True,
            on_wait=lambda holder: observer.message(
                f"waiting for {holder}, which works on the same analysis"
            ),
            should_stop=stop.is_set,
        )
    except Locked as error:
        raise Interrupted(f"stopped while waiting: {error}") from error
    with lock, trainers() as make_trainer:
        parts, uses = stored.parts(identity), Uses(stored)  # refused where a newer release wrote them
        stored.clear_leftovers()
        engine = Engine(
            TrajectoryStore(Path(config.runs_dir) / ".store", warn=observer.message),
            f"analysis-{identity[:32]}",
            _SELDOM,
            config.checkpoint.every,
            observer,
            uses,
            stop,
            make_trainer,
        )
        yield Work(stored, identity, engine, observer, _parts=parts)
