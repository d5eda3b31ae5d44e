"""Concept bottlenecks: which concepts an example has, and its class by those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.config.spec import Interface, Spec
from lth_cli.objectives.objective import Batch, Loss, Objective, mean_of, require


class Concepts(Objective):
    """Cross-entropy of the class plus `concept_weight` times the mean over concepts of their binary cross-entropy.

    Outputs are logits [B, concepts + classes]. Where the data have `concept_weights`, the loss of a concept counts so
    much, absent or present (the authors' `weight`, not a weight of the present alone). In training the model is also
    told the true concepts, of which its `link` makes use.

    Args:
        concept_weight: with `normalize`, lambda times the number of concepts gives the joint loss of Shin et al. 2023
            (arXiv:2302.14260), (L_Y + lambda sum L_C) / (1 + lambda k). Where nothing flows from class to concepts,
            as in independent and sequential models, it scales the rate of the concepts alone.
        normalize: divides by 1 + concept_weight.
        loss: a person's own, (outputs, batch) -> mean over the batch; evaluation reports this one all the same.
    """

    metrics = (ACCURACY, Metric("concept_accuracy", "higher", "%"))
    tells = ("concepts",)

    def __init__(
        self,
        *,
        concept_weight: Annotated[float, Field(ge=0.0)] = 1.0,
        normalize: bool = False,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(loss=loss)
        self._concept_weight = concept_weight
        self._divisor = 1.0 + concept_weight if normalize else 1.0

    def interface(self, spec: Spec) -> Interface:
        """Inputs in, logits of concepts and classes out."""
        inputs = "uint8" if spec.dtypes.get("inputs") == "uint8" else "float32"
        fields = {"inputs": inputs, "concepts": "float32", "labels": "int64"}
        require(spec, "concepts", fields, ("classes", "concepts"))
        sizes = {name: spec.sizes[name] for name in ("classes", "concepts")}
        return Interface(spec.shapes["inputs"], "float32", (sum(sizes.values()),), sizes)

    def given(self, batch: Batch) -> Tensor:
        """Inputs as they are, images as (x / 255 - 1/2) / 2, as in the authors' code."""
        inputs = batch["inputs"]
        return (inputs.float() / 255 - 0.5) / 2 if inputs.dtype == torch.uint8 else inputs

    def view(self, batch: Batch, step: int | None, seed: int) -> Batch:
        """In training, the true concepts once more as what the model is told."""
        return batch if step is None else {**batch, "told": batch["concepts"]}

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits of concepts, then of classes."""
        given = self.given(batch)
        answered: Tensor = model(given, batch["told"]) if "told" in batch else model(given)
        return answered

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See the class."""
        return self._each(outputs, batch).mean()

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sums of the loss, of right classes, and of the share of right concepts."""
        concepts, classes = self._apart(outputs, batch)
        right = (concepts >= 0) == (batch["concepts"] >= 0.5)
        return {
            "loss": self._each(outputs, batch).sum(),
            "correct": (classes.argmax(1) == batch["labels"]).sum(),
            "concepts": right.float().mean(1).sum(),
        }

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Mean loss; shares of examples classified correctly, and of concepts."""
        return {
            "loss": mean_of(totals, "loss"),
            "accuracy": mean_of(totals, "correct"),
            "concept_accuracy": mean_of(totals, "concepts"),
        }

    def error(self, metrics: Mapping[str, float]) -> float | None:
        """The share of examples classified wrongly."""
        return 1.0 - metrics["accuracy"]

    def _each(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of every example, [B]."""
        concepts, classes = self._apart(outputs, batch)
        by_concept = functional.binary_cross_entropy_with_logits(
            concepts, batch["concepts"], weight=batch.get("concept_weights"), reduction="none"
        ).mean(1)
        by_class = functional.cross_entropy(classes, batch["labels"], reduction="none")
        return (by_class + self._concept_weight * by_concept) / self._divisor

    @staticmethod
    def _apart(outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        count = batch["concepts"].shape[1]
        return outputs[:, :count], outputs[:, count:]
