"""Settings tried at quasi-random values: points of a Sobol sequence in the ranges that a person gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

from lth_cli.config.errors import ConfigError

SCALES = ("log", "reverse_log")
_MOST = 10_000
_DIGITS = 9


@dataclass(frozen=True)
class Range:
    """Values of a setting between two ends, the first included.

    Attributes:
        low: smallest value.
        high: largest.
        scale: of which values are even: `linear`; `log`, of the value; `reverse_log`, of 1 - the value, beginning at
            its upper end, as of a momentum near 1.
        whole: rounded down to an integer.
    """

    low: float
    high: float
    scale: str = "linear"
    whole: bool = False

    @classmethod
    def parse(cls, key: str, text: str) -> Range:
        """Read `interval(1,2)`, `tag(log,interval(1e-4,1))`, `int(interval(100,900))`.

        Raises:
            ConfigError: at `key`.
        """
        sweep: Any = OverridesParser.create().parse_override(f"{key}={text}").value()
        tags = sorted(sweep.tags) if isinstance(sweep, IntervalSweep) else []
        if not isinstance(sweep, IntervalSweep) or len(tags) > 1 or any(tag not in SCALES for tag in tags):
            raise ConfigError(
                (
                    key,
                    f"{text} is no range to try; write interval(LOW,HIGH), tag(log,interval(LOW,HIGH)), "
                    "tag(reverse_log,interval(LOW,HIGH)) or int(interval(LOW,HIGH))",
                )
            )
        low, high = sweep.start, sweep.end
        if low is None or high is None or not low < high:
            raise ConfigError((key, f"{text}: the first end must be below the second"))
        scale = tags[0] if tags else "linear"
        if (scale == "log" and low <= 0) or (scale == "reverse_log" and high >= 1):
            within = "above 0" if scale == "log" else "below 1"
            raise ConfigError((key, f"{text}: {scale} needs ends {within}"))
        return cls(float(low), float(high), scale, isinstance(low, int) and isinstance(high, int))

    def at(self, share: float) -> int | float:
        """The value so far between the ends, from 0 to 1."""
        forth, back = _SCALES[self.scale]
        first, last = sorted((forth(self.low), forth(self.high)))
        value = back(first + share * (last - first))
        return math.floor(value) if self.whole else float(f"{value:.{_DIGITS}g}")


_SCALES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "linear": (lambda value: value, lambda value: value),
    "log": (math.log10, lambda value: 10.0**value),
    "reverse_log": (lambda value: math.log10(1 - value), lambda value: 1 - 10.0**value),
}


def drawn_trials(ranges: Mapping[str, Range], count: int) -> list[dict[str, str]]:
    """Values of settings by key, a trial each: the first points of a Sobol sequence, a dimension a setting.

    Not scrambled, and without the point at zero, as in Lee et al. 2021 (arXiv:2003.11316). Trial i is the same however
    many there are.

    Raises:
        ConfigError: the number of trials.
    """
    from scipy.stats.qmc import Sobol

    if not 1 <= count <= _MOST:
        raise ConfigError(("trials", f"must be from 1 to {_MOST:,}, got {count}"))
    sequence = Sobol(len(ranges), scramble=False)
    sequence.fast_forward(1)
    found = []
    for _ in range(count):  # one by one: of several at once scipy wants a power of two
        (point,) = sequence.random(1)
        found.append(
            {key: str(one.at(float(share))) for (key, one), share in zip(ranges.items(), point, strict=True)}
        )
    return found


def ranges_of(swept: Mapping[str, Sequence[str]]) -> dict[str, Range]:
    """The ranges among swept values, by key. Raises ConfigError: one stands beside other values, or is no range."""
    found = {}
    for key, values in swept.items():
        texts = [text for text in values if "interval(" in text]
        if texts and len(values) > 1:
            raise ConfigError((key, "takes one range, or values, not both"))
        if texts:
            found[key] = Range.parse(key, texts[0])
    return found
