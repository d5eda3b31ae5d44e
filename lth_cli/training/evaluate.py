"""Loss and accuracy of a model on one split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.data.batches import Data
from lth_cli.training.precision import Execution


@dataclass(frozen=True)
class Metrics:
    """Mean cross-entropy (natural logarithm, no label smoothing) and share of examples classified correctly."""

    loss: float
    accuracy: float


class Stopped(Exception):
    """An evaluation was told to stop before its end."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Data,
    split: str,
    execution: Execution,
    should_stop: Callable[[], bool] = lambda: False,
) -> Metrics:
    """Evaluate in inference mode (batch-norm statistics as stored, no dropout, no augmentation).

    Sums run in float64 on the device, which is read once, at the end.

    Raises:
        Stopped: `should_stop`, asked before every batch, was true.
    """
    training = model.training
    model.eval()
    # MPS has no float64.
    wide = torch.float32 if execution.device.type == "mps" else torch.float64
    loss_sum = torch.zeros((), dtype=wide, device=execution.device)
    correct = torch.zeros((), dtype=torch.int64, device=execution.device)
    seen = 0
    for inputs, labels in data.evaluation(split):
        if should_stop():
            model.train(training)
            raise Stopped
        logits = predict(model, inputs, execution)
        loss_sum += functional.cross_entropy(logits, labels, reduction="sum").to(wide)
        correct += (logits.argmax(1) == labels).sum()
        seen += len(labels)
    model.train(training)
    return Metrics(loss_sum.item() / seen, correct.item() / seen)


def predict(model: nn.Module, inputs: Tensor, execution: Execution) -> Tensor:
    """Class scores in fp32, [B, classes]."""
    with execution.autocast():
        logits: Tensor = model(execution.arrange(inputs))
    return logits.float()
