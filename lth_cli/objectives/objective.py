"""An objective: the loss, what a model is shown and asked, the metrics, and what counts as error."""

from __future__ import annotations

import abc
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn

from lth_cli.config.errors import ConfigError
from lth_cli.config.metrics import Metric
from lth_cli.config.spec import Interface, Spec

Batch: TypeAlias = Mapping[str, Tensor]
"""Tensors of some examples by name, the first axis of each being the example; read only."""
Loss: TypeAlias = Callable[..., Tensor]
"""(outputs, batch) -> scalar, the mean over the examples of the batch."""
UNSEEN = -100
"""In the place of a token's target where it has none."""


class Objective(abc.ABC):
    """Everything about a training that depends on what it is for.

    Args:
        loss: a person's own, in the place of `task`.

    Attributes:
        metrics: the first is the headline, by which rounds are compared and the best is chosen.
        tells: what a model is told beside its input in training: further arguments of its `forward`.
        several_processes: whether its loss can be taken of a model that several processes share.
        mixed_labels: whether labels may be probabilities of classes, as MixUp and CutMix make them.
        answers: what a model gives logits for, so that a teacher's can stand beside a student's: the `example`, or
            each `token`; None where its outputs are no logits.
        mean_over: what the loss of a batch is the mean over: its examples, or the `targets` of its view that are not
            -100, of which parts of a batch may have different numbers.
    """

    metrics: tuple[Metric, ...]
    tells: ClassVar[tuple[str, ...]] = ()
    several_processes: ClassVar[bool] = True
    mixed_labels: ClassVar[bool] = True
    answers: ClassVar[Literal["example", "token"] | None] = None
    mean_over: ClassVar[Literal["examples", "targets"]] = "examples"

    def __init__(self, *, loss: Loss | None = None) -> None:
        self._own = loss

    @abc.abstractmethod
    def interface(self, spec: Spec) -> Interface:
        """What a model for these data is built for.

        Raises:
            ConfigError: the data do not have what the objective needs.
        """

    def check(self, model: nn.Module) -> None:
        """Refuse a model that cannot be told what this objective tells it, before anything is trained.

        Raises:
            ConfigError: at `model`.
        """
        if not self.tells:
            return
        taken = list(inspect.signature(model.forward).parameters.values())
        if len(taken) <= len(self.tells) and not any(one.kind is one.VAR_POSITIONAL for one in taken):
            raise ConfigError(
                (
                    "model",
                    f"{type(self).__name__} tells the model {' and '.join(self.tells)} in training, which "
                    f"{type(model).__name__} does not take; docs/systems.md names one that does",
                )
            )

    @abc.abstractmethod
    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss that is minimised where a person names none: scalar, mean over the examples."""

    @abc.abstractmethod
    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Scalars that add up over batches and processes, from which `summarize` makes the metrics.

        Of a tensor [B, ...], for metrics that are no sums, `summarize` gets the rows of all examples, in any order.
        """

    @abc.abstractmethod
    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """`loss` and every metric, from the totals of `measure` and the number of `examples`."""

    def settled(self, spec: Spec, *, steps_per_epoch: int, horizon: int) -> Objective:
        """The same for these data and a training of this length, where either decides what a step is about.

        Args:
            spec: of the data.
            steps_per_epoch: updates in an epoch.
            horizon: updates in the whole training.

        Raises:
            ConfigError: the data do not have what the objective needs.
        """
        return self

    @property
    def decided(self) -> dict[str, Any]:
        """Plain values, in steps, that decide what a step is about beside the section of the config."""
        return {}

    @property
    def draws(self) -> bool:
        """Whether a step's view may draw random numbers; a person's own view counts as doing so."""
        return type(self).view is not Objective.view

    def view(self, batch: Batch, step: int | None, seed: int) -> Batch:
        """What of a batch a step is about, with what is masked or added at random.

        Args:
            batch: as the data give it.
            step: of the update; None in evaluation, where it must be the same each time.
            seed: of what is drawn.
        """
        return batch

    def given(self, batch: Batch) -> Tensor:
        """What the model is given of a batch."""
        return batch["inputs"]

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model answers to a batch."""
        answered: Tensor = model(self.given(batch))
        return answered

    def logits(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Of all that the loss counts in a batch, [answers, classes]; where `answers` says that there are any."""
        return outputs

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """What a step minimises: scalar, mean over the examples of the batch."""
        return self.task(outputs, batch) if self._own is None else self._own(outputs, batch)

    def error(self, metrics: Mapping[str, float]) -> float | None:
        """What a barrier is measured in, as a fraction; None where that is the loss alone."""
        return None

    @property
    def own_loss(self) -> Loss | None:
        """The loss that a person named."""
        return self._own


def require(spec: Spec, objective: str, fields: Mapping[str, str], sizes: tuple[str, ...] = ()) -> None:
    """Refuse data without the tensors and sizes that an objective needs.

    Args:
        spec: of the data.
        objective: its name for the message.
        fields: dtype by name of each tensor needed.
        sizes: names of what the data must count.

    Raises:
        ConfigError: saying what is missing.
    """
    wrong = [name for name, dtype in fields.items() if spec.dtypes.get(name) != dtype]
    wrong += [size for size in sizes if size not in spec.sizes]
    if wrong:
        there = ", ".join(f"{name} {spec.dtypes[name]} {list(spec.shapes[name])}" for name in spec.shapes)
        needed = ", ".join([*(f"{name} ({dtype})" for name, dtype in fields.items()), *sizes])
        raise ConfigError(
            (
                "objective",
                f"{objective} needs {needed} of the data; this data set has {there}, "
                f"and counts {', '.join(spec.sizes) or 'nothing'}",
            )
        )


def mean_of(totals: Mapping[str, float], name: str, by: str = "examples") -> float:
    """A total by example, or by another total; NaN where that is zero."""
    return totals[name] / totals[by] if totals[by] else math.nan
