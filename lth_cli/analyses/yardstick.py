"""What networks are compared by: the error of an objective or its loss alone, and its headline metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lth_cli.config.errors import RequestError
from lth_cli.config.metrics import Metric
from lth_cli.experiments.recorded import Recorded
from lth_cli.objectives.classification import Classification
from lth_cli.store.rounds import Round


@dataclass(frozen=True)
class Yardstick:
    """What a barrier is measured in.

    Attributes:
        quantity: `error`, a fraction told in per cent, or `loss` of objectives that know no error.
    """

    quantity: Literal["error", "loss"]

    @property
    def column(self) -> str:
        """Of the barrier on the test examples."""
        return "test_barrier" if self.quantity == "error" else "test_loss_barrier"

    @property
    def suffix(self) -> str:
        """Of columns of barriers, behind the split."""
        return self.column.removeprefix("test")

    @property
    def other_columns(self) -> tuple[str, ...]:
        """Of the barrier on the training examples."""
        return ("train_barrier",) if self.quantity == "error" else ("train_loss_barrier",)

    @property
    def name(self) -> str:
        """On the test examples, in words."""
        return f"test {self.quantity}"

    def value(self, value: float | None) -> str:
        """An error or a loss as people read it."""
        if value is None:
            return "not finite"
        return f"{100 * value:.2f} %" if self.quantity == "error" else f"{value:.4g}"

    def told(self, barrier: float | None) -> str:
        """A barrier in words."""
        if barrier is None:
            return "barrier of the test loss not finite"
        if self.quantity == "error":
            return f"barrier {100 * barrier:.2f} points of test error"
        return f"barrier {barrier:.4g} of the test loss"

    def below(self, threshold: float) -> str:
        """What counts as connected, in words."""
        limit = f"{100 * threshold:g} points" if self.quantity == "error" else f"{threshold:g}"
        return f"barrier of the {self.name} below {limit}"

    @property
    def noted(self) -> dict[str, Any]:
        """For the summary of an answer: nothing where it is the error."""
        return {} if self.quantity == "error" else {"barriers_of": self.quantity}


def yardstick(recorded: Recorded) -> Yardstick:
    """What barriers of a training's objective are measured in."""
    objective = recorded.plan.dense.recipe.objective
    error = objective.error(recorded.round.summary["metrics"]["test"])
    return Yardstick("loss" if error is None else "error")


def below(barrier: float | None, threshold: float) -> bool:
    """Whether a barrier is one that connects; one that is not finite is none."""
    return barrier is not None and barrier < threshold


def check_objectives(states: Sequence[Recorded]) -> None:
    """Refuse to compare networks of different objectives. Raises RequestError, naming two."""
    first = states[0]
    for other in states[1:]:
        ours, theirs = (found.plan.config.objective.target for found in (first, other))
        if ours != theirs:
            raise RequestError(
                f"{first.label} is trained on {ours} and {other.label} on {theirs}; one analysis measures one objective"
            )


def check_tolerance(tolerance: float | None, states: Sequence[Recorded]) -> None:
    """Refuse per cent where a fraction is meant. Raises RequestError."""
    if tolerance is not None and tolerance >= 1 and any(one.run.headline.unit == "%" for one in states):
        raise RequestError(
            f"analysis.tolerance: {tolerance:g} is a fraction, and must be less than 1; 0.002 is 0.2 points"
        )


def has_classes(recorded: Recorded) -> bool:
    """Whether the answer of a network to an example is a class."""
    return isinstance(recorded.plan.dense.recipe.objective, Classification)


def check_classes(analysis: str, states: Sequence[Recorded]) -> None:
    """Refuse networks that tell no classes apart. Raises RequestError."""
    for recorded in states:
        if not has_classes(recorded):
            raise RequestError(
                f"analysis={analysis} is about classes, and {recorded.label} tells none apart: its objective is "
                f"{recorded.plan.config.objective.target}"
            )


def score(round_: Round, metric: Metric) -> float:
    """A metric on the test examples, as recorded when a round ended; 0 where it was infinite."""
    return float(round_.summary["metrics"]["test"][metric.name] or 0.0)
