"""Dataset condensation: synthetic examples whose gradients are those of real ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.config.spec import Spec
from lth_cli.data.batches import Batch
from lth_cli.models.condensed import Condensed
from lth_cli.training.updates import Live, Update

_SMALL = 1e-6


class GradientMatching(Update):
    """Dataset condensation with gradient matching (Zhao et al. 2021, arXiv:2006.05929, algorithm 1).

    A step matches once: for each class of the batch, the gradients of the cross-entropy of its real and of its
    synthetic examples by the weights of the network, with `gradient_distance`; the optimizer steps on the sum over
    classes by the synthetic examples. Then the network is trained on all of these by plain gradient descent. Every
    `matches` steps another network is drawn. Its weights are part of the state, so that a stopped training goes on to
    the same bytes.

    Real examples are those of the batch; the authors draw as many of each class. With soft labels, an example is of
    the class of its largest share. None of it is computed in bf16.

    Args:
        matches: steps that a network serves, the authors' outer loop (10 at 10 examples a class, 50 at 50).
        epochs: of the network over the synthetic examples after each match, the authors' inner loop (50 and 10).
        rate: of this gradient descent.
        batch_size: of this gradient descent.
        seed: of the networks and the order in which they see the examples.
    """

    own_loss = True
    keeps_weights = True

    def __init__(
        self,
        *,
        matches: PositiveInt = 10,
        epochs: Annotated[int, Field(ge=0)] = 50,
        rate: Annotated[float, Field(gt=0.0)] = 0.01,
        batch_size: PositiveInt = 256,
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
    ) -> None:
        self._matches, self._epochs, self._rate = matches, epochs, rate
        self._batch_size, self._seed = batch_size, seed

    def check(self, model: nn.Module, frozen: Collection[str]) -> None:
        """Raises ConfigError: a model without synthetic examples."""
        if not isinstance(model, Condensed):
            raise ConfigError(
                ("update", f"gradient_matching trains model=condensed, not {type(model).__name__}")
            )

    def check_data(self, spec: Spec) -> None:
        """Refuse data that are no inputs with a label each. Raises ConfigError."""
        if missing := [name for name in ("inputs", "labels") if name not in spec.shapes]:
            there = ", ".join(spec.shapes)
            problem = f"gradient_matching needs {', '.join(missing)} of the data; this data set has {there}"
            raise ConfigError(("update", problem))

    def __call__(self, training: Live, batch: Batch, step: int) -> Tensor:
        """See `Update`; returns the distance, summed over classes."""
        model = training.model
        assert isinstance(model, Condensed)
        if step % self._matches == 0:
            model.draw(derive_seed(self._seed, "condensing network", step // self._matches))
        loss = matching_loss(model, batch)
        images = model.images.weight
        (images.grad,) = torch.autograd.grad(loss, [images])
        for mask in training.masks.values():  # of the images; there is nothing else to prune
            images.grad.mul_(mask)
        training.apply()
        self._train(model, step)
        return loss.detach()

    def _train(self, model: Condensed, step: int) -> None:
        """The network on the present examples, in batches of an order of this step."""
        inputs = model.examples.detach().flatten(0, 1)
        labels = torch.arange(model.classes, device=inputs.device).repeat_interleave(model.per_class)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "condensing order", step))
        weights = _weights(model)
        for _ in range(self._epochs):
            order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
            for rows in torch.split(order, self._batch_size):
                slopes = torch.autograd.grad(
                    _loss(model, weights, inputs[rows], labels[rows]), list(weights.values())
                )
                with torch.no_grad():
                    torch._foreach_add_(list(weights.values()), slopes, alpha=-self._rate)


def matching_loss(model: Condensed, batch: Batch) -> Tensor:
    """The distance between gradients on real and synthetic examples, summed over the classes of the batch; scalar.

    Args:
        model: the examples and the network.
        batch: real `inputs` and `labels`.
    """
    weights = _weights(model)
    labels = batch["labels"]
    classes = labels.argmax(1) if labels.ndim == 2 else labels
    total = torch.zeros((), device=labels.device)
    for label in torch.unique(classes).tolist():
        ours = model.examples[label]
        alike = labels.new_full((len(ours),), label, dtype=torch.int64)
        rows = classes == label
        real = torch.autograd.grad(
            _loss(model, weights, batch["inputs"][rows], labels[rows]), list(weights.values())
        )
        synthetic = torch.autograd.grad(
            _loss(model, weights, ours, alike), list(weights.values()), create_graph=True
        )
        total = total + gradient_distance(synthetic, real)
    return total


def gradient_distance(synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Of gradients by the tensors of a network, 1 - cosine of each row of outputs, summed; scalar.

    As in the authors' code, tensors of one dimension (biases, scales and shifts) do not count, and 1e-6 is added to the
    product of norms.
    """
    total = real[0].new_zeros(())
    for ours, theirs in zip(synthetic, real, strict=True):
        if ours.ndim > 1:
            one, other = ours.flatten(1), theirs.flatten(1)
            norms = one.norm(dim=1) * other.norm(dim=1)
            total = total + (1 - (one * other).sum(1) / (norms + _SMALL)).sum()
    return total


def _weights(model: Condensed) -> dict[str, Tensor]:
    """Of the network, sharing its memory, with gradients."""
    return {name: weight.detach().requires_grad_() for name, weight in model.network.named_buffers()}


def _loss(model: Condensed, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(functional_call(model.network, weights, (inputs,)), labels)
