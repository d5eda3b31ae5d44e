"""Loss and accuracy of a model on one split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.data.batches import Batch, Data
from lth_cli.training.precision import Execution


@dataclass(frozen=True)
class Metrics:
    """Mean cross-entropy (natural logarithm, no label smoothing) and share of examples classified correctly."""

    loss: float
    accuracy: float


class Stopped(Exception):
    """An evaluation was told to stop before its end."""


def evaluate(
    model: nn.Module,
    data: Data,
    split: str,
    execution: Execution,
    should_stop: Callable[[], bool] = lambda: False,
) -> Metrics:
    """Evaluate in inference mode (batch-norm statistics as stored, no dropout, no augmentation).

    Raises:
        Stopped: `should_stop`, asked before every batch, was true.
    """

    def batches() -> Iterator[Batch]:
        for batch in data.evaluation(split):
            if should_stop():
                raise Stopped
            yield batch

    return summarize(tally(model, batches(), execution))


Tally: TypeAlias = list[tuple[float, int, int]]
"""Sum of the losses, correct answers and examples of each batch."""


@torch.no_grad()
def tally(model: nn.Module, batches: Iterable[Batch], execution: Execution) -> Tally:
    """What each batch adds to the metrics; the device is read once, at the end."""
    training = model.training
    model.eval()
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    examples: list[int] = []
    try:
        for inputs, labels in batches:
            logits = predict(model, inputs, execution)
            losses.append(functional.cross_entropy(logits, labels, reduction="sum"))
            correct.append((logits.argmax(1) == labels).sum())
            examples.append(len(labels))
    finally:
        model.train(training)
    if not examples:
        return []
    return list(zip(torch.stack(losses).tolist(), torch.stack(correct).tolist(), examples, strict=True))


def summarize(parts: Tally) -> Metrics:
    """The metrics of all batches, in any order: the sum of their losses is the exact one, rounded once."""
    losses, correct, examples = zip(*parts, strict=True)
    return Metrics(math.fsum(losses) / sum(examples), sum(correct) / sum(examples))


def predict(model: nn.Module, inputs: Tensor, execution: Execution) -> Tensor:
    """Class scores in fp32, [B, classes]."""
    with execution.autocast():
        logits: Tensor = model(execution.arrange(inputs))
    return logits.float()
