"""Points in training, written `500it`, `2ep` or `1ep50it`, kept apart from plain numbers until resolved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_GRAMMAR = re.compile(r"(?:(?P<epochs>\d+)ep)?(?:(?P<iterations>\d+)it)?", re.ASCII)
_LONGEST = 10**12
GRAMMAR_HELP = "write steps as 500it (iterations), 2ep (epochs) or 1ep50it"


@dataclass(frozen=True, order=False)
class Duration:
    """A number of training steps given in epochs and iterations; epochs resolve once the data set is known."""

    epochs: int = 0
    iterations: int = 0

    @classmethod
    def parse(cls, value: Any) -> Duration:
        """Read the step grammar; a plain 0 means the start. Raises ValueError on anything else."""
        if isinstance(value, Duration):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value == 0:
            return cls()
        text = value.strip() if isinstance(value, str) else ""
        if text == "0":
            return cls()
        match = _GRAMMAR.fullmatch(text)
        if not text or match is None:
            raise ValueError(f"{value!r} is not a number of steps; {GRAMMAR_HELP}")
        duration = cls(int(match["epochs"] or 0), int(match["iterations"] or 0))
        if max(duration.epochs, duration.iterations) > _LONGEST:
            raise ValueError(f"{value!r} is longer than any training; {GRAMMAR_HELP}")
        return duration

    def steps(self, steps_per_epoch: int) -> int:
        """The number of optimizer steps, given how many make an epoch."""
        return self.epochs * steps_per_epoch + self.iterations

    def __bool__(self) -> bool:
        """Whether this is more than zero steps."""
        return bool(self.epochs or self.iterations)

    def __str__(self) -> str:
        """The canonical spelling; `parse` reads it back."""
        epochs = f"{self.epochs}ep" if self.epochs else ""
        iterations = f"{self.iterations}it" if self.iterations or not self.epochs else ""
        return epochs + iterations


def parse_rounds(text: str, last: int) -> list[int]:
    """Read a round range such as `3,5-8`, `all` or `last` into sorted round numbers between 0 and `last`.

    Raises:
        ValueError: when the text is malformed or names a round that does not exist.
    """
    text = text.strip()
    if text == "all":
        return list(range(last + 1))
    if text == "last":
        return [last]
    rounds: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"{text!r} is not a range of rounds; write all, last, or for example 3,5-8")
        first, final = int(match[1]), int(match[2] or match[1])
        if first > final:
            raise ValueError(f"{part.strip()!r} runs backwards; write {final}-{first}")
        if final > last:
            raise ValueError(f"round {final} does not exist; the last round is {last}")
        rounds.update(range(first, final + 1))
    return sorted(rounds)
