"""How curved is the loss at a state, and how much could be pruned there at once? (Paul et al. 2023, arXiv:2210.03044)

The Hessian of the mean cross-entropy of some training examples, in inference mode and without augmentation, by the
weights that the mask keeps or by all parameters. It is looked at through products with vectors alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lth_cli.analyses.curvature import spectrum
from lth_cli.analyses.curvature.hessian import Hessian
from lth_cli.analyses.curvature.settings import Settings
from lth_cli.analyses.drawn import check_drawn, drawn_examples
from lth_cli.analyses.request import (
    Answer,
    NamedState,
    Request,
    Study,
    circumstances,
    settings,
)
from lth_cli.analyses.work import Work
from lth_cli.analyses.yardstick import check_tolerance, score
from lth_cli.config.errors import LthError, RequestError
from lth_cli.config.metrics import Metric
from lth_cli.config.seeds import derive_seed
from lth_cli.data.batches import Batch
from lth_cli.experiments.recorded import Recorded
from lth_cli.pruning.mask import Masks, count
from lth_cli.store.analyses import Row
from lth_cli.store.states import State
from lth_cli.training.evaluate import Stopped, arranged


@dataclass(frozen=True)
class Next:
    """What pruning did to the end of a round.

    Attributes:
        masks: of the next round.
        metric: by which rounds match.
        score: of the next round, on the test examples.
        dense_score: of round 0.
        trajectory: identity of the next round's training.
    """

    masks: Masks
    metric: Metric
    score: float
    dense_score: float
    trajectory: str


@dataclass(frozen=True)
class Subject:
    """A state to look at, and the round after it where the state is what that round pruned."""

    state: NamedState
    after: Next | None


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    states = {state.label: state for state in request.states(asked.states)}
    check_tolerance(asked.tolerance, [state.recorded for state in states.values()])
    subjects = [_subject(state, asked) for state in states.values()]
    return Study(
        "curvature",
        request.runs[0],
        {
            **settings(asked, "states"),
            "states": [
                {
                    "state": subject.state.identity,
                    **circumstances(subject.state.recorded),
                    "next": subject.after
                    and [subject.after.trajectory, subject.after.score, subject.after.dense_score],
                }
                for subject in subjects
            ],
        },
        {"states": [subject.state.label for subject in subjects]},
        functools.partial(_answer, asked=asked, subjects=subjects),
        parts=len(subjects),
        not_shown=("density", "quadrature"),
    )


def _subject(state: NamedState, asked: Settings) -> Subject:
    recorded = state.recorded
    check_drawn(recorded, asked.examples, asked.dtype)
    at_end = state.step == recorded.end
    if asked.subspace == "all" or at_end or recorded.plan.dense.recipe.policy is None:
        # Otherwise only the state itself can tell.
        _check_size(state, _spanned(recorded, recorded.masks, asked), asked)
    bounded = asked.subspace == "mask" and recorded.branch is None and at_end
    return Subject(state, _after(recorded) if bounded else None)


def _spanned(recorded: Recorded, masks: Masks, asked: Settings) -> Masks:
    """The weights by which second derivatives are taken, at a state with these masks."""
    if asked.subspace == "mask":
        return masks
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in recorded.plan.shapes.items()}


def _check_size(state: NamedState, spanned: Masks, asked: Settings) -> None:
    size = count(spanned)
    if asked.eigenvalues >= size:
        raise RequestError(
            f"analysis.eigenvalues: the Hessian at {state.label} has {size} rows, "
            f"of whose eigenvalues at most {max(size - 1, 0)} can be had, not {asked.eigenvalues}"
        )


def _after(recorded: Recorded) -> Next | None:
    """The round that pruned the end of this one; None where there is none, or its mask removes nothing."""
    following, dense = (recorded.run.round(number) for number in (recorded.round.number + 1, 0))
    if not (following.finished and dense.finished):
        return None
    masks = recorded.plan.ordered(following.masks())
    if not any((mask & ~masks[name]).any() for name, mask in recorded.masks.items()):
        return None
    metric = recorded.run.headline
    return Next(
        masks, metric, score(following, metric), score(dense, metric), str(following.summary["trajectory"])
    )


def _answer(work: Work, *, asked: Settings, subjects: Sequence[Subject]) -> Answer:
    tables: dict[str, list[Row]] = {
        name: [] for name in ("eigenvalues", "trace", "diagonal", "bound", "density", "quadrature")
    }
    headline: list[str] = []
    products: dict[str, int] = {}
    for subject in subjects:
        label = subject.state.label
        work.observer.part_started(f"curvature at {label}")
        recorded = subject.state.recorded
        state = work.state(recorded, subject.state.step)
        spanned = _spanned(recorded, recorded.masks_of(state), asked)
        _check_size(subject.state, spanned, asked)
        hessian = _hessian(work, recorded, state, spanned, asked)
        found = _measure(work, hessian, subject, asked)
        products[label] = sum(found[part]["products"] for part in ("eigenvalues", "hutchinson", "density"))
        density = spectrum.Density([_masses(*probe) for probe in found["density"]["probes"]])
        for name, rows in _tables(found, density, asked).items():
            tables[name] += [{"state": label, **row} for row in rows]
        total = found["hutchinson"]["trace"][0]
        top = found["eigenvalues"]["values"][0]
        line = (
            f"{label}: largest eigenvalue {top:.4g}, trace {total['trace']:.4g} ± {total['standard_error']:.2g} "
            f"over {hessian.size:,} weights"
        )
        if subject.after is not None:
            bound = _bound(state, spanned, subject.after, density, asked)
            tables["bound"].append({"state": label, **bound})
            line += (
                f"; at most {100 * bound['prunable']:.1f} % prunable at once, {100 * bound['pruned']:.1f} % were, "
                f"and the next round {'matches' if bound['next_matches'] else 'does not match'}"
            )
        headline.append(line)
        work.observer.part_finished(f"{products[label]} products")
    headline.append(f"{sum(products.values()):,} Hessian-vector products on {asked.examples:,} examples each")
    return Answer(tables, {"products": products, "examples": asked.examples}, headline)


def _hessian(work: Work, recorded: Recorded, state: State, spanned: Masks, asked: Settings) -> Hessian:
    """The Hessian at a state. Products end with Stopped once the work is told to stop."""
    model = work.network(recorded)
    dense = recorded.plan.dense
    # Products lose accuracy in the short formats that some trainings use.
    execution = dataclasses.replace(dense.execution, dtype="fp32")
    execution.activate()
    model.load_state_dict({**state.weights, **state.buffers})
    chosen = drawn_examples(work, recorded, asked.examples, derive_seed(asked.seed, "curvature.examples"))
    parts = {
        name: torch.split(tensor, asked.batch_size) for name, tensor in arranged(chosen, execution).items()
    }

    def batches() -> Iterator[Batch]:
        for batch in zip(*parts.values(), strict=True):
            if work.should_stop():
                raise Stopped
            yield dict(zip(parts, batch, strict=True))

    return Hessian(model.to(getattr(torch, asked.dtype)), dense.recipe.objective, batches, spanned)


def _measure(work: Work, hessian: Hessian, subject: Subject, asked: Settings) -> dict[str, Any]:
    """Eigenvalues, Hutchinson's estimates and quadrature, as plain values; parts done before are not repeated."""

    def part(*key: Any, compute: Any) -> Any:
        def counted() -> Any:
            before = hessian.products
            value = compute()
            return {**value, "products": hessian.products - before}

        return work.once([subject.state.identity, *key], counted)

    def eigenvalues() -> dict[str, Any]:
        slope = float(hessian.gradient().double().norm())
        if not math.isfinite(slope):
            raise LthError(f"the gradient of the loss at {subject.state.label} is not finite")
        values = spectrum.largest_eigenvalues(
            hessian, asked.eigenvalues, tolerance=asked.eigenvalue_tolerance, seed=asked.seed
        )
        return {"values": values}

    def hutchinson() -> dict[str, Any]:
        return _layers(hessian, spectrum.hutchinson(hessian, asked.probes, seed=asked.seed))

    def probe(number: int) -> dict[str, Any]:
        nodes, weights = spectrum.quadrature(hessian, number, asked.density_steps, seed=asked.seed)
        return {"nodes": nodes.tolist(), "weights": weights.tolist()}

    found = {
        "eigenvalues": part("eigenvalues", compute=eigenvalues),
        "hutchinson": part("hutchinson", compute=hutchinson),
    }
    probes = [
        part("density", number, compute=functools.partial(probe, number))
        for number in range(asked.density_probes)
    ]
    found["density"] = {
        "probes": [(one["nodes"], one["weights"]) for one in probes],
        "products": sum(one["products"] for one in probes),
    }
    return found


def _layers(hessian: Hessian, found: spectrum.Diagonal) -> dict[str, Any]:
    """Rows by layer of the tables `trace` (all layers first) and `diagonal`."""
    estimates = {"all": found.trace, **found.traces}
    sizes = {"all": hessian.size, **hessian.sizes}
    trace = [
        {
            "layer": name,
            "weights": sizes[name],
            "trace": estimate.value,
            "standard_error": estimate.error,
        }
        for name, estimate in estimates.items()
        if sizes[name]
    ]
    means = {"all": found.mean, **hessian.split(found.mean)}
    errors = {"all": found.error, **hessian.split(found.error)}
    diagonal = [_spread(name, means[name], errors[name]) for name in means if sizes[name]]
    return {"trace": trace, "diagonal": diagonal}


def _spread(name: str, mean: Tensor, error: Tensor) -> Row:
    marks = np.quantile(mean.numpy(), [0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
    return {
        "layer": name,
        "mean": float(mean.mean()),
        **dict(zip(("least", "quarter", "median", "three_quarters", "most"), marks, strict=True)),
        "negative_share": float((mean < 0).double().mean()),
        "entry_standard_error": float(error.square().mean().sqrt()),
    }


def _masses(nodes: Sequence[float], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    return torch.tensor(nodes, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)


def _tables(found: dict[str, Any], density: spectrum.Density, asked: Settings) -> dict[str, list[Row]]:
    low, high = density.range
    # A spectrum of one point has no range; its density is a bell of that point's size.
    width = asked.density_width * ((high - low) or abs(high) or 1.0)
    grid = torch.linspace(low - 4 * width, high + 4 * width, asked.density_points, dtype=torch.float64)
    return {
        "eigenvalues": [
            {"number": number, "eigenvalue": value}
            for number, value in enumerate(found["eigenvalues"]["values"], 1)
        ],
        "trace": found["hutchinson"]["trace"],
        "diagonal": found["hutchinson"]["diagonal"],
        "density": [
            {"eigenvalue": at, "density": value}
            for at, value in zip(grid.tolist(), density.curve(grid, width).tolist(), strict=True)
        ],
        "quadrature": [
            {"probe": probe, "eigenvalue": node, "weight": weight}
            for probe, (nodes, weights) in enumerate(found["density"]["probes"])
            for node, weight in zip(nodes, weights, strict=True)
        ],
    }


def _bound(
    state: State, masks: Masks, after: Next, density: spectrum.Density, asked: Settings
) -> dict[str, Any]:
    """The bound on the fraction prunable at once, beside what the next round pruned and came to.

    R is the norm of the weights of the state that the next mask removes.
    """
    removed = {name: mask & ~after.masks[name] for name, mask in masks.items()}
    squared = sum(float(state.weights[name][gone].double().square().sum()) for name, gone in removed.items())
    bound = density.mean_of(lambda nodes: spectrum.prunable(nodes, asked.rise, math.sqrt(squared)))
    size = sum(int(mask.sum()) for mask in masks.values())
    return {
        "weights": size,
        "removed_norm": math.sqrt(squared),
        "rise": asked.rise,
        "prunable": bound.value,
        "standard_error": None if math.isnan(bound.error) else bound.error,
        "pruned": sum(int(gone.sum()) for gone in removed.values()) / size,
        f"dense_{after.metric.name}": after.dense_score,
        f"next_{after.metric.name}": after.score,
        "next_matches": after.metric.matches(after.score, after.dense_score, asked.tolerance),
    }
