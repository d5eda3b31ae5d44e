"""A trajectory: everything that decides a training run, and the identity made from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lth_cli.config import schema
from lth_cli.config.spec import Interface
from lth_cli.data.batches import Batches, Data
from lth_cli.pruning.isometry import RATE
from lth_cli.pruning.mask import Masks, Tensors
from lth_cli.store.files import digest
from lth_cli.store.masks import mask_digest
from lth_cli.store.tensors import content_digest
from lth_cli.training.precision import Execution
from lth_cli.training.recipe import Recipe

# Raised whenever a release changes what training computes, so that old states are never mistaken for new ones.
NUMERICS_VERSION = 1


NOT_HERE = (
    "cannot be repeated bit for bit here "
    "(another device, data set, release of lth, code of your own, or imported)"
)
"""Why a recorded training is known by its identity alone, for messages."""


@dataclass(frozen=True)
class Initial:
    """Start from freshly drawn weights."""

    seed: int

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it."""
        return {"init_seed": self.seed}


@dataclass(frozen=True)
class Known:
    """A trajectory known by its identity alone: its stored states can be read, none can be trained."""

    identity: str


@dataclass(frozen=True)
class FromState:
    """Start from the weights and buffers of another trajectory at a step, with a fresh optimizer or that of the state.

    Attributes:
        parent: that trajectory.
        step: of its state.
        keeps_optimizer: whether momentum and the like come from the state too, zero where a weight is pruned.
    """

    parent: Trajectory | Known
    step: int
    keeps_optimizer: bool = False

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it."""
        kept = {"optimizer": "kept"} if self.keeps_optimizer else {}
        return {"trajectory": self.parent.identity, "step": self.step, **kept}

    @property
    def known(self) -> FromState:
        """The same state, of a trajectory known by its identity alone."""
        return dataclasses.replace(self, parent=Known(self.parent.identity))


@dataclass(frozen=True)
class KeptSigns:
    """Start from freshly drawn weights that take their signs from a state (a zero counts as positive)."""

    of: FromState
    seed: int

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it."""
        return {"init_seed": self.seed, "signs_of": self.of.description}


@dataclass(frozen=True)
class Moved:
    """Start from the weights of a state plus a vector (both masked), and its buffers, with a fresh optimizer."""

    of: FromState
    by: Tensors

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it; the vector by its content."""
        return {**self.of.description, "moved_by": content_digest(self.by, {})}


@dataclass(frozen=True)
class Joined:
    """Start from a state but for some tensors, which are freshly drawn, as a new head is on other classes.

    What the state has beyond the architecture is left out.
    """

    of: FromState
    fresh: tuple[str, ...]
    seed: int

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it; what is drawn by name and seed."""
        return {**self.of.description, "fresh": list(self.fresh), "fresh_seed": self.seed}


@dataclass(frozen=True)
class Carried:
    """Start from a state but for some tensors, which go on from another state of the same architecture."""

    of: FromState
    names: tuple[str, ...]
    others: FromState

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it."""
        others = self.others.description
        return {"carried": list(self.names), "onto": self.of.description, "from": others}


@dataclass(frozen=True)
class Permuted:
    """Start from a state with some tensors of repeated blocks exchanged between these; see `models.blocks`."""

    of: FromState
    names: tuple[str, ...]
    seed: int

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it; the tensors by name."""
        return {"permuted_of": self.of.description, "permuted": list(self.names), "permuted_seed": self.seed}


@dataclass(frozen=True)
class Isometric:
    """Start from the masked weights of another start, made approximately isometric (Lee et al. 2020, 1906.06307).

    Attributes:
        of: where the weights come from; buffers are left as they are.
        iterations: of gradient descent.
        rate: its learning rate.
    """

    of: Initial | FromState | KeptSigns
    iterations: int
    rate: float = RATE

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it."""
        return {"isometry_of": self.of.description, "iterations": self.iterations, "rate": self.rate}


Start = Initial | FromState | KeptSigns | Moved | Joined | Carried | Permuted | Isometric


@dataclass(frozen=True)
class Teacher:
    """A state whose answers a student learns from, as a network.

    Attributes:
        of: the state.
        model: its architecture, the plain section of a config.
        input_shape: of one example as it sees it, [C, H, W] or [features].
        scale: by channel of the student's inputs; None where both normalise alike.
        shift: by channel: the teacher sees scale x input + shift.
    """

    of: FromState
    model: Mapping[str, Any]
    input_shape: tuple[int, ...]
    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None

    def interface(self, student: Interface) -> Interface:
        """What its network is built for: what the student's is, but for inputs of its own shape."""
        return dataclasses.replace(student, input_shape=tuple(self.input_shape))

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide its answers; the state decides the weights."""
        affine = {} if self.scale is None else {"scale": list(self.scale), "shift": list(self.shift or ())}
        sources = schema.Model.model_validate(self.model).sources
        return {
            **self.of.description,
            "model": dict(self.model),
            "input_shape": list(self.input_shape),
            **affine,
            **({"sources": sources} if sources else {}),
        }

    @classmethod
    def noted(cls, description: Mapping[str, Any]) -> Teacher:
        """The teacher of a description; its state is known by identity alone."""
        scale, shift = (description.get(key) for key in ("scale", "shift"))
        return cls(
            FromState(Known(description["trajectory"]), int(description["step"])),
            description["model"],
            tuple(description["input_shape"]),
            None if scale is None else tuple(scale),
            None if shift is None else tuple(shift),
        )


@dataclass(frozen=True)
class Distilled:
    """How a training learns from teachers.

    Attributes:
        teachers: one at least.
        loss: a name in `objectives.teacher_losses.LOSSES`.
        temperature: T of it.
        weight: of the teachers' loss, in steps that distil.
        task_weight: of the loss on the labels in these steps; 1 in all others.
        begins: first step that may distil.
        ends: step from which on none does; None is never.
        every: from `begins` on, each so manieth step distils.
        sample: teachers drawn in each step; None takes all.
        dtype: of the teachers' arithmetic, as in `Execution`.
        by_example: answers are worked out once for each example, in batches of so many, on which rounding depends;
            None asks in every step.
        cached: answers are kept on disk; changes no number.
        patches: share of the patches that teachers look at; None is all.
        patches_by: which: the `student`'s class attention says it, the `teacher`'s, or they are drawn at `random`.
    """

    teachers: tuple[Teacher, ...]
    loss: str
    temperature: float
    weight: float
    task_weight: float
    begins: int
    ends: int | None
    every: int
    sample: int | None
    dtype: str
    by_example: int | None = None
    cached: bool = False
    patches: float | None = None
    patches_by: str = "student"

    def at(self, step: int) -> bool:
        """Whether the update that leads from `step` to `step + 1` distils."""
        inside = self.begins <= step and (self.ends is None or step < self.ends)
        return inside and (step - self.begins) % self.every == 0

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide what it adds to each step."""
        settings = {
            name: getattr(self, name)
            for name in ("loss", "temperature", "weight", "task_weight", "begins", "ends", "every", "sample")
        }
        teachers = [teacher.description for teacher in self.teachers]
        some = {} if self.patches is None else {"patches": self.patches, "patches_by": self.patches_by}
        return {**settings, "dtype": self.dtype, "by_example": self.by_example, "teachers": teachers, **some}

    @classmethod
    def noted(cls, description: Mapping[str, Any]) -> Distilled:
        """What a description says; the teachers' states are known by identity alone."""
        teachers = tuple(Teacher.noted(teacher) for teacher in description["teachers"])
        return cls(**{**description, "teachers": teachers})


@dataclass(frozen=True)
class Trajectory:
    """A training run, up to how far it is advanced.

    Attributes:
        recipe: what decides it beside the following.
        start: where the weights come from.
        masks: bool tensors by parameter name, True = kept, on the CPU; empty for a dense network. Where the recipe
            has a policy that changes them, those it starts with; a start from a state takes that state's along.
        first_step: the step counter at the start; schedule, data order and augmentation resume there.
        distilled: teachers, and how it learns from them; None has the labels alone.
        rate_held_from: step from which the learning rate stays as it is there; None follows the schedule.
        ends_at: step up to which it is meant to be trained; None is the horizon. No part of the identity, as
            the state at a step does not depend on how far training goes on.
    """

    recipe: Recipe
    start: Start
    masks: Masks = field(default_factory=dict)
    first_step: int = 0
    distilled: Distilled | None = None
    rate_held_from: int | None = None
    ends_at: int | None = None

    @property
    def data(self) -> Data:
        """The prepared data set."""
        return self.recipe.data

    @property
    def execution(self) -> Execution:
        """Device, threads and number formats."""
        return self.recipe.execution

    @property
    def batches(self) -> Batches:
        """The batch of every step."""
        return self.recipe.batches

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.recipe.steps_per_epoch

    @property
    def horizon(self) -> int:
        """The step at which the recipe's training ends, over which schedules extend."""
        return self.recipe.horizon

    @property
    def end(self) -> int:
        """The step up to which this trajectory is meant to be trained."""
        return self.horizon if self.ends_at is None else self.ends_at

    @property
    def told(self) -> dict[str, Any]:
        """Every field for another process, the recipe as its `told`.

        Trajectories whose states it starts or learns from are known by identity alone: they hang on data of theirs.
        """
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        distilled = None if self.distilled is None else Distilled.noted(self.distilled.description)
        return {**parts, "recipe": self.recipe.told, "start": _told(self.start), "distilled": distilled}

    @property
    def origin(self) -> FromState | None:
        """The state of another trajectory that has to be there before this one can start."""
        start = self.start
        while not isinstance(start, Initial | FromState):
            start = start.of
        return None if isinstance(start, Initial) else start

    @property
    def draws(self) -> bool:
        """Whether a step draws random numbers of `seeds.augment`: augmentation, dropout, teachers chosen at random."""
        taught = self.distilled
        taught_at_random = taught is not None and (
            taught.sample is not None or (taught.patches is not None and taught.patches_by == "random")
        )
        return taught_at_random or self.recipe.draws

    def learning_rate(self, step: int) -> float:
        """The rate of the update that leads from `step` to `step + 1`."""
        if self.rate_held_from is not None:
            step = min(step, self.rate_held_from)
        return self.recipe.learning_rate(step)

    @cached_property
    def description(self) -> dict[str, Any]:
        """Plain values that decide every number of this trajectory."""
        taught = {} if self.distilled is None else {"distillation": self.distilled.description}
        held = {} if self.rate_held_from is None else {"rate_held_from": self.rate_held_from}
        described = self.recipe.description(draws=self.draws)
        return {
            "numerics": NUMERICS_VERSION,
            **described,
            "objective": {**described["objective"], **taught},
            "start": self.start.description,
            "first_step": self.first_step,
            "mask": mask_digest(self.masks) if self.masks else None,
            **held,
        }

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the canonical JSON of the description."""
        return digest(self.description)


def _told(start: Start) -> Start:
    """A start for another process: states it comes from are known by identity alone."""
    if isinstance(start, Initial):
        return start
    if isinstance(start, FromState):
        return start.known
    if isinstance(start, Carried):
        return dataclasses.replace(start, of=start.of.known, others=start.others.known)
    return dataclasses.replace(start, of=_told(start.of))  # type: ignore[arg-type]  # of the kind it was


def dense(recipe: Recipe) -> Trajectory:
    """The dense training of a recipe, from its initial weights."""
    return Trajectory(recipe, Initial(recipe.seeds["init"]))
