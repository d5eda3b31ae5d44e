"""Functions that say what comes next, by what was found so far; the same findings give the same answer.

A function takes `found`, a list of (overrides, records) of the points so far in order, and the settings of the
study's YAML; it returns the overrides of the next point, or None at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Found = Sequence[tuple[tuple[str, ...], Sequence[dict[str, Any]]]]


def earliest_true(
    found: Found, *, key: str, column: str, lowest: int, highest: int, resolution: int, wrap: bool = True
) -> list[str] | None:
    """Bisect the steps from `lowest` to `highest` for the earliest at which a column of the answer is true.

    Both ends come first; then the middle between the last step that is not and the first that is, until they are
    `resolution` apart. Where the lowest is true already, or the highest is not, the two ends are all.

    Args:
        found: what was asked so far.
        key: of the config, which takes the step.
        column: of the answer; true of a point where it is true of all its rows.
        lowest: step.
        highest: step.
        resolution: steps.
        wrap: whether the key takes a list.
    """
    answers = {int(_value(overrides, key)): all(row[column] for row in rows) for overrides, rows in found}
    step = _next_step(answers, lowest, highest, resolution)
    if step is None:
        return None
    return [f"{key}=[{step}it]" if wrap else f"{key}={step}it"]


def _next_step(answers: dict[int, bool], lowest: int, highest: int, resolution: int) -> int | None:
    for end in (lowest, highest):
        if end not in answers:
            return end
    if answers[lowest] or not answers[highest]:
        return None
    low, high = lowest, highest
    while high - low > resolution:
        middle = (low + high) // 2
        if middle not in answers:
            return middle
        low, high = (low, middle) if answers[middle] else (middle, high)
    return None


def _value(overrides: Sequence[str], key: str) -> str:
    text = next(text for text in overrides if text.startswith(f"{key}="))
    return text.partition("=")[2].strip("[]").removesuffix("it")
