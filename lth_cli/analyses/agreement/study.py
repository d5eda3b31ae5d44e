"""How far do trainings that differ by seed agree, example by example? (Cooper et al. 2022, arXiv:2206.11834)"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lth_cli.analyses.agreement.mathematics import Agreement, agreement, distribution
from lth_cli.analyses.agreement.settings import Settings
from lth_cli.analyses.difference import answers
from lth_cli.analyses.request import (
    Answer,
    NamedState,
    Request,
    Study,
    check_alike,
    check_splits,
    circumstances,
    settings,
)
from lth_cli.analyses.work import Work
from lth_cli.analyses.yardstick import check_classes
from lth_cli.config.errors import LthError, RequestError
from lth_cli.data.batches import labelled
from lth_cli.pruning.mask import density
from lth_cli.store.analyses import Row
from lth_cli.store.tensors import content_digest


@dataclass(frozen=True)
class Group:
    """Networks that differ by chance alone: the ends of one round of several runs."""

    name: str
    states: tuple[NamedState, ...]


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    if len(request.runs) < 2:
        raise RequestError("agreement is that of several runs: name two RUNs or more that differ by seed")
    groups = _groups(request, asked.rounds)
    states = [state.recorded for group in groups for state in group.states]
    check_alike(states)
    check_classes("agreement", states)
    check_splits([asked.split], states[0], key="analysis.split")
    return Study(
        "agreement",
        request.runs[0],
        {
            **settings(asked, "rounds"),
            **circumstances(states[0]),
            "networks": [[state.identity for state in group.states] for group in groups],
        },
        {"runs": [run.name for run in request.runs], "rounds": [group.name for group in groups]},
        functools.partial(_answer, asked=asked, groups=groups),
        parts=len(states),
        version=2,  # with the entropy
        not_shown=("networks", "churn", "examples"),
    )


def _groups(request: Request, names: Sequence[str]) -> list[Group]:
    """The networks of each round; a round that two names stand for comes once."""
    found: dict[tuple[str, ...], Group] = {}
    for name in names:
        states = tuple(request.state(name, run) for run in request.runs)
        seen: dict[str, NamedState] = {}
        for state in states:
            twin = seen.setdefault(state.recorded.trajectory.identity, state)
            if twin is not state:
                raise RequestError(
                    f"{twin.recorded.label} and {state.recorded.label} are the same training; "
                    "name runs that differ by seed"
                )
        found.setdefault(tuple(state.label for state in states), Group(name, states))
    return list(found.values())


def _answer(work: Work, *, asked: Settings, groups: Sequence[Group]) -> Answer:
    first = groups[0].states[0].recorded
    data = first.plan.dense.data
    model = work.network(first)
    labels = torch.cat([labels.cpu() for _, labels in labelled(data.evaluation(asked.split))])
    index = data.positions(asked.split).tolist()
    tables: dict[str, list[Row]] = {
        name: [] for name in ("accuracy", "agreement", "classes", "networks", "churn", "examples")
    }
    for group in groups:
        _check_distinct(work, group)
        said = torch.stack([_predictions(work, model, state, asked.split) for state in group.states])
        found = agreement(said, labels, data.spec.classes)
        tables["accuracy"].append(_accuracy(group, found))
        tables["agreement"].append(_agreement(group, found))
        tables["classes"] += _classes(group, found)
        tables["networks"] += [
            {"round": group.name, "network": state.recorded.label, "accuracy": accuracy}
            for state, accuracy in zip(group.states, found.accuracies.tolist(), strict=True)
        ]
        tables["churn"] += [
            {
                "round": group.name,
                "first": group.states[one].recorded.label,
                "second": group.states[other].recorded.label,
                "churn": share,
            }
            for (one, other), share in found.churn.items()
        ]
        columns = {
            "index": index,
            "label": labels.tolist(),
            "correct": found.correct.tolist(),
            "modal_share": found.modal.tolist(),
            "disagreement": found.disagreement.tolist(),
            "entropy": found.entropy.tolist(),
        }
        tables["examples"] += [
            {"round": group.name, **dict(zip(columns, row, strict=True))}
            for row in zip(*columns.values(), strict=True)
        ]
    rows = list(zip(tables["accuracy"], tables["agreement"], strict=True))
    summary = {
        "networks": len(groups[0].states),
        "rounds": {group.name: {**one, **other} for group, (one, other) in zip(groups, rows, strict=True)},
    }
    headline = [_sentence({**one, **other}, asked.split) for one, other in rows]
    return Answer(tables, summary, headline)


def _check_distinct(work: Work, group: Group) -> None:
    """Refuse networks of the same weights: what their runs differ in changed nothing. Raises LthError."""
    seen: dict[str, NamedState] = {}
    for state in group.states:
        twin = seen.setdefault(_weights_digest(work, state), state)
        if twin is not state:
            raise LthError(
                f"{twin.label} and {state.label} have the same weights: what their runs differ in changed nothing, so "
                "their agreement says nothing"
            )


def _weights_digest(work: Work, state: NamedState) -> str:
    def compute() -> str:
        return content_digest(work.state(state.recorded, state.step).weights, {})

    return str(work.once(["weights", state.identity], compute))


def _predictions(work: Work, model: nn.Module, state: NamedState, split: str) -> Tensor:
    """The class that a network says for each example, int64 [N]."""
    recorded = state.recorded
    work.observer.part_started(recorded.label)

    def predict() -> list[int]:
        loaded = work.state(recorded, state.step)
        model.load_state_dict({**loaded.weights, **loaded.buffers})
        classes: list[int] = answers(
            model, work.examples(recorded, split), recorded.plan.dense.execution
        ).tolist()
        return classes

    said = torch.tensor(work.once(["predictions", state.identity], predict))
    work.observer.part_finished(f"{len(said):,} examples classified")
    return said


def _accuracy(group: Group, found: Agreement) -> Row:
    """A row a round: the distribution of accuracy over the networks."""
    return {
        "round": group.name,
        "networks": len(group.states),
        "density": statistics.fmean(density(state.recorded.masks) for state in group.states),
        **dataclasses.asdict(distribution(found.accuracies.tolist())),
    }


def _agreement(group: Group, found: Agreement) -> Row:
    """A row a round: what holds for the mean example, and churn over pairs of networks."""
    return {
        "round": group.name,
        "modal_share": float(found.modal.mean()),
        "disagreement": float(found.disagreement.mean()),
        "entropy": float(found.entropy.mean()),
        "ambiguous": found.ambiguous,
        "churn_least": min(found.churn.values()),
        "churn_most": max(found.churn.values()),
    }


def _classes(group: Group, found: Agreement) -> list[Row]:
    """A row a round and class that has examples."""
    rows: list[Row] = []
    for label, accuracies in enumerate(found.class_accuracies.T.tolist()):
        if not math.isnan(accuracies[0]):
            spread = dataclasses.asdict(distribution(accuracies))
            rows.append({"round": group.name, "class": label, **spread})
    return rows


def _sentence(row: dict[str, Any], split: str) -> str:
    return (
        f"round {row['round']}: {split} accuracy {100 * row['mean']:.2f} % +- "
        f"{100 * row['spread']:.2f} over {row['networks']} networks; "
        f"two of them differ on {100 * row['disagreement']:.2f} % of the examples, "
        f"not all agree on {100 * row['ambiguous']:.2f} %"
    )
