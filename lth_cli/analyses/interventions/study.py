"""How much does a concept bottleneck gain from being told concepts, by the order in which it is told?

Scores are of the first predictions; nothing is scored again after a correction, as in the authors' code.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lth_cli.analyses.interventions.mathematics import Answers, by_group, errors, ranks, score
from lth_cli.analyses.interventions.settings import Settings
from lth_cli.analyses.request import Answer, NamedState, Request, Study, check_splits, circumstances, settings
from lth_cli.analyses.work import Work
from lth_cli.config.errors import RequestError
from lth_cli.config.seeds import derive_seed
from lth_cli.models.concept_bottleneck import ConceptBottleneck
from lth_cli.objectives.concepts import Concepts
from lth_cli.store.analyses import Row
from lth_cli.training.evaluate import arranged


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    states = list({state.label: state for state in request.states(asked.states)}.values())
    groups = [_check(state, asked) for state in states]
    return Study(
        "interventions",
        request.runs[0],
        {
            **settings(asked, "states"),
            "states": [
                {"state": state.identity, "groups": found, **circumstances(state.recorded)}
                for state, found in zip(states, groups, strict=True)
            ],
        },
        {"states": [state.label for state in states]},
        functools.partial(_answer, asked=asked, states=states, groups=groups),
        parts=len(states),
    )


def _check(state: NamedState, asked: Settings) -> list[list[int]]:
    """Which concepts are corrected together. Raises RequestError: no concept bottleneck, or settings it cannot have."""
    recipe, name = state.recorded.plan.dense.recipe, state.recorded.run.name
    model = recipe.build(init_seed=0)
    if not (isinstance(recipe.objective, Concepts) and isinstance(model, ConceptBottleneck)):
        raise RequestError(
            f"analysis=interventions is of concept bottlenecks (objective=concepts model=concept_bottleneck); {name} "
            f"is {state.recorded.plan.config.model.target} with {state.recorded.plan.config.objective.target}"
        )
    check_splits([asked.split], state.recorded)
    if asked.concepts != "soft" and not model.of_probabilities:
        raise RequestError(
            f"analysis.concepts={asked.concepts} is of probabilities, and the second half of {name} takes logits "
            f"(model.link={model.link}); write analysis.concepts=soft"
        )
    if asked.level == "individual":
        return [[concept] for concept in range(recipe.interface.sizes["concepts"])]
    groups = groups_of(recipe.data.spec.names.get("concepts", ()))
    if not groups:
        raise RequestError(f"analysis.level=group: the data of {name} name no groups of concepts")
    return groups


def groups_of(names: Sequence[str]) -> list[list[int]]:
    """Numbers of the concepts `GROUP::NAME` of each group; none where no name has a group."""
    together: dict[str, list[int]] = {}
    for number, concept in enumerate(names):
        together.setdefault(concept.partition("::")[0], []).append(number)
    return list(together.values()) if any("::" in concept for concept in names) else []


def _answer(
    work: Work, *, asked: Settings, states: Sequence[NamedState], groups: Sequence[list[list[int]]]
) -> Answer:
    rows: list[Row] = []
    headline: list[str] = []
    for state, together in zip(states, groups, strict=True):
        work.observer.part_started(state.label)
        measured = functools.partial(_measure, work, state, asked, together)
        parts: dict[str, list[float]] = work.once(state.identity, measured)
        # What is read after a kill is in the order of the alphabet.
        found = {name: parts[name] for name in asked.scores}
        where = {
            "state": state.label,
            "run": state.recorded.run.name,
            "density": state.recorded.round.summary["density"],
        }
        rows += [
            {**where, "score": name, "interventions": count, "error": error}
            for name, curve in found.items()
            for count, error in enumerate(curve)
        ]
        some = min(10, len(together))
        told = ", ".join(f"{name} {100 * curve[some]:.1f}" for name, curve in found.items())
        first = next(iter(found.values()))[0]
        headline.append(
            f"{state.label}: task error {100 * first:.1f} %; after {some} corrections of {len(together)}, "
            f"in %: {told}"
        )
        work.observer.part_finished(f"error {100 * first:.1f} %")
    summary = {
        name: statistics.fmean(float(row["error"] or 0.0) for row in rows if row["score"] == name)
        for name in asked.scores
    }
    return Answer({"interventions": rows}, {"mean_error": summary}, headline)


def _measure(
    work: Work, state: NamedState, asked: Settings, groups: list[list[int]]
) -> dict[str, list[float]]:
    """The task error after each number of corrections, by score."""
    answers = _answers(work, state, asked.split)
    of_concept = torch.empty(answers.logits.shape[1], dtype=torch.int64)
    for number, group in enumerate(groups):
        of_concept[group] = number

    def read(trial: int) -> Any:
        if asked.concepts == "soft":
            return lambda given: given[None]
        if asked.concepts == "hard":
            return lambda given: (given >= 0.5).to(given.dtype)[None]
        generator = torch.Generator().manual_seed(derive_seed(asked.seed, "interventions.draws", trial))

        def drawn(given: Tensor) -> Tensor:
            draws = torch.rand(asked.draws, *given.shape, generator=generator, dtype=given.dtype)
            return (draws < given).to(given.dtype)

        return drawn

    found: dict[str, list[float]] = {}
    for name in asked.scores:
        curves = []
        for trial in range(asked.trials if name == "rand" else 1):
            work.check_stop()
            if name == "rand":
                generator = torch.Generator().manual_seed(derive_seed(asked.seed, "interventions", trial))
                scores = torch.rand(len(answers.labels), len(groups), generator=generator)
            else:
                scores = by_group(score(name, answers), groups)
            rank = ranks(scores, batch=asked.batch)[:, of_concept]
            curves.append(errors(answers, rank, len(groups), read(trial), balanced=asked.balanced))
        found[name] = [statistics.fmean(values) for values in zip(*curves, strict=True)]
    return found


@torch.no_grad()
def _answers(work: Work, state: NamedState, split: str) -> Answers:
    """What a state answers to a split, in float64 on the CPU: sums and entropies of a hundred classes lose digits."""
    recorded = state.recorded
    weights = work.state(recorded, state.step)
    model = work.network(recorded)
    assert isinstance(model, ConceptBottleneck)
    model.load_state_dict({**weights.weights, **weights.buffers})
    dense = recorded.plan.dense
    count = dense.recipe.interface.sizes["concepts"]
    parts = []
    for batch in work.examples(recorded, split):
        seen = arranged(dense.recipe.objective.view(batch, None, 0), dense.execution)
        with dense.execution.autocast():
            logits = model(dense.recipe.objective.given(seen))[:, :count]
        parts.append((logits.double().cpu(), batch["concepts"].double().cpu(), batch["labels"].cpu()))
    logits, concepts, labels = (torch.cat(some) for some in zip(*parts, strict=True))
    head = model.head
    weight, bias = (tensor.detach().double().cpu() for tensor in (head.weight, head.bias))
    return Answers(logits, concepts, labels, weight, bias, model.of_probabilities)
