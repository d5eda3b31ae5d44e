"""A goal that a training ends at, as it is written: `val_accuracy:0.98`."""

from __future__ import annotations

from dataclasses import dataclass

from lth_cli.config.metrics import Metric

GOAL = r"^(val|test)_[a-z][a-z0-9_]*:-?\d+(\.\d*)?([eE][+-]?\d+)?$"


@dataclass(frozen=True)
class Goal:
    """A value of a metric on a split, reached where it is at least as good.

    Attributes:
        split: `val` or `test`.
        metric: what is measured.
        value: in its own numbers, 0.98 for 98 %.
    """

    split: str
    metric: Metric
    value: float

    def reached(self, line: dict[str, object]) -> bool:
        """Whether an evaluation, a line of metrics, is as good."""
        value = line.get(self.metric.name)
        return (
            line["split"] == self.split
            and isinstance(value, float | int)
            and self.metric.matches(value, self.value, 0.0)
        )


def parts(text: str) -> tuple[str, str, float]:
    """Split, metric and value of a goal as written, which is of the form `GOAL`."""
    name, _, value = text.partition(":")
    split, _, metric = name.partition("_")
    return split, metric, float(value)


def words(text: str) -> str:
    """A goal as people read it: `val accuracy 0.98`."""
    split, metric, value = parts(text)
    return f"{split} {metric.replace('_', ' ')} {value:g}"
