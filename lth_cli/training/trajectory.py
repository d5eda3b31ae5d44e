"""A trajectory: everything that decides a training run, and the identity made from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.data.batches import Batches, Data
from lth_cli.pruning.mask import Masks
from lth_cli.store.files import digest
from lth_cli.store.masks import mask_digest
from lth_cli.training import schedules
from lth_cli.training.precision import Execution

# Raised whenever a release changes what training computes, so that old states are never mistaken for new ones.
NUMERICS_VERSION = 1


@dataclass(frozen=True)
class Initial:
    """Start from freshly drawn weights."""

    seed: int


@dataclass(frozen=True)
class FromState:
    """Start from the weights and buffers of another trajectory at a step, with a fresh optimizer."""

    parent: Trajectory
    step: int


@dataclass(frozen=True)
class Trajectory:
    """A training run, up to how far it is advanced.

    Attributes:
        config: the validated config; only what changes numbers enters the identity.
        data: the prepared data set.
        execution: device, threads and number formats.
        start: where the weights come from.
        masks: bool tensors by parameter name, True = kept, on the CPU; empty for a dense network.
        first_step: the step counter at the start; schedule, data order and augmentation resume there.
    """

    config: schema.Config
    data: Data
    execution: Execution
    start: Initial | FromState
    masks: Masks = field(default_factory=dict)
    first_step: int = 0

    @cached_property
    def batches(self) -> Batches:
        """The batch of every step."""
        training, seeds = self.config.training, self.config.resolved_seeds
        return self.data.batches(
            batch_size=training.batch_size,
            order_seed=seeds["order"],
            augment_seed=seeds["augment"],
            shuffle=training.shuffle,
            drop_last=training.drop_last,
        )

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.batches.steps_per_epoch

    @cached_property
    def horizon(self) -> int:
        """The step at which training ends."""
        return self.config.training.length.steps(self.steps_per_epoch)

    @cached_property
    def _schedule(self) -> tuple[schedules.Factor, dict[str, Any]]:
        return schedules.build(
            self.config.schedule, steps_per_epoch=self.steps_per_epoch, horizon=self.horizon
        )

    def learning_rate(self, step: int) -> float:
        """The rate of the update that leads from `step` to `step + 1`."""
        return self.config.optimizer.lr * self._schedule[0](step)

    @cached_property
    def description(self) -> dict[str, Any]:
        """Plain values that decide every number of this trajectory."""
        training, seeds = self.config.training, self.config.resolved_seeds
        model = self.config.model.model_dump(mode="json", exclude={"prune_output"})
        if isinstance(self.start, Initial):
            start: dict[str, Any] = {"init_seed": self.start.seed}
        else:
            start = {"trajectory": self.start.parent.identity, "step": self.start.step}
        return {
            "numerics": NUMERICS_VERSION,
            "model": model,
            "data": self.data.identity,
            "batches": {
                "batch_size": training.batch_size,
                "drop_last": training.drop_last,
                "order_seed": seeds["order"] if training.shuffle else None,
                "augment_seed": seeds["augment"],
            },
            "objective": {
                "label_smoothing": training.label_smoothing,
                "gradient_clip": training.gradient_clip,
            },
            "optimizer": self.config.optimizer.model_dump(mode="json"),
            "schedule": self._schedule[1],
            "execution": self.execution.identity,
            "start": start,
            "first_step": self.first_step,
            "mask": mask_digest(self.masks) if self.masks else None,
        }

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the canonical JSON of the description."""
        return digest(self.description)

    def ticket(self, masks: Masks, rewind_to: int, start: Initial | FromState | None = None) -> Trajectory:
        """This (dense) network with masks, from a rewind point on.

        Args:
            masks: True = kept.
            rewind_to: step of this trajectory to start from; training resumes at that step of the schedule.
            start: other starting weights instead of the rewound ones.
        """
        start = start if start is not None else FromState(self, rewind_to)
        pruned = not all(bool(mask.all()) for mask in masks.values())
        return dataclasses.replace(self, start=start, masks=masks if pruned else {}, first_step=rewind_to)


def dense(config: schema.Config, data: Data, execution: Execution) -> Trajectory:
    """The dense training of a config, from its initial weights.

    Raises:
        ConfigError: when the schedule or the number of steps does not fit the data.
    """
    trajectory = Trajectory(config, data, execution, Initial(config.resolved_seeds["init"]))
    if trajectory.steps_per_epoch < 1:
        size = data.sizes["train"]
        raise ConfigError(
            (
                "training.batch_size",
                f"{config.training.batch_size} leaves no batch of {size} examples with drop_last",
            )
        )
    trajectory.learning_rate(0)
    return trajectory
