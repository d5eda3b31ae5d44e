"""A person's own metrics: functions of all answers of a split, beside what an objective measures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError, LthError
from lth_cli.config.metrics import Metric
from lth_cli.config.sources import where_own
from lth_cli.config.targets import check_arguments, first_two, locate
from lth_cli.objectives.objective import Batch
from lth_cli.store.files import digest

_TAKEN = ("step", "epoch", "split", "loss", "lr", "seconds", "own")
"""What else stands in a line of metrics."""


@dataclass(frozen=True)
class OwnMetric:
    """A metric that a person named.

    Attributes:
        metric: its name is that of the function.
        digest: of everything that decides its values: import path, arguments, source or stated version.
        function: (outputs, batch) -> number.
    """

    metric: Metric
    digest: str
    function: Callable[[Tensor, Batch], float]

    def value(self, outputs: Tensor, batch: Batch) -> float | None:
        """Of a whole split; None where it is not finite.

        Args:
            outputs: float32 [N, ...], on the CPU.
            batch: the examples, tensors [N, ...] by name, on the CPU.

        Raises:
            LthError: the function failed.
        """
        try:
            value = float(self.function(outputs, batch))
        except Exception as error:  # a person's own code may fail in any way
            raise LthError(
                f"evaluation.metrics: {self.metric.name} failed: {type(error).__name__}: {error}{where_own(error)}"
            ) from error
        return value if math.isfinite(value) else None


def own_metrics(sections: Sequence[schema.OwnMetric], others: Iterable[Metric]) -> tuple[OwnMetric, ...]:
    """The metrics that a config names.

    Args:
        sections: of the config.
        others: what the objective measures.

    Raises:
        ConfigError: no such function, wrong arguments, or a name that is taken.
    """
    taken = {*_TAKEN, *(metric.name for metric in others)}
    found = []
    for number, section in enumerate(sections):
        where = f"evaluation.metrics.{number}"
        function = locate(section.target, f"{where}._target_")
        name = section.target.rpartition(".")[2]
        if name in taken:
            raise ConfigError(
                (f"{where}._target_", f"{name} is measured already, or what a line calls otherwise")
            )
        taken.add(name)
        arguments = check_arguments(function, section.arguments, where, supplied=first_two(function))
        decides = digest([section.model_dump(mode="json", exclude={"better", "unit"}), section.sources])
        metric = Metric(name, section.better, section.unit)
        found.append(OwnMetric(metric, decides, functools.partial(function, **arguments)))
    return tuple(found)
