"""Causal language modelling: the next token, and perplexity."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from lth_cli.config.metrics import Metric
from lth_cli.config.spec import Interface, Spec
from lth_cli.objectives.objective import Batch, Loss, Objective, mean_of, require


class NextToken(Objective):
    """Cross-entropy of logits [B, L, vocabulary] with the next of each of L tokens, of texts of L + 1 tokens int64.

    Args:
        label_smoothing: share of each target spread over the vocabulary; plays no part in evaluation.
        loss: a person's own, (logits, batch) -> mean over the batch; evaluation reports the cross-entropy all the same.
    """

    metrics = (Metric("perplexity", "lower"),)
    answers = "token"

    def __init__(self, *, label_smoothing: float = 0.0, loss: Loss | None = None) -> None:
        super().__init__(loss=loss)
        self._smoothing = label_smoothing

    def interface(self, spec: Spec) -> Interface:
        """All tokens but the last in, logits for each place out."""
        require(spec, "next_token", {"tokens": "int64"}, ("vocabulary",))
        length, vocabulary = spec.shapes["tokens"][0] - 1, spec.sizes["vocabulary"]
        return Interface(
            (length,), "int64", (length, vocabulary), {"vocabulary": vocabulary, "length": length}
        )

    def given(self, batch: Batch) -> Tensor:
        """All tokens but the last, int64 [B, L]."""
        return batch["tokens"][:, :-1]

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy (natural logarithm) by token, smoothed."""
        return functional.cross_entropy(
            outputs.flatten(0, 1), batch["tokens"][:, 1:].flatten(), label_smoothing=self._smoothing
        )

    def logits(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Of all tokens, [B * L, vocabulary]."""
        return outputs.flatten(0, 1)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sum over the texts of the mean cross-entropy of their tokens, without smoothing."""
        targets = batch["tokens"][:, 1:]
        return {
            "loss": functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="sum")
            / targets.shape[1]
        }

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Mean cross-entropy by token, and its exponential, at most e^700, which a float can hold."""
        loss = mean_of(totals, "loss")
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
