"""What do masks have in common, and which weights does retraining make small?

Overlap against that of independent random masks of the same densities; density by layer; magnitudes of the kept weights
at the projection (the weights of round r under the mask of round r + 1) and after retraining (the weights of round
r + 1), with the share of the weights pruned next that were not among the smallest at the projection (Paul et al. 2023,
arXiv:2210.03044).
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lth_cli.analyses.masks.overlap import Overlap, histogram_edges, made_small, magnitude_histogram, overlap
from lth_cli.analyses.masks.settings import Settings
from lth_cli.analyses.request import (
    Answer,
    NamedState,
    Request,
    Study,
    check_shapes,
    settings,
)
from lth_cli.analyses.work import Work
from lth_cli.config.errors import RequestError
from lth_cli.experiments.recorded import Recorded
from lth_cli.pruning.mask import Masks, layer_counts
from lth_cli.store.analyses import Row
from lth_cli.store.masks import mask_digest
from lth_cli.store.runs import Run

_BEYOND_CHANCE = 3.0
"""Standard deviations from which an overlap counts as above chance."""


@dataclass(frozen=True)
class Named:
    """A mask that is compared, by the round of a run that trained it."""

    recorded: Recorded
    name: str


@dataclass(frozen=True)
class Retrained:
    """A round that a run pruned and retrained.

    Attributes:
        before: the weights that were pruned.
        after: the weights that retraining made of what was left.
        next: the mask they were pruned to; None for a last round, and where magnitudes did not decide.
    """

    before: NamedState
    after: NamedState
    next: Masks | None


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    opened = functools.cache(request.round)
    named = [Named(opened(name, run), name) for run in request.runs for name in asked.rounds or _pruned(run)]
    masks = list({mask.recorded.label: mask for mask in named}.values())
    _check_alike([mask.recorded for mask in masks])
    retrained = [found for mask in masks if (found := _retrained(opened, mask.recorded)) is not None]
    return Study(
        "masks",
        request.runs[0],
        {
            **settings(asked, "rounds"),
            "masks": [[mask.name, mask_digest(mask.recorded.masks)] for mask in masks],
            "retrained": [
                {
                    "before": one.before.identity,
                    "after": one.after.identity,
                    "next": mask_digest(one.next) if one.next is not None else None,
                    "layerwise": _layerwise(one),
                }
                for one in retrained
            ],
        },
        {"masks": [mask.recorded.label for mask in masks]},
        functools.partial(_answer, asked=asked, masks=masks, retrained=retrained),
        parts=len(retrained),
        not_shown=("layers", "density", "histogram"),
    )


def _pruned(run: Run) -> list[str]:
    """Every finished round of a run after the dense one."""
    there = [str(round_.number) for round_ in run.rounds() if round_.finished and round_.number > 0]
    if not there:
        raise RequestError(f"{run.name} has no pruned round; lth prune finds tickets")
    return there


def _check_alike(rounds: Sequence[Recorded]) -> None:
    check_shapes(rounds)
    first = rounds[0]
    for other in rounds[1:]:
        differing = sorted(first.masks.keys() ^ other.masks.keys())
        if differing:
            raise RequestError(
                f"{first.label} and {other.label} do not prune the same tensors: {', '.join(differing)}; "
                "their masks cannot be compared"
            )


def _retrained(opened: Callable[[str, Run], Recorded], recorded: Recorded) -> Retrained | None:
    """A round with the one before it; None for a dense one, a control, and one that took its mask from elsewhere."""
    run, number = recorded.run, recorded.round.number
    if recorded.branch is not None or number == 0 or run.info["kind"] != "prune":
        return None
    before = opened(str(number - 1), run)
    pruning = recorded.plan.config.pruning
    by_magnitude = pruning.score == "magnitude" and not pruning.invert
    pruned_again = by_magnitude and run.round(number + 1).finished
    states = [NamedState(one, _scored_at(one)) for one in (before, recorded)]
    for state in states:
        state.recorded.check(state.step)
    return Retrained(states[0], states[1], opened(str(number + 1), run).masks if pruned_again else None)


def _scored_at(recorded: Recorded) -> int:
    """The step at which the weights of a round are pruned; where those of the dense training are, its start."""
    at = recorded.plan.config.pruning.at
    if at is not None and recorded.plan.scored_at(recorded.plan.dense) <= recorded.plan.rewind_to:
        return recorded.step("start")
    return recorded.step("end" if at is None else at)


def _layerwise(retrained: Retrained) -> bool:
    return retrained.after.recorded.plan.config.pruning.allocation == "layerwise"


def _answer(work: Work, *, asked: Settings, masks: Sequence[Named], retrained: Sequence[Retrained]) -> Answer:
    tables: dict[str, list[Row]] = {
        name: [] for name in ("overlap", "layers", "density", "magnitudes", "histogram")
    }
    across: dict[str, list[Overlap]] = {}
    for first, second in itertools.combinations(masks, 2):
        work.check_stop()
        names: Row = {"first": first.recorded.label, "second": second.recorded.label}
        found = overlap(first.recorded.masks, second.recorded.masks)
        whole = found.pop("all")
        tables["overlap"].append({**names, **_overlap(whole), "chance_whole_network": _chance(whole)})
        tables["layers"] += [{**names, "layer": layer, **_overlap(shared)} for layer, shared in found.items()]
        if first.name == second.name:
            across.setdefault(first.name, []).append(whole)
    tables["density"] = [row for mask in masks for row in _densities(mask.recorded)]
    for one in retrained:
        row, bins = _magnitudes(work, one, asked.bins)
        tables["magnitudes"].append(row)
        tables["histogram"] += bins
    shares = [float(row["made_small"]) for row in tables["magnitudes"] if row["made_small"] is not None]
    summary: dict[str, Any] = {
        "masks": len(masks),
        "between_runs": {name: _mean(several) for name, several in across.items()},
        "made_small": statistics.fmean(shares) if shares else None,
    }
    return Answer(tables, summary, _headline(tables, summary))


def _overlap(found: Overlap) -> Row:
    """Columns of a table: what two masks share, and what they would by chance at the densities of their layers."""
    return {
        "first_density": found.first / found.total,
        "second_density": found.second / found.total,
        "shared": found.shared,
        "shared_fraction": found.shared_fraction,
        "chance_fraction": found.chance_fraction,
        "iou": found.iou,
        "chance_iou": found.chance_iou,
        "deviations": found.deviations,
    }


def _chance(whole: Overlap) -> float:
    """The fraction shared by chance if masks were drawn with their density over the whole network."""
    return max(whole.first, whole.second) / whole.total


def _mean(several: Sequence[Overlap]) -> dict[str, float]:
    return {
        "pairs": len(several),
        "shared_fraction": statistics.fmean(found.shared_fraction for found in several),
        "chance_fraction": statistics.fmean(found.chance_fraction for found in several),
    }


def _densities(recorded: Recorded) -> list[Row]:
    kept = layer_counts(recorded.masks)
    return [
        {
            "mask": recorded.label,
            "layer": name,
            "weights": mask.numel(),
            "kept": kept[name],
            "density": kept[name] / mask.numel(),
        }
        for name, mask in recorded.masks.items()
    ]


def _magnitudes(work: Work, one: Retrained, bins: int) -> tuple[Row, list[Row]]:
    """A row a retrained round, and its two histograms."""
    label = one.after.recorded.label
    work.observer.part_started(label)

    def measure() -> dict[str, Any]:
        masks = one.after.recorded.masks
        weights = [work.state(state.recorded, state.step).weights for state in (one.before, one.after)]
        edges = histogram_edges([(each, masks) for each in weights], bins)
        found: dict[str, Any] = {
            "edges": edges.tolist(),
            "counts": [magnitude_histogram(each, masks, edges).tolist() for each in weights],
            "pruned": None,
            "small_before": None,
            "share": None,
        }
        if one.next is not None:
            gone = made_small(weights[0], masks, one.next, layerwise=_layerwise(one))
            found |= {"pruned": gone.pruned, "small_before": gone.small_before, "share": gone.share}
        return found

    found = work.once(["magnitudes", one.before.identity, one.after.identity], measure)
    work.observer.part_finished(
        "no pruning after it" if found["share"] is None else f"made small: {100 * found['share']:.1f} %"
    )
    row: Row = {
        "mask": label,
        "kept": sum(found["counts"][0]),
        "pruned_next": found["pruned"],
        "small_at_projection": found["small_before"],
        "made_small": found["share"],
    }
    histogram: list[Row] = [
        {"mask": label, "log10_from": low, "log10_to": high, "projection": before, "retrained": after}
        for (low, high), before, after in zip(
            itertools.pairwise(found["edges"]), *found["counts"], strict=True
        )
    ]
    return row, histogram


def _headline(tables: dict[str, list[Row]], summary: dict[str, Any]) -> list[str]:
    said = []
    if tables["overlap"]:
        above = [row for row in tables["overlap"] if float(row["deviations"] or 0.0) > _BEYOND_CHANCE]
        said.append(
            f"{len(above)} of {len(tables['overlap'])} pairs of masks have more weights in common than chance, by over "
            f"{_BEYOND_CHANCE:g} standard deviations"
        )
    for name, mean in list(summary["between_runs"].items())[-1:]:
        said.append(
            f"round {name} of different runs: {100 * mean['shared_fraction']:.1f} % of the kept weights in common, "
            f"{100 * mean['chance_fraction']:.1f} % by chance"
        )
    if summary["made_small"] is not None:
        said.append(
            f"retraining made small {100 * summary['made_small']:.1f} % of the weights that were pruned next "
            "(mean over rounds)"
        )
    return said
