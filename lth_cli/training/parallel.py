"""Training one trajectory in several processes, each with a part of every batch.

Rank 0 runs the program as one process would: engine, store, rounds. Whatever it does to a trainer it first tells the
others, who `follow`: they have the same weights and masks and no store, and do with their part of each batch what rank
0 does with its own. Nothing is decided anywhere else, so no two ranks can come to different decisions: when to pause,
which step to evaluate, what to prune. Commands are short (a fraction of a second of steps), so rank 0 hears of a signal
or a due checkpoint soon.

Results differ from those of one process by rounding alone, with two exceptions inherent to the method: dropout draws
for each part, and batch-norm statistics are of each part unless `distributed.batch_norm=synchronized`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lth_cli.config.errors import LthError
from lth_cli.config.seeds import derive_seed
from lth_cli.data.batches import Batch, Part
from lth_cli.objectives.objective import UNSEEN
from lth_cli.store.files import digest
from lth_cli.store.masks import mask_digest
from lth_cli.store.states import State
from lth_cli.store.tensors import content_digest
from lth_cli.training.batch_norm import synchronize
from lth_cli.training.evaluate import Metrics, Stopped, drawn, summarize, tally
from lth_cli.training.loop import Diverged, Trainer
from lth_cli.training.ranks import Ranks
from lth_cli.training.recipe import Recipe
from lth_cli.training.teaching import Teaching
from lth_cli.training.trajectory import Trajectory

_COMMAND_SECONDS = 0.2  # of training between two commands
_MOST_STEPS = 1000


class RanksDiffer(LthError):
    """The processes do not train the same thing."""


@dataclass(frozen=True)
class _Begin:
    """Take up a trajectory at a state.

    Attributes:
        parts: every field of the trajectory but the data, which each process loads itself; see `Trajectory.told`.
        state: where to go on from.
        teachers: their states.
    """

    parts: dict[str, Any]
    state: State
    teachers: list[State]


@dataclass(frozen=True)
class _Train:
    """Train to a step."""

    to: int


@dataclass(frozen=True)
class _Evaluate:
    """Evaluate a split, or so many examples of it."""

    split: str
    subset: int | None


@dataclass(frozen=True)
class _End:
    """Nothing more is to be done."""


# What every rank comes to in the same way: the work goes on, with another command or none.
_AGREED = (Diverged, Stopped, RanksDiffer)


class ParallelTrainer(Trainer):
    """A trainer of one of several processes; on rank 0 its methods lead the others.

    Args:
        trajectory: what to train; the same on every rank.
        state: where to go on from; the same on every rank.
        ranks: this process among the others.
        teaching: its teachers; each rank asks them about its own part.

    Raises:
        RanksDiffer: when masks, data, order, augmentation or weights are not the same everywhere.
    """

    def __init__(
        self, trajectory: Trajectory, state: State, ranks: Ranks, teaching: Teaching | None = None
    ) -> None:
        self._ranks = ranks
        self._part = Part(ranks.rank, ranks.size)
        super().__init__(trajectory, state, self._part, teaching=teaching)
        self._check_alike(state)
        synchronized = trajectory.execution.batch_norm == "synchronized"
        self._normalizations = synchronize(self.model) if synchronized else []
        self._parallel = DistributedDataParallel(
            _Spare(self.model),
            # Otherwise DDP lays gradients out anew after the first step. The layout decides in which order three or
            # more ranks are added, so a resumed training would round differently in its first step.
            find_unused_parameters=True,
        )
        self._steps_a_command = 1

    def run(self, to: int, pause: Callable[[], bool], tick: Callable[[int, float], None]) -> None:
        """Lead all ranks to step `to`; see `Trainer.run`. `pause()` is asked after each command."""
        while self.step < to:
            goal, begun = min(to, self.step + self._steps_a_command), time.monotonic()
            with leading(self._ranks, _Train(goal)):
                self.train_to(goal)
            now = time.monotonic()
            if now >= self._next_tick:
                tick(self.step, self.last_loss)
                self._next_tick = now + _COMMAND_SECONDS
            if now - begun < _COMMAND_SECONDS / 2:
                self._steps_a_command = min(2 * self._steps_a_command, _MOST_STEPS)
            elif now - begun > _COMMAND_SECONDS * 2:
                self._steps_a_command = max(self._steps_a_command // 2, 1)
            if pause():
                return

    def evaluate(
        self, split: str, should_stop: Callable[[], bool] = lambda: False, subset: int | None = None
    ) -> Metrics:
        """Lead all ranks through an evaluation; see `Trainer.evaluate`."""
        with leading(self._ranks, _Evaluate(split, subset)):
            return self.evaluate_part(split, should_stop, subset)

    def train_to(self, step: int) -> None:
        """Train this rank's part; all ranks call it.

        Raises:
            Diverged: on all ranks alike.
        """
        self.model.train()
        while self.step < step:
            self._advance()
        self._check_losses()

    def evaluate_part(
        self, split: str, should_stop: Callable[[], bool] = lambda: False, subset: int | None = None
    ) -> Metrics:
        """Evaluate every `size`-th batch here; all ranks call it and get the metrics of the whole split.

        Raises:
            Diverged, Stopped: on all ranks alike.
        """
        for buffer in self.model.buffers():
            self._ranks.copy_from_first(buffer)
        objective = self.trajectory.recipe.objective
        own = tally(self.model, objective, self._own_batches(split, should_stop, subset), self.execution)
        metrics = summarize(objective, [batch for part in self._ranks.gather(own) for batch in part])
        if not math.isfinite(metrics["loss"]):
            raise Diverged(self.step, f"the {split} loss")
        return metrics

    def _own_batches(
        self, split: str, should_stop: Callable[[], bool], subset: int | None
    ) -> Iterator[Batch]:
        """This rank's batches of a split, each once rank 0 says to go on."""
        recipe, data = self.trajectory.recipe, self.trajectory.data
        order = drawn(data, split, subset, recipe.seeds["split"])
        examples, each = data.sizes[split] if order is None else len(order), recipe.loading.evaluation_batch
        turns = -(-examples // (each * self._ranks.size))
        for _, batch in zip_longest(range(turns), data.evaluation(split, self._part, order)):
            if self._ranks.broadcast(should_stop()):
                raise Stopped
            if batch is not None:
                yield batch

    def _dropout_seed(self) -> int:
        if self._ranks.rank == 0:
            return super()._dropout_seed()
        # The parts of a batch must not all drop the same units.
        return derive_seed(self._drawing, "dropout", self.step, self._ranks.rank)

    def _gradients(self, batch: Batch) -> Tensor:
        """Leave the gradients of the mean loss of the whole batch; returns this part's share of that loss."""
        count = self.trajectory.batches.examples(self.step)
        start, stop = self._part.bounds(count)
        for layer in self._normalizations:
            layer.counts = start < stop
        seen = self._seen(batch)
        loss = self._loss(self._parallel, seen)
        share = loss * self._weight(seen, (stop - start) / count)
        # DDP takes the mean over the ranks.
        (share * self._ranks.size).backward()  # type: ignore[no-untyped-call]
        return share.detach()

    def _weight(self, seen: Batch, share: float) -> float | Tensor:
        """This part's weight in the mean loss of the whole batch; `share` is its share of the examples."""
        if self.trajectory.recipe.objective.mean_over == "examples":
            return share
        own = (seen["targets"] != UNSEEN).sum().float() * (share > 0.0)
        return own / self._ranks.add(own.clone()).clamp(min=1.0)

    def _batch_losses(self, losses: Tensor) -> Tensor:
        return self._ranks.add(losses.clone())

    def _check_alike(self, state: State) -> None:
        """Compare what decides every step to come with the other ranks, by hash."""
        trajectory = self.trajectory
        found = {
            "masks": [mask_digest(masks) if masks else "" for masks in (trajectory.masks, state.masks)],
            "settings": digest(
                {name: told for name, told in trajectory.description.items() if name not in ("mask", "data")}
            ),
            "weights": content_digest(state.weights, {}),
            "data": digest(trajectory.data.identity),
            **trajectory.batches.fingerprint(state.step),
        }
        digests = self._ranks.gather(found)
        for rank, theirs in enumerate(digests):
            differing = [what for what, hashed in theirs.items() if hashed != digests[0][what]]
            if differing:
                raise RanksDiffer(
                    f"rank {rank} does not train the same as rank 0: other {', '.join(differing)}"
                )


class _Spare(nn.Module):
    """A model, and a parameter that it does not use.

    DDP warns on standard error when it is told to look for unused parameters and finds none.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(*inputs)
        return outputs


@contextmanager
def leading(ranks: Ranks, command: Any) -> Iterator[None]:
    """Tell the others what this rank does inside the block; an error there ends the common work if it is not agreed on.

    Raises:
        RankLost: when another rank is gone.
    """
    ranks.idle = False
    try:
        ranks.broadcast(command)
        yield
    except _AGREED:
        ranks.idle = True
        raise
    except Exception as error:
        raise ranks.explain(error) from error
    ranks.idle = True


def begin(
    trajectory: Trajectory, state: State, ranks: Ranks, teaching: Teaching | None = None
) -> ParallelTrainer:
    """A trainer on rank 0, and its counterparts on all the others. Raises as `ParallelTrainer`, and RankLost."""
    states = [] if teaching is None else teaching.states
    with leading(ranks, _Begin(trajectory.told, state, states)):
        return ParallelTrainer(trajectory, state, ranks, teaching)


def end(ranks: Ranks) -> None:
    """Let the others leave. Raises RankLost."""
    with leading(ranks, _End()):
        ranks.leave()


def follow(ranks: Ranks, prepare: Callable[[dict[str, Any]], Recipe]) -> None:
    """Do as rank 0 says until it says to end.

    Args:
        ranks: this process, of a rank above 0.
        prepare: a recipe from what rank 0 told of its own, with data and a device of this process.
    """
    trainer: ParallelTrainer | None = None
    while True:
        command = ranks.broadcast(None)
        try:
            if isinstance(command, _Begin):
                trainer = None  # before the new one, to have room for it
                trajectory = Trajectory(**{**command.parts, "recipe": prepare(command.parts["recipe"])})
                teaching = Teaching(trajectory, command.teachers) if trajectory.distilled else None
                trainer = ParallelTrainer(trajectory, command.state, ranks, teaching)
            elif isinstance(command, _Train) and trainer is not None:
                trainer.train_to(command.to)
            elif isinstance(command, _Evaluate) and trainer is not None:
                trainer.evaluate_part(command.split, subset=command.subset)
            else:
                break
        except _AGREED:
            continue
    del trainer
    ranks.leave()
