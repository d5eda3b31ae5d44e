"""What does a federated training cost in communication and memory, for what accuracy?

A client receives and sends the float32 values of all parameters and buffers that are not pruned; where they stand is
known to both sides. Memory is what autograd saves for the backward pass of a client's largest local batch, at its peak:
activations, and inputs and labels where they are saved; no parameters and no gradients (see `peak_held`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch

from lth_cli.analyses.federation.memory import peak_held
from lth_cli.analyses.federation.settings import Settings
from lth_cli.analyses.request import Answer, Request, Study, circumstances, settings
from lth_cli.analyses.work import Work
from lth_cli.config.errors import RequestError
from lth_cli.experiments.recorded import Recorded
from lth_cli.pruning.mask import layer_counts
from lth_cli.report.series import headline_of
from lth_cli.store.analyses import Row
from lth_cli.training.evaluate import answer
from lth_cli.training.updates import FederatedAveraging

_BYTES = 4
_MB = 1e6


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    opened = [request.round(name, run) for run in request.runs for name in asked.rounds]
    trainings = list({recorded.label: recorded for recorded in opened}.values())
    for recorded in trainings:
        if not isinstance(recorded.plan.dense.recipe.update, FederatedAveraging):
            raise RequestError(
                f"analysis=federation is of update=federated; {recorded.run.name} is "
                f"{recorded.plan.config.update.target}"
            )
        recorded.check(recorded.start)
    headline_of([recorded.run for recorded in trainings])
    return Study(
        "federation",
        request.runs[0],
        {
            **settings(asked, "rounds"),
            "trainings": [
                {
                    "state": [recorded.trajectory.identity, recorded.start, recorded.end],
                    "metrics": _curve(recorded),
                    **circumstances(recorded),
                }
                for recorded in trainings
            ],
        },
        {"rounds": [recorded.label for recorded in trainings]},
        functools.partial(_answer, trainings=trainings),
        parts=len(trainings),
        version=2,  # of the largest client
    )


def _curve(recorded: Recorded) -> list[tuple[int, float]]:
    """The headline metric on the test examples after so many rounds of averaging."""
    name = recorded.run.headline.name
    lines = [line for line in recorded.round.metrics() if line["split"] == "test"]
    return [(int(line["step"]), float(line[name])) for line in lines]


def _answer(work: Work, *, trainings: Sequence[Recorded]) -> Answer:
    costs: list[Row] = []
    rounds: list[Row] = []
    headline: list[str] = []
    for recorded in trainings:
        work.observer.part_started(recorded.label)
        recipe = recorded.plan.dense.recipe
        where = {
            "training": recorded.label,
            "run": recorded.run.name,
            "density": recorded.round.summary["density"],
        }
        held = work.once(recorded.label, functools.partial(_held, work, recorded))
        model = work.network(recorded)
        values = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
        masked = layer_counts(recorded.masks)
        values -= sum(mask.numel() - masked[name] for name, mask in recorded.masks.items())
        clients = recipe.batching.size
        each = 2 * clients * values * _BYTES / _MB
        costs.append(
            {
                **where,
                "clients": clients,
                "values": values,
                "megabytes_a_round": each,
                "activations_kb": held / 1e3,
            }
        )
        curve = _curve(recorded)
        rounds += [
            {
                **where,
                "averaging": step,
                "megabytes": (step - recorded.start) * each,
                recorded.run.headline.name: value,
            }
            for step, value in curve
        ]
        sent = (curve[-1][0] - recorded.start) * each
        last = recorded.run.headline.told(curve[-1][1])
        headline.append(
            f"{recorded.label}: {last} after {curve[-1][0]} rounds, {sent:.3g} MB in this training; activations of a "
            f"local batch at most {held / 1e3:.1f} kB"
        )
        work.observer.part_finished(last)
    summary = {str(row["training"]): row["activations_kb"] for row in costs}
    return Answer({"rounds": rounds, "costs": costs}, {"activations_kb": summary}, headline)


def _held(work: Work, recorded: Recorded) -> int:
    """Bytes of activations of the largest local batch at their peak."""
    recipe = recorded.plan.dense.recipe
    state = work.state(recorded, recorded.start)
    model = work.network(recorded).train()
    model.load_state_dict({**state.weights, **state.buffers})
    assert isinstance(recipe.update, FederatedAveraging)
    clients = torch.cat([batch["clients"] for batch in recipe.data.evaluation("train")]).cpu()
    largest = (clients == clients.bincount().argmax()).nonzero().flatten()[: recipe.update.local_batch]
    parts = list(recipe.data.evaluation("train", order=largest))
    # Of its own, so that what is held of it is no more than it.
    local = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    seen = recipe.objective.view(local, recorded.start, recipe.seeds["augment"])
    execution = dataclasses.replace(recorded.plan.dense.execution, dtype="fp32")

    def passes() -> None:
        loss = recipe.objective.loss(answer(model, recipe.objective, seen, execution), seen)
        loss.backward()  # type: ignore[no-untyped-call]

    return peak_held(passes, model.parameters())
