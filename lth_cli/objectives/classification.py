"""Classification: cross-entropy and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.config.spec import Interface, Spec
from lth_cli.objectives.objective import Batch, Loss, Objective, mean_of, require


class Classification(Objective):
    """Cross-entropy of logits [B, classes] with labels int64 [B], or with probabilities float [B, classes].

    Args:
        label_smoothing: share of each target spread over all classes; plays no part in evaluation.
        loss: a person's own, (logits, batch) -> mean over the batch; evaluation reports the cross-entropy all the same.
    """

    metrics: tuple[Metric, ...] = (ACCURACY,)
    answers: ClassVar[Literal["example", "token"] | None] = "example"

    def __init__(self, *, label_smoothing: float = 0.0, loss: Loss | None = None) -> None:
        super().__init__(loss=loss)
        self._smoothing = label_smoothing

    def interface(self, spec: Spec) -> Interface:
        """Inputs in, logits out."""
        require(spec, "classification", {"inputs": "float32", "labels": "int64"}, ("classes",))
        return Interface.classifier(spec.shapes["inputs"], spec.sizes["classes"])

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy (natural logarithm), smoothed."""
        return functional.cross_entropy(outputs, batch["labels"], label_smoothing=self._smoothing)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sum of the cross-entropy without smoothing, and of the right answers."""
        return {
            "loss": functional.cross_entropy(outputs, batch["labels"], reduction="sum"),
            "correct": (outputs.argmax(1) == batch["labels"]).sum(),
        }

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Mean cross-entropy and the share of examples classified correctly."""
        return {"loss": mean_of(totals, "loss"), "accuracy": mean_of(totals, "correct")}

    def error(self, metrics: Mapping[str, float]) -> float | None:
        """The share of examples classified wrongly."""
        return 1.0 - metrics["accuracy"]
