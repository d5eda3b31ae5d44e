"""Numbers that say how good a model is: their names, which way is better, how people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is.

    Attributes:
        name: as in `metrics.jsonl`; columns are `SPLIT_NAME`.
        better: which way.
        unit: `%` where it is a fraction that people read in per cent; else what the number is in, or nothing.
    """

    name: str
    better: Literal["higher", "lower"]
    unit: str = ""

    @property
    def words(self) -> str:
        """The name as people read it."""
        return self.name.replace("_", " ")

    @property
    def scale(self) -> float:
        """What a value is multiplied with to be in the unit."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def axis(self) -> str:
        """The name with the unit in brackets, for figures."""
        return f"{self.words} ({self.unit})" if self.unit else self.words

    @property
    def title(self) -> str:
        """The name and the unit, for headings of tables."""
        return f"{self.words} in {self.unit}" if self.unit else self.words

    def number(self, value: float) -> str:
        """A value in the unit, without naming it."""
        return f"{100 * value:.2f}" if self.unit == "%" else f"{value:.4g}"

    def spread(self, value: float) -> str:
        """A difference of values, in the unit, without naming it."""
        return f"{100 * value:.2f}" if self.unit == "%" else f"{value:.2g}"

    def told(self, value: float) -> str:
        """A value with its unit; without one, with its name."""
        return f"{self.number(value)} {self.unit}" if self.unit else f"{self.words} {self.number(value)}"

    def points(self, difference: float) -> str:
        """A difference of values with its unit: points of per cent."""
        unit = "points" if self.unit == "%" else self.unit
        return f"{self.spread(difference)} {unit}".strip()

    def rank(self, value: float | None) -> float:
        """A number that is the higher, the better the value; least where there is none."""
        if value is None or math.isnan(value):
            return -math.inf
        return value if self.better == "higher" else -value

    def matches(self, value: float, reference: float, tolerance: float) -> bool:
        """Whether a value is as good as a reference, or worse by the tolerance at most."""
        return value >= reference - tolerance if self.better == "higher" else value <= reference + tolerance

    def limit(self, reference: float, tolerance: float) -> float:
        """The worst value that still matches a reference."""
        return reference - tolerance if self.better == "higher" else reference + tolerance


ACCURACY = Metric("accuracy", "higher", "%")
CLASSIFICATION = (ACCURACY,)


def plain(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Metrics as plain values, for run.json."""
    return [asdict(metric) for metric in metrics]


def noted(info: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metrics that a run.json notes; those of classification where it notes none."""
    return tuple(Metric(**told) for told in info["metrics"]) if info.get("metrics") else CLASSIFICATION


def noting(metrics: tuple[Metric, ...]) -> dict[str, Any]:
    """What run.json notes of metrics: nothing where they are those of classification."""
    return {} if metrics == CLASSIFICATION else {"metrics": plain(metrics)}
