"""What a score may ask of the training whose weights it judges. The training itself implements it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from lth_cli.pruning.mask import Tensors

Batch: TypeAlias = Mapping[str, Tensor]
"""Tensors of some examples by name, the first axis of each being the example."""
Loss: TypeAlias = Callable[[Tensor, Batch], Tensor]
"""(outputs, batch) -> scalar, the mean over the examples of the batch."""
Mode: TypeAlias = Literal["training", "inference"]
"""training: batch norm by the statistics of each batch, dropout on. inference: by the stored ones, dropout off."""
Count: TypeAlias = int | Literal["all"]
"""So many batches, or one pass over the training examples."""


class Probe(Protocol):
    """A training at the step whose weights are scored, asked about weights of its own or others.

    Every method is a function of its arguments: the same call gives the same numbers, and neither the training nor the
    random state changes. Arithmetic is float32, whatever the training's format. `weights` are those with a mask, pruned
    ones zero; all other parameters, and buffers, are as they are at that step. What comes back has the names, shapes
    and devices of `weights`, dense: at pruned weights too. Where it is not finite, an LthError says so.
    """

    @property
    def classes(self) -> int | None:
        """How many classes the outputs are logits of; None for any other objective."""

    def batches(self, count: Count) -> Iterable[Batch]:
        """The first batches of the training, from step 0 on, as it sees them: in its order, augmented."""

    def balanced(self, each: int) -> Iterable[Batch]:
        """The first `each` training examples of every class in the order of the first epoch, not augmented.

        Of a class with fewer, all. They come mixed, in batches of the training's size.

        Raises:
            LthError: when there are no classes.
        """

    def gradients(
        self,
        weights: Tensors,
        batches: Iterable[Batch],
        *,
        loss: Loss | None = None,
        temperature: float = 1.0,
        mode: Mode = "training",
    ) -> Tensors:
        """Gradients of the mean loss over the examples of all batches.

        Args:
            weights: where.
            batches: gone through one at a time.
            loss: in the place of the training's own, which is that of the objective, without teachers.
            temperature: what the outputs are divided by before the loss.
            mode: of batch norm and dropout.
        """

    def product(
        self,
        weights: Tensors,
        batches: Iterable[Batch],
        vector: Tensors,
        *,
        temperature: float = 1.0,
        mode: Mode = "training",
    ) -> Tensors:
        """The Hessian of that mean loss by `weights` times a vector alike to them (Pearlmutter 1994)."""

    def response(
        self,
        weights: Tensors,
        read: Callable[[Tensor], Tensor],
        *,
        others: Callable[[Tensor], Tensor] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensors:
        """Gradients of a number read from the outputs to one example of ones, in inference mode; no data.

        Args:
            weights: where.
            read: outputs [1, ...] -> scalar.
            others: what is done to every other parameter and buffer of real numbers first; None leaves them.
            dtype: of the arithmetic and of what comes back.
        """
