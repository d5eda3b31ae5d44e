"""Forward-forward: layers tell inputs with the right label from those with a wrong one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.config.seeds import derive_seed
from lth_cli.objectives.classification import Classification
from lth_cli.objectives.objective import Batch


class ForwardForward(Classification):
    """The sum of the losses that the layers of a model have by themselves (Hinton 2022, arXiv:2212.13345).

    In training the model is told the label of each example and another one, drawn uniformly, and answers with the loss
    of each of its layers, [B, layers] (`model=forward_forward`). Evaluation takes the largest goodness for the class;
    its loss is the cross-entropy with goodness as logits, which nothing minimises.
    """

    tells = ("labels", "what wrong ones are drawn by")
    several_processes = False  # each would draw the same for its part
    mixed_labels = False
    answers = None

    def __init__(self) -> None:
        super().__init__()

    def view(self, batch: Batch, step: int | None, seed: int) -> Batch:
        """In training, what a wrong label is drawn by, uniform in [0, 1), for each example."""
        if step is None:
            return batch
        generator = torch.Generator().manual_seed(derive_seed(seed, "forward_forward", step))
        drawn = torch.rand(len(batch["labels"]), generator=generator)
        return {**batch, "drawn": drawn.to(batch["labels"].device)}

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of layers in training, else goodness of labels."""
        given = self.given(batch)
        told = (batch["labels"], batch["drawn"]) if "drawn" in batch else ()
        answered: Tensor = model(given, *told)
        return answered

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The sum over layers, or the cross-entropy of goodness."""
        if "drawn" in batch:
            return outputs.mean(0).sum()
        return functional.cross_entropy(outputs, batch["labels"])
