"""What do trainings find easy and hard? Scores of every training example, by its position in the whole training set.

Loss, margin, EL2N and GraNd (Paul et al. 2021, arXiv:2107.07075), forgetting (Toneva et al. 2019, arXiv:1812.05159),
the barrier of each example's loss at the midpoint of two states (Paul et al. 2022, arXiv:2206.01278), and by how much a
second state's loss is lower, also by groups of EL2N (Jin et al. 2022, arXiv:2210.13738); each the mean over the RUNs.
Later trainings can be given the easiest or hardest examples by any of them (`dataset.subset.by`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lth_cli.analyses.examples.mathematics import (
    PerExample,
    barrier,
    by_difficulty,
    first_learned,
    forgetting,
    grand,
    per_example,
)
from lth_cli.analyses.examples.settings import Settings
from lth_cli.analyses.line import Line
from lth_cli.analyses.request import (
    Answer,
    NamedState,
    Request,
    Study,
    check_alike,
    circumstances,
    settings,
)
from lth_cli.analyses.work import Work
from lth_cli.analyses.yardstick import check_classes
from lth_cli.config.errors import RequestError
from lth_cli.data.batches import labelled, tensor_digest
from lth_cli.data.prepare import load
from lth_cli.data.scores import ANALYSIS, TABLE, training_set_digest
from lth_cli.data.source import Fields, open_place
from lth_cli.experiments.recorded import Recorded
from lth_cli.store.analyses import Row
from lth_cli.store.runs import Run
from lth_cli.store.states import State
from lth_cli.training.evaluate import predict

_GRADIENTS = 2**27
"""Numbers that the gradients of single examples held at a time may have: 512 MiB."""

States = list[NamedState]
"""Rising steps of one training, or the two ends of a line."""


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    trainings = [_training(request, asked.states, run) for run in request.runs]
    pairs = _pairs(request, asked.between, "between")
    compared = _pairs(request, asked.compared, "compared")
    states = [state for group in [*trainings, *pairs, *compared] for state in group]
    first = states[0].recorded
    check_alike([state.recorded for state in states])
    check_classes(ANALYSIS, [state.recorded for state in states])
    data, config = first.plan.dense.data, first.plan.config
    if data.spec.classes < 2:
        raise RequestError(f"{first.label} tells no classes apart: scores take two at least")
    loaded = load(config.dataset, open_place(config.data))
    assert not isinstance(loaded, Fields)  # those have no classes
    training_set = training_set_digest(loaded, config.dataset, config.resolved_seeds["split"])
    return Study(
        ANALYSIS,
        request.runs[0],
        {
            **settings(asked, "states", "between", "compared", "groups"),
            **circumstances(first),
            # Answers of earlier releases had such a run's TF32 products in GraNd.
            **({"grand_dtype": "fp32"} if asked.grand and first.plan.dense.execution.dtype == "tf32" else {}),
            "training_set": training_set,
            "positions": tensor_digest(data.positions("train")),
            "states": _identities(trainings),
            "between": _identities(pairs),
            # Answers of earlier releases compare nothing.
            **({"compared": _identities(compared), "groups": asked.groups} if compared else {}),
        },
        {
            "states": [[state.label for state in training] for training in trainings],
            "between": [[state.label for state in pair] for pair in pairs],
            **({"compared": [[state.label for state in pair] for pair in compared]} if compared else {}),
        },
        functools.partial(
            _answer,
            asked=asked,
            trainings=trainings,
            pairs=pairs,
            compared=compared,
            training_set=training_set,
        ),
        parts=len(trainings) + len(pairs) + len(compared),
        not_shown=(TABLE,),
    )


def _training(request: Request, names: Sequence[str], run: Run) -> States:
    """The states asked for, of one run."""
    states = [request.state(name, run) for name in names]
    identities = {state.recorded.trajectory.identity for state in states}
    steps = [state.step for state in states]
    if len(identities) > 1 or steps != sorted(set(steps)):
        raise RequestError(
            "analysis.states: write rising steps of one training, for example [0@1ep,0@5ep,0@end]; these are "
            + ", ".join(state.label for state in states)
        )
    return states


def _identities(groups: Sequence[States]) -> list[list[Any]]:
    return [[state.identity for state in group] for group in groups]


def _pairs(request: Request, names: Sequence[str], key: str) -> list[States]:
    """Two states that a setting names, of each run where they name none.

    [0@end,OTHER:0@end] asked of OTHER as well is no pair there, and does not count.
    """
    found: dict[str, States] = {}
    for run in request.runs if names else []:
        pair = [request.state(name, run) for name in names]
        if pair[0].identity != pair[1].identity:
            found.setdefault(" ".join(state.label for state in pair), pair)
    if names and not found:
        raise RequestError(f"analysis.{key}: {names[0]} and {names[1]} are one state; name two")
    return list(found.values())


def _answer(
    work: Work,
    *,
    asked: Settings,
    trainings: Sequence[States],
    pairs: Sequence[States],
    compared: Sequence[States],
    training_set: str,
) -> Answer:
    first = trainings[0][0].recorded
    data = first.plan.dense.data
    model = work.network(first)
    labels = torch.cat([labels.cpu() for _, labels in labelled(data.evaluation("train"))])
    scored = [_scores(work, model, training, asked.grand) for training in trainings]
    scores = {name: torch.stack([one[name] for one in scored]).mean(0) for name in scored[0]}
    if pairs:
        scores["barrier"] = torch.stack([_barrier(work, model, pair) for pair in pairs]).mean(0)
    groups: list[Row] = []
    if compared:
        losses = torch.stack([_losses(work, model, pair) for pair in compared]).mean(0)
        scores["improvement"] = losses[0] - losses[1]
        found = by_difficulty(scores["el2n"], list(losses), min(asked.groups, len(labels)))
        groups = [{**row} for row in found]
    columns = {
        "index": data.positions("train").tolist(),
        "label": labels.tolist(),
        # NaN, where one of the trainings never learned an example, is an empty field.
        **{name: [None if math.isnan(v) else v for v in column.tolist()] for name, column in scores.items()},
    }
    rows: list[Row] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    means = {name: float(column.mean()) for name, column in scores.items() if name != "first_learned"}
    said = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
    headline = [
        f"{len(rows):,} training examples scored by {len(trainings)} run{'s' * (len(trainings) > 1)}; means: {said}"
    ]
    summary = {"training_set": training_set, "examples": len(rows), "runs": len(trainings), "means": means}
    return Answer({TABLE: rows, **({"groups": groups} if groups else {})}, summary, headline)


def _scores(work: Work, model: nn.Module, training: States, with_grand: bool) -> dict[str, Tensor]:
    """Every score of each example by one training, float64 [N]."""
    last = training[-1]
    work.observer.part_started(last.label)
    history = [_correct(work, model, state) for state in training[:-1]]

    def measure() -> dict[str, list[float]]:
        _take_up(work, model, last)
        said = _said(work, model, last.recorded)
        return {name: getattr(said, name).double().tolist() for name in ("loss", "margin", "el2n", "correct")}

    found = work.once(["scores", last.identity], measure)
    scores = {name: torch.tensor(found[name], dtype=torch.float64) for name in ("loss", "margin", "el2n")}
    if with_grand:
        norms = work.once(["grand", last.identity], functools.partial(_grand, work, model, last))
        scores["grand"] = torch.tensor(norms, dtype=torch.float64)
    if history:
        history.append(torch.tensor(found["correct"]).bool())
        scores["forgetting"] = forgetting(history).double()
        position = first_learned(history)
        steps = torch.tensor([float(state.step) for state in training], dtype=torch.float64)
        scores["first_learned"] = torch.where(position < 0, torch.nan, steps[position])
    work.observer.part_finished(f"mean EL2N {statistics.fmean(found['el2n']):.4f}")
    return scores


def _correct(work: Work, model: nn.Module, state: NamedState) -> Tensor:
    """Which examples a state has right, bool [N]."""

    def measure() -> list[int]:
        _take_up(work, model, state)
        return cast(list[int], _said(work, model, state.recorded).correct.int().tolist())

    return torch.tensor(work.once(["correct", state.identity], measure)).bool()


def _grand(work: Work, model: nn.Module, state: NamedState) -> list[float]:
    recorded = state.recorded
    masks = recorded.masks_of(_take_up(work, model, state))
    chunk = max(1, min(256, _GRADIENTS // sum(weight.numel() for weight in model.parameters())))
    execution = recorded.plan.dense.execution
    dataclasses.replace(execution, dtype="fp32").activate()  # tf32 is a setting of the process
    try:
        norms = grand(model, work.examples(recorded, "train"), masks, chunk)
    finally:
        execution.activate()
    return cast(list[float], norms.tolist())


def _barrier(work: Work, model: nn.Module, pair: States) -> Tensor:
    """How much more each example is lost at the midpoint than at the ends on average, float64 [N]."""
    label = " to ".join(state.label for state in pair)
    work.observer.part_started(label)

    def measure() -> list[float]:
        first, second = (work.state(state.recorded, state.step) for state in pair)
        line = Line(model, first, second)
        losses = []
        for position in (0.0, 0.5, 1.0):
            line.move(position)
            losses.append(_said(work, model, pair[0].recorded).loss)
        return cast(list[float], barrier(losses[1], [losses[0], losses[2]]).tolist())

    found = torch.tensor(
        work.once(["barrier", *(state.identity for state in pair)], measure), dtype=torch.float64
    )
    work.observer.part_finished(f"mean barrier {float(found.mean()):.4f}")
    return found


def _losses(work: Work, model: nn.Module, pair: States) -> Tensor:
    """The loss of each example at two states, float64 [2, N]."""
    label = " and ".join(state.label for state in pair)
    work.observer.part_started(label)

    def measure() -> list[list[float]]:
        losses = []
        for state in pair:
            _take_up(work, model, state)
            losses.append(cast(list[float], _said(work, model, state.recorded).loss.tolist()))
        return losses

    found = torch.tensor(
        work.once(["losses", *(state.identity for state in pair)], measure), dtype=torch.float64
    )
    first, second = found.mean(1).tolist()
    work.observer.part_finished(f"mean loss {first:.4f} and {second:.4f}")
    return found


def _take_up(work: Work, model: nn.Module, state: NamedState) -> State:
    loaded = work.state(state.recorded, state.step)
    model.load_state_dict({**loaded.weights, **loaded.buffers})
    return loaded


@torch.no_grad()
def _said(work: Work, model: nn.Module, recorded: Recorded) -> PerExample:
    """What the model says to every training example. Raises Stopped."""
    execution = recorded.plan.dense.execution
    parts = [
        per_example(predict(model, inputs, execution), labels)
        for inputs, labels in labelled(work.examples(recorded, "train"))
    ]
    names = [field.name for field in dataclasses.fields(PerExample)]
    return PerExample(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
