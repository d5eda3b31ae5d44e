"""Which terms of differential equations were found, and how far do they carry?

Beside those of a training stand those of sparse regression (STLSQ) in each environment by itself, on the same states.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lth_cli.analyses.equations.settings import Settings
from lth_cli.analyses.request import Answer, NamedState, Request, Study, circumstances, settings
from lth_cli.analyses.work import Work
from lth_cli.config.errors import RequestError
from lth_cli.data.batches import Batch
from lth_cli.data.systems import SYSTEMS, systems
from lth_cli.models.equations import Equations
from lth_cli.objectives.trajectories import Trajectories, relative_errors
from lth_cli.store.analyses import Row
from lth_cli.training.evaluate import answer, arranged
from lth_cli.training.spreme import regress


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    states = list({state.label: state for state in request.states(asked.states)}.values())
    for state in states:
        recipe, config = state.recorded.plan.dense.recipe, state.recorded.plan.config
        fits = isinstance(recipe.build(init_seed=0), Equations) and isinstance(recipe.objective, Trajectories)
        if not fits:
            raise RequestError(
                f"analysis=equations is of model=equations objective=trajectories; {state.recorded.run.name} is "
                f"{config.model.target} with {config.objective.target}"
            )
    return Study(
        "equations",
        request.runs[0],
        {
            **settings(asked, "states"),
            "states": [{"state": state.identity, **circumstances(state.recorded)} for state in states],
        },
        {"states": [state.label for state in states]},
        functools.partial(_answer, asked=asked, states=states),
        parts=len(states),
    )


def _answer(work: Work, *, asked: Settings, states: Sequence[NamedState]) -> Answer:
    rows: list[Row] = []
    coefficients: list[Row] = []
    headline: list[str] = []
    for state in states:
        work.observer.part_started(state.label)
        found = work.once(state.identity, functools.partial(_measure, work, state, asked))
        where: Row = {
            "state": state.label,
            "run": state.recorded.run.name,
            "density": state.recorded.round.summary["density"],
        }
        rows += [{**where, **row} for row in found["equations"]]
        coefficients += [{**where, **row} for row in found["coefficients"]]
        told = "; ".join(
            f"{row['method']}: {row['terms']:g} terms{_judged(row)}, error {row['error']:.3g}"
            for row in found["equations"]
        )
        headline.append(f"{state.label}: {told}")
        work.observer.part_finished(told)
    summary: dict[str, dict[str, Any]] = {}
    for row in rows:
        found = {"error": row["error"], "terms": row["terms"]}
        summary.setdefault(str(row["state"]), {})[str(row["method"])] = found
    return Answer({"equations": rows, "coefficients": coefficients}, summary, headline)


def _judged(row: Row) -> str:
    if row["missing"] is None:
        return ""
    return f" ({row['missing']:g} missing, {row['extra']:g} too many)"


@torch.no_grad()
def _measure(work: Work, state: NamedState, asked: Settings) -> dict[str, list[Row]]:
    """Rows of the state and of STLSQ, and the coefficients of both."""
    recorded = state.recorded
    weights = work.state(recorded, state.step)
    trained = work.network(recorded)
    assert isinstance(trained, Equations)
    trained.load_state_dict({**weights.weights, **weights.buffers})
    parts = [arranged(batch, recorded.plan.dense.execution) for batch in work.examples(recorded, "train")]
    states = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    truth = _truth(recorded.plan.config.dataset, trained)
    rows: list[Row] = []
    coefficients: list[Row] = []
    for method, model in (("trained", trained), ("stlsq", _regressed(trained, states, asked))):
        closed = model.by_environment(model.coefficients.weight) * model.open.T
        there = closed != 0  # [environments, terms, states]
        judged: Row = {"missing": None, "extra": None, "wrong": None}
        if truth is not None:
            judged = {
                "missing": float((truth & ~there).sum((1, 2)).float().mean()),
                "extra": float((there & ~truth).sum((1, 2)).float().mean()),
                "wrong": float((there != truth).sum((1, 2)).float().mean()),
            }
        error, squared = _carried(work, state, model)
        terms = float(there.sum((1, 2)).float().mean())
        rows.append({"method": method, "terms": terms, **judged, "error": error, "median_mse": squared})
        coefficients += [
            {
                "method": method,
                "environment": environment,
                "equation": f"x{number}",
                "term": model.terms[term],
                "coefficient": float(closed[environment, term, number]),
            }
            for environment, term, number in there.nonzero().tolist()
        ]
    return {"equations": rows, "coefficients": coefficients}


def _truth(dataset: Any, model: Equations) -> Tensor | None:
    """The terms of the system, bool [terms, states]; None where it is not known, or the library lacks some."""
    if dataset.target != f"{systems.__module__}.{systems.__name__}":
        return None
    terms = SYSTEMS[dataset.arguments.get("system", "lotka_volterra")].terms
    if not {name for equation in terms for name in equation} <= set(model.terms):
        return None
    device = model.gates.device
    return torch.tensor([[name in equation for equation in terms] for name in model.terms], device=device)


def _regressed(like: Equations, states: Batch, asked: Settings) -> Equations:
    """STLSQ in each environment by itself, of all terms; see `regress`."""
    model = copy.deepcopy(like)
    model.gates.zero_()
    everything = torch.ones_like(model.coefficients.weight, dtype=torch.bool)
    regress(model, states, asked.thresholds, asked.ridges, everything)
    return model


def _carried(work: Work, state: NamedState, model: Equations) -> tuple[float, float]:
    """Mean relative error and median mean squared error of test trajectories in all environments."""
    dense = state.recorded.plan.dense
    relative, squared = [], []
    for batch in work.examples(state.recorded, "test"):
        predicted = answer(model, dense.recipe.objective, batch, dense.execution)
        relative.append(relative_errors(predicted, batch["states"]))
        squared.append((predicted - batch["states"]).square().mean((2, 3)))
    return float(torch.cat(relative).mean()), float(torch.cat(squared).median())
