"""How far signals grow or fade from inputs to outputs at a state (Lee et al. 2020, arXiv:1906.06307)

The singular values of the Jacobian of the outputs by the inputs as the network sees them, in inference mode, at
training examples without augmentation. All of them 1 is dynamical isometry; pruning makes them smaller.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from lth_cli.analyses.drawn import check_drawn, drawn_examples
from lth_cli.analyses.jacobian.mathematics import jacobians, singular_values
from lth_cli.analyses.jacobian.settings import Settings
from lth_cli.analyses.request import Answer, NamedState, Request, Study, circumstances, settings
from lth_cli.analyses.work import Work
from lth_cli.config.errors import LthError, RequestError
from lth_cli.config.seeds import derive_seed
from lth_cli.store.analyses import Row
from lth_cli.training.evaluate import arranged

MARKS = ("mean", "std", "min", "max")
"""Of the singular values at one example; the standard deviation is that of the values there are (N, not N - 1)."""


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    states = list({state.label: state for state in request.states(asked.states)}.values())
    for state in states:
        check_drawn(state.recorded, asked.examples, asked.dtype)
        dtype = state.recorded.plan.dense.recipe.interface.input_dtype
        if not getattr(torch, dtype).is_floating_point:
            raise RequestError(
                f"{state.recorded.run.name}: its inputs are {dtype}, by which nothing can be differentiated; "
                "analysis=jacobian needs inputs that are real numbers"
            )
    return Study(
        "jacobian",
        request.runs[0],
        {
            **settings(asked, "states"),
            "states": [{"state": state.identity, **circumstances(state.recorded)} for state in states],
        },
        {"states": [state.label for state in states]},
        functools.partial(_answer, asked=asked, states=states),
        parts=len(states),
        not_shown=("examples",),
    )


def _answer(work: Work, *, asked: Settings, states: Sequence[NamedState]) -> Answer:
    rows: list[Row] = []
    by_example: list[Row] = []
    headline: list[str] = []
    for state in states:
        work.observer.part_started(state.label)
        found = work.once(state.identity, functools.partial(_measure, work, state, asked))
        marks = {mark: statistics.fmean(found[mark]) for mark in MARKS}
        recorded = state.recorded
        round_, _, moment = state.label.removeprefix(f"{recorded.run.name}:").rpartition("@")
        where = {"run": recorded.run.name, "round": round_, "moment": moment}
        density = recorded.round.summary["density"]
        rows.append({"state": state.label, **where, "density": density, **marks})
        by_example += [
            {"state": state.label, "example": number, **dict(zip(MARKS, values, strict=True))}
            for number, values in enumerate(zip(*(found[mark] for mark in MARKS), strict=True))
        ]
        headline.append(
            f"{state.label}: singular values {marks['mean']:.4g} on average, standard deviation {marks['std']:.3g}, "
            f"from {marks['min']:.3g} to {marks['max']:.3g}, at a density of {100 * density:.1f} %"
        )
        work.observer.part_finished(f"mean {marks['mean']:.4g}")
    summary = {"means": {row["state"]: row["mean"] for row in rows}, "examples": asked.examples}
    return Answer({"states": rows, "examples": by_example}, summary, headline)


def _measure(work: Work, state: NamedState, asked: Settings) -> dict[str, Any]:
    """Of each example the mean, standard deviation, least and largest singular value, as plain values.

    Raises:
        LthError: one is not finite.
    """
    recorded = state.recorded
    weights = work.state(recorded, state.step)
    model = work.network(recorded)
    # Never in a shorter format, whatever the run was trained in.
    execution = dataclasses.replace(recorded.plan.dense.execution, dtype="fp32")
    execution.activate()
    model.load_state_dict({**weights.weights, **weights.buffers})
    model = model.to(getattr(torch, asked.dtype)).requires_grad_(False)
    objective = recorded.plan.dense.recipe.objective
    seed = derive_seed(asked.seed, "jacobian.examples")
    drawn = arranged(objective.view(drawn_examples(work, recorded, asked.examples, seed), None, 0), execution)
    parts = []
    for inputs in torch.split(objective.given(drawn).to(getattr(torch, asked.dtype)), asked.batch_size):
        work.check_stop()
        parts.append(singular_values(jacobians(model, inputs)))
    values = torch.cat(parts)
    if not torch.isfinite(values).all():
        raise LthError(f"the Jacobian at {state.label} is not finite")
    return {
        "mean": values.mean(1).tolist(),
        "std": values.std(1, correction=0).tolist(),
        "min": values.amin(1).tolist(),
        "max": values.amax(1).tolist(),
    }
