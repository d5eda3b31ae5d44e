"""Teachers at work beside a training: which are asked at a step, what they answer, what that adds to the loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.config import schema
from lth_cli.config.seeds import derive_seed
from lth_cli.config.values import exact
from lth_cli.data.batches import Batch
from lth_cli.models.build import build
from lth_cli.objectives.teacher_losses import LOSSES, average
from lth_cli.store.states import State
from lth_cli.store.teacher_outputs import TeacherOutputs
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.evaluate import Stopped, predict
from lth_cli.training.precision import Execution
from lth_cli.training.restore import restore

if TYPE_CHECKING:
    from lth_cli.training.trajectory import Distilled, Teacher, Trajectory

_MOST_STEPS_A_FILE = 256
_BYTES_A_FILE = 64 * 2**20


class Teaching:
    """The teachers of one training.

    Args:
        trajectory: the student's training; it distils.
        states: of its teachers, in their order.
        cache: of answers by step or by example; None asks the teachers in every step.
    """

    def __init__(
        self, trajectory: Trajectory, states: Sequence[State], cache: _BySteps | _ByExample | None = None
    ) -> None:
        assert trajectory.distilled is not None
        self.distilled: Distilled = trajectory.distilled
        self.states = list(states)
        self._trajectory = trajectory
        self._cache = cache
        self._networks: dict[int, nn.Module] = {}
        self._objective = trajectory.recipe.objective
        self._loss = LOSSES[self.distilled.loss]
        self._execution = _execution(trajectory)

    def mixed(self, task: Tensor, outputs: Tensor, step: int, batch: Batch, student: nn.Module) -> Tensor:
        """The loss of a step: that on the labels, and in steps that distil the teachers' beside it.

        Args:
            task: mean loss on the labels, scalar.
            outputs: of the student.
            step: the step counter before the update.
            batch: as the student sees it.
            student: has just answered it.
        """
        if not self.distilled.at(step):
            return task
        answers = self.answers(step, batch, student)
        if self.distilled.loss == "features":
            ours = cast(Tensor, student.features).float()
        else:
            ours = self._objective.logits(outputs, batch)
        task = self.distilled.task_weight * task
        if not len(ours):  # a batch of which no token was chosen
            return task
        return task + self.distilled.weight * self._loss(ours, answers, self.distilled.temperature)

    def answers(self, step: int, batch: Batch, student: nn.Module) -> Tensor:
        """What the teachers of a step say of its batch, without gradients: mean logits, or features.

        Logits are [answers, classes]: of every example, or of every token that the objective counts.
        """
        inputs = self._objective.given(batch)
        asked = self.asked(step)
        if isinstance(self._cache, _ByExample):
            rows = self._trajectory.batches.positions(step)
            return average([self._cache.rows(index, rows) for index in asked]).to(inputs.device)
        found = None if self._cache is None else self._cache.get(step)
        if found is None:
            found = average([self._ask(index, inputs, step, student) for index in asked])
            if self.distilled.loss != "features":
                found = self._objective.logits(found, batch)
            if self._cache is not None:
                self._cache.put(step, found)
        return found.to(inputs.device)

    def asked(self, step: int) -> list[int]:
        """Which teachers answer in a step: all, or some drawn by the seed and the step alone (2211.00683)."""
        count, some = len(self.distilled.teachers), self.distilled.sample
        if some is None:
            return list(range(count))
        seed = self._trajectory.recipe.seeds["augment"]
        generator = torch.Generator().manual_seed(derive_seed(seed, "teachers", step))
        return sorted(torch.randperm(count, generator=generator)[:some].tolist())

    def flush(self) -> None:
        """Write answers that are not on disk yet. Raises WriteFailed."""
        if isinstance(self._cache, _BySteps):
            self._cache.flush()

    @torch.no_grad()
    def _ask(self, index: int, inputs: Tensor, step: int, student: nn.Module) -> Tensor:
        if index not in self._networks:
            teacher = self.distilled.teachers[index]
            self._networks[index] = _network(teacher, self.states[index], self._trajectory)
        own = self._trajectory.execution
        if own.dtype == self._execution.dtype:
            return self._answer(self._networks[index], inputs, step, student)
        self._execution.activate()  # tf32 is a setting of the process
        try:
            return self._answer(self._networks[index], inputs, step, student)
        finally:
            own.activate()

    def _answer(self, network: nn.Module, inputs: Tensor, step: int, student: nn.Module) -> Tensor:
        if self.distilled.patches is None:
            answered = predict(network, inputs, self._execution)
        else:
            kept = self._kept(network, inputs, step, student)
            glasses, transformer = cast(nn.Sequential, network)
            with self._execution.autocast():
                answered = transformer(glasses(self._execution.arrange(inputs)), kept).float()
        if self.distilled.loss != "features":
            return answered
        return cast(Tensor, cast(nn.Sequential, network)[1].features).float()

    def _kept(self, network: nn.Module, inputs: Tensor, step: int, student: nn.Module) -> Tensor:
        """The patches that a teacher looks at, int64 [B, k] (arXiv:2302.10494)."""
        by = self.distilled.patches_by
        if by == "student":
            ranked = cast(Tensor, student.class_attention)
        elif by == "teacher":
            predict(network, inputs, self._execution)
            ranked = cast(Tensor, cast(nn.Sequential, network)[1].class_attention)
        else:
            seed = self._trajectory.recipe.seeds["augment"]
            generator = torch.Generator().manual_seed(derive_seed(seed, "patches", step))
            patches = cast(int, student.patches)
            ranked = torch.rand(len(inputs), patches, generator=generator).to(inputs.device)
        assert self.distilled.patches is not None
        return ranked.topk(math.ceil(exact(self.distilled.patches) * ranked.shape[1]), dim=1).indices


def make_teaching(
    trajectory: Trajectory,
    states: Sequence[State],
    store: TrajectoryStore,
    uses: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> Teaching:
    """The teachers of a training with the answers that the store has of them; those by example are worked out now.

    Args:
        trajectory: the student's training; it distils.
        states: of its teachers, in their order.
        store: where answers are kept.
        uses: told what is kept there before it is looked for.
        should_stop: asked before each batch.

    Raises:
        Stopped: `should_stop` was true.
        WriteFailed: answers cannot be written.
    """
    distilled = trajectory.distilled
    assert distilled is not None
    if distilled.by_example:
        tables = [
            _table(trajectory, teacher, state, store, uses, should_stop)
            for teacher, state in zip(distilled.teachers, states, strict=True)
        ]
        return Teaching(trajectory, states, _ByExample(tables))
    if not distilled.cached:
        return Teaching(trajectory, states)
    description = trajectory.description
    kept = TeacherOutputs(
        store,
        {
            "answers": "by step",
            "teachers": [teacher.description for teacher in distilled.teachers],
            "sample": distilled.sample,
            **_circumstances(trajectory),
            "batches": description["batches"],
        },
    )
    uses(kept.identity)
    answer = trajectory.recipe.batching.size * math.prod(trajectory.recipe.interface.output_shape) * 4
    steps = max(1, min(_MOST_STEPS_A_FILE, _BYTES_A_FILE // answer))
    return Teaching(trajectory, states, _BySteps(kept, steps))


class Glasses(nn.Module):
    """Shows a teacher the student's inputs as it was trained to see them: its channels, normalisation and size.

    Maps [B, C, H, W] or [B, ...] to [B, *teacher.input_shape]. Images of one channel are repeated for a teacher of
    more; other sizes are scaled, bilinear with antialiasing.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self._shape = tuple(teacher.input_shape)
        by_channel = (-1,) + (1,) * (len(self._shape) - 1)
        for name, values in (("scale", teacher.scale), ("shift", teacher.shift)):
            self.register_buffer(name, None if values is None else torch.tensor(values).view(by_channel))

    def forward(self, inputs: Tensor) -> Tensor:
        """What the teacher sees."""
        if self.scale is not None and self.shift is not None:
            inputs = (
                inputs * self.scale + self.shift
            )  # one channel becomes several where there are several values
        if inputs.ndim == 4 and inputs.shape[1] != self._shape[0]:
            inputs = inputs.expand(-1, self._shape[0], -1, -1)
        if inputs.shape[2:] != self._shape[1:]:
            inputs = functional.interpolate(inputs, size=self._shape[1:], mode="bilinear", antialias=True)
        return inputs


class _ByExample:
    """Answers of each teacher for each training example."""

    def __init__(self, tables: Sequence[Tensor]) -> None:
        self._tables = tables

    def rows(self, teacher: int, positions: Tensor) -> Tensor:
        """Logits [B, classes] of one teacher for examples by position [B]."""
        return self._tables[teacher].index_select(0, positions)


class _BySteps:
    """Mean answers for each step, in files of so many steps."""

    def __init__(self, store: TeacherOutputs, steps: int) -> None:
        self._store = store
        self._steps = steps
        self._first = -1
        self._answers: dict[str, Tensor] = {}
        self._new = False

    def get(self, step: int) -> Tensor | None:
        """Logits [B, classes], where they are kept."""
        self._open(step)
        return self._answers.get(str(step))

    def put(self, step: int, answers: Tensor) -> None:
        """Keep logits [B, classes] until the next `flush` or the next file."""
        self._open(step)
        self._answers[str(step)], self._new = answers, True

    def flush(self) -> None:
        """Write what is not on disk yet. Raises WriteFailed."""
        if self._new:
            self._store.save(_part(self._first), self._answers)
            self._new = False

    def _open(self, step: int) -> None:
        first = step // self._steps * self._steps
        if first != self._first:
            self.flush()
            self._first, self._answers = first, self._store.load(_part(first))


def _part(first: int) -> str:
    return f"answers_{first:08d}"


def _table(
    trajectory: Trajectory,
    teacher: Teacher,
    state: State,
    store: TrajectoryStore,
    uses: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> Tensor:
    """Logits [N, classes] of a teacher for all training examples: read, or worked out and kept."""
    kept = TeacherOutputs(
        store, {"answers": "by example", "teacher": teacher.description, **_circumstances(trajectory)}
    )
    uses(kept.identity)
    found = kept.load("answers").get("answers")
    if found is None:
        found = _answer_all(trajectory, _network(teacher, state, trajectory), should_stop)
        kept.save("answers", {"answers": found})
    return found


@torch.no_grad()
def _answer_all(trajectory: Trajectory, network: nn.Module, should_stop: Callable[[], bool]) -> Tensor:
    execution = _execution(trajectory)
    execution.activate()
    parts = []
    objective = trajectory.recipe.objective
    for batch in trajectory.data.evaluation("train"):
        if should_stop():
            raise Stopped
        parts.append(predict(network, objective.given(batch), execution).cpu())
    return torch.cat(parts)


def _execution(trajectory: Trajectory) -> Execution:
    """The arithmetic of the teachers."""
    assert trajectory.distilled is not None
    return dataclasses.replace(trajectory.execution, dtype=trajectory.distilled.dtype)


def _circumstances(trajectory: Trajectory) -> dict[str, Any]:
    """What else decides an answer: the examples and the arithmetic."""
    return {
        "data": trajectory.data.identity,
        "evaluation_batch": trajectory.recipe.loading.evaluation_batch,
        "execution": _execution(trajectory).identity,
    }


def _network(teacher: Teacher, state: State, trajectory: Trajectory) -> nn.Module:
    """The teacher in evaluation mode on the student's device; it takes the student's inputs."""
    config = schema.Model.model_validate(dict(teacher.model))
    network = build(config, teacher.interface(trajectory.recipe.interface), init_seed=0)
    restore(network, state)
    seen = nn.Sequential(Glasses(teacher), network)
    return trajectory.execution.place(seen).eval().requires_grad_(False)
