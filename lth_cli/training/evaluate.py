"""What an objective measures of a model on one split."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lth_cli.config.seeds import derive_seed
from lth_cli.data.batches import Batch, Data
from lth_cli.objectives.objective import Objective
from lth_cli.training.precision import Execution

Metrics: TypeAlias = dict[str, float]
"""`loss` and the metrics of an objective by name, as means over examples; accuracy is a fraction."""


class Stopped(Exception):
    """An evaluation was told to stop before its end."""


def evaluate(
    model: nn.Module,
    objective: Objective,
    data: Data,
    split: str,
    execution: Execution,
    should_stop: Callable[[], bool] = lambda: False,
    order: Tensor | None = None,
) -> Metrics:
    """Evaluate in inference mode (batch-norm statistics as stored, no dropout, no augmentation).

    Args:
        model: on the device.
        objective: what is measured.
        data: prepared.
        split: of them.
        execution: number formats.
        should_stop: asked before every batch.
        order: the examples to look at, as `drawn` gives them; None takes all.

    Raises:
        Stopped: `should_stop`, asked before every batch, was true.
    """

    def batches() -> Iterator[Batch]:
        for batch in data.evaluation(split, order=order):
            if should_stop():
                raise Stopped
            yield batch

    return summarize(objective, tally(model, objective, batches(), execution))


def drawn(data: Data, split: str, count: int | None, seed: int) -> Tensor | None:
    """Which examples of a split are looked at where not all are, int64 [count], ascending; None is all of them.

    Drawn, since data may be stored by class; the same for every run of these splits.
    """
    examples = data.sizes[split]
    if count is None or count >= examples:
        return None
    generator = torch.Generator().manual_seed(derive_seed(seed, f"evaluation.subset.{split}"))
    return torch.randperm(examples, generator=generator)[:count].sort().values


Tally: TypeAlias = list[dict[str, Any]]
"""What each batch adds to the totals, by name: a number, or a list of rows; `examples` is how many it has."""


@torch.no_grad()
def tally(model: nn.Module, objective: Objective, batches: Iterable[Batch], execution: Execution) -> Tally:
    """What each batch adds to the metrics; the device is read once, at the end."""
    training = model.training
    model.eval()
    found: dict[str, list[Tensor]] = defaultdict(list)
    examples: list[int] = []
    try:
        for batch in batches:
            seen = objective.view(batch, None, 0)
            for name, value in objective.measure(answer(model, objective, seen, execution), seen).items():
                found[name].append(value)
            examples.append(len(next(iter(batch.values()))))
    finally:
        model.train(training)
    columns: dict[str, list[Any]] = {"examples": examples}
    for name, values in found.items():
        summed = values[0].dim() == 0
        columns[name] = torch.stack(values).tolist() if summed else [rows.tolist() for rows in values]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def summarize(objective: Objective, parts: Tally) -> Metrics:
    """The metrics of all batches, in any order: each total is the exact sum, rounded once, or all rows."""
    totals: dict[str, Any] = {}
    for name, first in parts[0].items():
        added = [part[name] for part in parts]
        totals[name] = (
            [row for rows in added for row in rows] if isinstance(first, list) else math.fsum(added)
        )
    return objective.summarize(totals)


def answer(model: nn.Module, objective: Objective, batch: Batch, execution: Execution) -> Tensor:
    """What a model answers to a batch, in fp32."""
    with execution.autocast():
        answered = objective.outputs(model, arranged(batch, execution))
    return answered.float()


@torch.no_grad()
def answers(
    model: nn.Module,
    objective: Objective,
    data: Data,
    split: str,
    execution: Execution,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What a model answers to every example of a split, in inference mode.

    Returns:
        The outputs, float32 [N, ...], and the examples as they were shown, tensors [N, ...] by name; on the CPU.

    Raises:
        Stopped: `should_stop`, asked before every batch, was true.
    """
    training = model.training
    model.eval()
    outputs: list[Tensor] = []
    shown: dict[str, list[Tensor]] = defaultdict(list)
    try:
        for batch in data.evaluation(split):
            if should_stop():
                raise Stopped
            seen = objective.view(batch, None, 0)
            outputs.append(answer(model, objective, seen, execution).cpu())
            for name, tensor in seen.items():
                shown[name].append(tensor.cpu())
    finally:
        model.train(training)
    return torch.cat(outputs), {name: torch.cat(tensors) for name, tensors in shown.items()}


def arranged(batch: Batch, execution: Execution) -> Mapping[str, Tensor]:
    """A batch whose images have the configured layout in memory."""
    return {name: execution.arrange(tensor) for name, tensor in batch.items()}


def predict(model: nn.Module, inputs: Tensor, execution: Execution) -> Tensor:
    """Class scores in fp32, [B, classes]."""
    with execution.autocast():
        logits: Tensor = model(execution.arrange(inputs))
    return logits.float()
