"""A recipe: what decides a training beside where it starts, with which masks, and how far it goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Interface
from lth_cli.config.steps import Duration
from lth_cli.config.values import Component
from lth_cli.data.batches import Batches, Data
from lth_cli.models.build import build, draws_in_training
from lth_cli.objectives.build import make_objective
from lth_cli.objectives.objective import Objective
from lth_cli.pruning.policies import Policy, make_policy
from lth_cli.training import schedules
from lth_cli.training.precision import Execution
from lth_cli.training.updates import Backpropagation, Update, make_update


@dataclass(frozen=True)
class Batching:
    """How the training examples become batches.

    Attributes:
        size: examples a step.
        shuffle: a new order each epoch.
        drop_last: leaves out an epoch's incomplete last batch.
    """

    size: int
    shuffle: bool
    drop_last: bool


@dataclass(frozen=True)
class Loading:
    """How the data were loaded, for a process that has to do it again.

    Attributes:
        dataset: section of the config.
        place: where they lie and how they are read; changes no number.
        split_seed: decides the splits.
        evaluation_batch: examples of an evaluation batch.
    """

    dataset: schema.Dataset
    place: schema.DataPlace
    split_seed: int
    evaluation_batch: int

    @classmethod
    def of(cls, config: schema.Config) -> Loading:
        """What a config says of it."""
        return cls(config.dataset, config.data, config.resolved_seeds["split"], config.evaluation.batch_size)


@dataclass(frozen=True)
class Recipe:
    """The plain parts of a training; below it nobody sees a config.

    Attributes:
        data: prepared, on the device.
        loading: how they were.
        execution: device, threads and number formats.
        model: the architecture and its initialiser.
        objective_section: names the objective.
        batching: of the examples.
        label_smoothing: of the targets.
        gradient_clip: largest norm of the gradients; None does not clip.
        freeze: which tensors stay as they are.
        update_section: names the update.
        optimizer: the class, its settings and the rate.
        schedule: factors of the rate.
        sparse_section: names how masks change.
        length: the horizon, over which schedules extend.
        seeds: by what they are for; `seed` is that of the run.
    """

    data: Data
    loading: Loading
    execution: Execution
    model: schema.Model
    objective_section: schema.Objective
    batching: Batching
    label_smoothing: float
    gradient_clip: float | None
    freeze: tuple[str, ...]
    update_section: schema.Update
    optimizer: schema.Optimizer
    schedule: schema.Schedule
    sparse_section: schema.SparseTraining
    length: Duration
    seeds: Mapping[str, int]

    @cached_property
    def batches(self) -> Batches:
        """The batch of every step. Raises ConfigError: `drop_last` leaves none."""
        return self.data.batches(
            batch_size=self.batching.size,
            order_seed=self.seeds["order"],
            augment_seed=self.seeds["augment"],
            shuffle=self.batching.shuffle,
            drop_last=self.batching.drop_last,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.batches.steps_per_epoch

    @cached_property
    def horizon(self) -> int:
        """The step at which a training ends."""
        return self.length.steps(self.steps_per_epoch)

    @cached_property
    def _schedule(self) -> tuple[schedules.Factor, dict[str, Any]]:
        return schedules.build(self.schedule, steps_per_epoch=self.steps_per_epoch, horizon=self.horizon)

    def learning_rate(self, step: int) -> float:
        """The rate of the update that leads from `step` to `step + 1`. Raises ConfigError: wrong settings."""
        return self.optimizer.lr * self._schedule[0](step)

    def build(self, init_seed: int) -> nn.Module:
        """The model with fresh weights, on the CPU; the same bytes for the same seed. Raises ConfigError."""
        return build(self.model, self.interface, init_seed)

    @cached_property
    def objective(self) -> Objective:
        """What is minimised and measured. Raises ConfigError."""
        made = make_objective(self.objective_section, self.label_smoothing)
        return made.settled(self.data.spec, steps_per_epoch=self.steps_per_epoch, horizon=self.horizon)

    @cached_property
    def update(self) -> Update:
        """What a step does. Raises ConfigError."""
        return make_update(self.update_section)

    @cached_property
    def policy(self) -> Policy | None:
        """How masks change; None where they stay as they are. Raises ConfigError."""
        return make_policy(self.sparse_section, steps_per_epoch=self.steps_per_epoch, horizon=self.horizon)

    @cached_property
    def interface(self) -> Interface:
        """What a model is built for. Raises ConfigError: the data do not have what the objective needs."""
        return self.objective.interface(self.data.spec)

    @property
    def draws(self) -> bool:
        """Whether a step draws random numbers of the augment seed: augmentation, dropout, what is masked."""
        return self.data.draws or self.objective.draws or draws_in_training(self.model, self.interface)

    def description(self, *, draws: bool) -> dict[str, Any]:
        """Plain values that decide its numbers.

        Args:
            draws: whether a step draws random numbers of the augment seed; otherwise that counts for nothing.
        """
        parts: dict[str, Component | None] = {
            "model": self.model,
            "objective": self.objective_section,
            "objective.loss": self.objective_section.loss,
            "update": self.update_section,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "sparse_training": self.sparse_section,
        }
        own = {name: part.sources for name, part in parts.items() if part is not None and part.sources}
        over = self.objective.mean_over
        still = {"freeze": sorted(set(self.freeze))} if self.freeze else {}
        return {
            "model": self.model.model_dump(mode="json", exclude={"prune_output"}),
            "data": self.data.identity,
            "batches": {
                "batch_size": self.batching.size,
                "drop_last": self.batching.drop_last,
                "order_seed": self.seeds["order"] if self.batching.shuffle else None,
                # Where nothing draws, the run's `seed`: what stood here before, unless a person gave this seed itself.
                "augment_seed": self.seeds["augment" if draws else "seed"],
            },
            "objective": {
                "label_smoothing": self.label_smoothing,
                "gradient_clip": self.gradient_clip,
                **still,
                **self.objective_section.unusual,
                **self.objective.decided,
                # Once it was the mean of the means of the parts.
                **({"mean_over": over} if self.execution.processes > 1 and over != "examples" else {}),
            },
            **({"update": stepping} if (stepping := self.update_section.unusual) else {}),
            **({"update_numerics": numerics} if (numerics := self.update.numerics) > 1 else {}),
            "optimizer": self.optimizer.model_dump(mode="json"),
            "schedule": self._schedule[1],
            **({} if self.policy is None else {"sparse_training": self._described(self.policy)}),
            "execution": self.execution.identity,
            **({"sources": own} if own else {}),
        }

    def _described(self, policy: Policy) -> dict[str, Any]:
        drawn = {"mask_seed": self.seeds["mask"]} if policy.draws else {}
        return {"_target_": self.sparse_section.target, **policy.description, **drawn}

    def with_seeds(self, **seeds: int) -> Recipe:
        """The same with other seeds."""
        return dataclasses.replace(self, seeds={**self.seeds, **seeds})

    @property
    def told(self) -> dict[str, Any]:
        """Every field for another process, which loads the data itself."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del parts["data"]
        return parts


def recipe(config: schema.Config, data: Data, execution: Execution) -> Recipe:
    """What a config says of a training; the only place where keys become identity.

    Raises:
        ConfigError: when the schedule or the number of steps does not fit the data, the update the data,
            the processes or the policy, or the objective mixed labels.
    """
    training = config.training
    made = Recipe(
        data=data,
        loading=Loading.of(config),
        execution=execution,
        model=config.model,
        objective_section=config.objective,
        batching=Batching(training.batch_size, training.shuffle, training.drop_last),
        label_smoothing=training.label_smoothing,
        gradient_clip=training.gradient_clip,
        freeze=tuple(training.freeze),
        update_section=config.update,
        optimizer=config.optimizer,
        schedule=config.schedule,
        sparse_section=config.sparse_training,
        length=training.length,
        seeds={"seed": config.seed, **config.resolved_seeds},
    )
    if made.steps_per_epoch < 1:
        raise ConfigError(
            (
                "training.batch_size",
                f"{training.batch_size} leaves no batch of {data.sizes['train']} examples with drop_last",
            )
        )
    made.update.check_data(data.spec)
    if config.dataset.augment.mixing and not made.objective.mixed_labels:
        raise ConfigError(
            (
                "dataset.augment",
                f"MixUp and CutMix make labels that are probabilities of classes, and {config.objective.target} "
                "needs one class; leave them at 0",
            )
        )
    parts = (
        ("update", made.update, config.update.target),
        ("objective", made.objective, config.objective.target),
    )
    for key, part, target in parts:
        if not part.several_processes and execution.processes > 1:
            raise ConfigError(
                (
                    f"{key}._target_",
                    f"{target} cannot train in several processes (distributed.processes={execution.processes}): it "
                    "does not say that it can (several_processes)",
                )
            )
    seen, examples = made.batches.examples(0), data.sizes["train"]
    if made.update.sees_all and seen < examples:
        raise ConfigError(
            (
                "training.batch_size",
                f"a batch has {seen} of the {examples} training examples, and every step of {config.update.target} "
                f"sees all; write {examples} or more",
            )
        )
    elsewhere = {
        "training.label_smoothing": training.label_smoothing,
        "objective.loss": config.objective.loss,
        "distillation.teachers": config.distillation.teachers,
    }
    if made.update.own_loss and (named := [key for key, value in elsewhere.items() if value]):
        problem = f"has no part in {config.update.target}, which minimises a loss of its own"
        raise ConfigError(*((key, problem) for key in named))
    if made.policy is not None and made.update.keeps_weights:
        raise ConfigError(
            (
                "sparse_training",
                f"{config.update.target} keeps weights of its own from step to step, which masks that change do not "
                "reach; prune between trainings, with lth prune",
            )
        )
    if made.policy is not None and made.policy.straight_through and type(made.update) is not Backpropagation:
        raise ConfigError(
            (
                "update._target_",
                f"{config.update.target} cannot train weights straight through their masks, as "
                "sparse_training asks; write update=backpropagation",
            )
        )
    made.learning_rate(0)
    return made
