"""Fine-tuning on texts: classes with accuracy, F1 and Matthews correlation; numbers with Pearson correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from lth_cli.config.errors import ConfigError
from lth_cli.config.metrics import Metric
from lth_cli.config.spec import Interface, Spec
from lth_cli.objectives.classification import Classification
from lth_cli.objectives.objective import Batch, Loss, Objective, mean_of, require

SIZES = ("vocabulary", "length", "padding")
"""What data of texts count."""
_COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")


def shown(batch: Batch) -> Tensor:
    """Tokens int64 [B, L]; where the texts are pairs, [B, 2, L] with the number of the text that each belongs to."""
    return torch.stack([batch["tokens"], batch["segments"]], 1) if "segments" in batch else batch["tokens"]


def text_interface(spec: Spec, output_shape: tuple[int, ...], sizes: Mapping[str, int]) -> Interface:
    """For tokens, and segments where texts are pairs."""
    length = spec.shapes["tokens"]
    shape = (2, *length) if "segments" in spec.shapes else length
    return Interface(shape, "int64", output_shape, {**sizes, **{name: spec.sizes[name] for name in SIZES}})


class TextClassification(Classification):
    """Cross-entropy of logits [B, classes] for texts of tokens int64 [B, L], with labels int64 [B].

    Args:
        metric: the headline. `f1` of class 1 and `matthews` (the phi coefficient) are for two classes, and have the
            accuracy beside them.
        label_smoothing: share of each target spread over all classes; plays no part in evaluation.
        loss: a person's own, (logits, batch) -> mean over the batch; evaluation reports the cross-entropy all the same.
    """

    def __init__(
        self,
        *,
        metric: Literal["accuracy", "f1", "matthews"] = "accuracy",
        label_smoothing: float = 0.0,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(label_smoothing=label_smoothing, loss=loss)
        self._metric = metric
        if metric != "accuracy":
            self.metrics = (Metric(metric, "higher", "%"), *self.metrics)

    def interface(self, spec: Spec) -> Interface:
        """Tokens in, logits out."""
        require(spec, "text_classification", {"tokens": "int64", "labels": "int64"}, ("classes", *SIZES))
        classes = spec.sizes["classes"]
        if self._metric != "accuracy" and classes != 2:
            raise ConfigError(
                ("objective.metric", f"{self._metric} is of two classes; this data set has {classes}")
            )
        return text_interface(spec, (classes,), {"classes": classes})

    def given(self, batch: Batch) -> Tensor:
        """Tokens, and segments where texts are pairs."""
        return shown(batch)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sums as of any classification; for F1 and Matthews the four cells of the confusion matrix too."""
        found = super().measure(outputs, batch)
        if self._metric == "accuracy":
            return found
        said, true = outputs.argmax(1) == 1, batch["labels"] == 1
        cells = (said & true, said & ~true, ~said & true, ~said & ~true)
        return {**found, **{name: cell.sum() for name, cell in zip(_COUNTS, cells, strict=True)}}

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Mean cross-entropy, accuracy, and the headline; 0 where it is not defined, as in scikit-learn."""
        found = super().summarize(totals)
        if self._metric == "accuracy":
            return found
        tp, fp, fn, tn = (totals[name] for name in _COUNTS)
        if self._metric == "f1":
            return {**found, "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0}
        scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return {**found, "matthews": (tp * tn - fp * fn) / scale if scale else 0.0}


class TextRegression(Objective):
    """Mean squared error of outputs [B, 1] for texts of tokens int64 [B, L], with targets float32 [B].

    The headline is Pearson's correlation of outputs and targets; Spearman's, which is no sum over batches, is
    `evaluation.metrics=[{_target_: lth_cli.objectives.text_metrics.spearman, better: higher}]`.

    Args:
        loss: a person's own, (outputs, batch) -> mean over the batch; evaluation reports the squared error anyway.
    """

    metrics = (Metric("pearson", "higher", "%"),)

    def __init__(self, *, loss: Loss | None = None) -> None:
        super().__init__(loss=loss)

    def interface(self, spec: Spec) -> Interface:
        """Tokens in, a number out."""
        require(spec, "text_regression", {"tokens": "int64", "targets": "float32"}, SIZES)
        return text_interface(spec, (1,), {"outputs": 1})

    def given(self, batch: Batch) -> Tensor:
        """Tokens, and segments where texts are pairs."""
        return shown(batch)

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error."""
        return functional.mse_loss(outputs.flatten(), batch["targets"])

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sums of squared errors, of both numbers, their squares and products, in doubles."""
        said, true = outputs.flatten().double(), batch["targets"].double()
        return {
            "loss": (said - true).square().sum(),
            "said": said.sum(),
            "true": true.sum(),
            "said_said": said.square().sum(),
            "true_true": true.square().sum(),
            "said_true": (said * true).sum(),
        }

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Mean squared error, and the correlation; 0 where either number is the same throughout."""
        examples, said, true = totals["examples"], totals["said"], totals["true"]
        both = (
            totals["said_said"] - said * said / examples,
            totals["true_true"] - true * true / examples,
        )
        scale = math.sqrt(max(both[0], 0.0) * max(both[1], 0.0))
        together = totals["said_true"] - said * true / examples
        return {"loss": mean_of(totals, "loss"), "pearson": together / scale if scale else 0.0}
