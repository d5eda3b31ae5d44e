"""Lines of metrics of the shared store, where each holds what anybody ever measured of a state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lth_cli.objectives.own_metrics import OwnMetric

Line = dict[str, Any]
"""An evaluation; `subset` is how many examples it was asked for, where not for all; `own` holds the digest of each
metric of a person's own whose value stands beside it."""


def measured(own: Sequence[OwnMetric], outputs: Any, batch: Any) -> Line:
    """What a line says of a person's own metrics. Raises LthError."""
    values: Line = {one.metric.name: one.value(outputs, batch) for one in own}
    return {**values, "own": _digests(own)}


def known(
    lines: Iterable[Line], own: Sequence[OwnMetric], wanted: Iterable[int], subset: int | None = None
) -> dict[tuple[int, str], Line]:
    """Evaluations by step and split, of `subset` examples or of all. One without a metric of a person's own counts as
    none at a step of `wanted`.

    There the state is stored; at other steps nothing is trained again for a metric that somebody thought of later.
    """
    found: dict[tuple[int, str], Line] = {}
    for line in lines:
        if line.get("subset") != subset:
            continue
        before = found.get((line["step"], line["split"]), {})
        digests = line.get("own", {})
        values = {name: line[name] for name in digests}
        merged = {"own": {**before.get("own", {}), **digests}} if digests else {}
        # A later line of the same state adds metrics; the time until there is that of the first.
        found[line["step"], line["split"]] = {**line, **before, **values, **merged}
    if not own:
        return found
    asked, at = _digests(own), set(wanted)
    return {
        (step, split): line
        for (step, split), line in found.items()
        if split == "train" or step not in at or asked.items() <= line.get("own", {}).items()
    }


def told(line: Mapping[str, Any], own: Sequence[OwnMetric]) -> Line:
    """A line without metrics that others thought of, or that were other functions then."""
    asked = _digests(own)
    foreign = {name for name, value in line.get("own", {}).items() if asked.get(name) != value}
    return {name: value for name, value in line.items() if name != "own" and name not in foreign}


def _digests(own: Sequence[OwnMetric]) -> dict[str, str]:
    return {one.metric.name: one.digest for one in own}
