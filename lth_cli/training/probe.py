"""A training at a state, as pruning scores question it; see `pruning.probe.Probe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lth_cli.config.errors import LthError
from lth_cli.config.seeds import derive_seed
from lth_cli.pruning.mask import Tensors
from lth_cli.pruning.probe import Batch, Count, Loss, Mode
from lth_cli.store.states import State
from lth_cli.training.evaluate import answer
from lth_cli.training.trajectory import Trajectory


class TrainingProbe:
    """A `Probe` of a trajectory at one of its states. The network is made when first asked.

    Args:
        trajectory: whose recipe says what is trained on what.
        state: what parameters without a mask, and buffers, are.
    """

    def __init__(self, trajectory: Trajectory, state: State) -> None:
        self._recipe = trajectory.recipe
        self._state = state
        # Gradients of the short formats would order weights by their rounding.
        self._execution = dataclasses.replace(trajectory.execution, dtype="fp32")

    @property
    def classes(self) -> int | None:
        """See `Probe`."""
        return self._recipe.interface.sizes.get("classes")

    @cached_property
    def _model(self) -> nn.Module:
        return self._execution.place(self._recipe.build(init_seed=0))

    def batches(self, count: Count) -> Iterator[Batch]:
        """See `Probe`."""
        steps = self._recipe.steps_per_epoch if count == "all" else count
        seed = self._recipe.seeds["augment"]
        for step, batch in enumerate(islice(self._recipe.batches.starting_at(0), steps)):
            yield self._recipe.objective.view(batch, step, seed)

    def balanced(self, each: int) -> list[Batch]:
        """See `Probe`."""
        if self.classes is None:
            raise LthError("a balanced sample is of classes, and this training has none")
        batches, taken, found = self._recipe.batches, [0] * self.classes, []
        order = torch.cat([batches.positions(step) for step in range(batches.steps_per_epoch)])
        for batch in self._recipe.data.evaluation("train", order=order):
            rows = []
            for row, label in enumerate(batch["labels"].tolist()):
                if taken[label] < each:
                    taken[label] += 1
                    rows.append(row)
            found.append({name: tensor[rows] for name, tensor in batch.items()})
            if min(taken) == each:
                break
        size = self._recipe.batching.size
        parts = {name: torch.split(torch.cat([some[name] for some in found]), size) for name in found[0]}
        chosen = (dict(zip(parts, part, strict=True)) for part in zip(*parts.values(), strict=True))
        return [self._recipe.objective.view(batch, None, 0) for batch in chosen]

    def gradients(
        self,
        weights: Tensors,
        batches: Iterable[Batch],
        *,
        loss: Loss | None = None,
        temperature: float = 1.0,
        mode: Mode = "training",
    ) -> Tensors:
        """See `Probe`."""

        def slopes(leaves: Tensors, batch: Batch) -> Iterable[Tensor]:
            found = self._loss(leaves, batch, loss, temperature, mode)
            return torch.autograd.grad(found, list(leaves.values()), materialize_grads=True)

        return self._mean(weights, batches, slopes, "gradients")

    def product(
        self,
        weights: Tensors,
        batches: Iterable[Batch],
        vector: Tensors,
        *,
        temperature: float = 1.0,
        mode: Mode = "training",
    ) -> Tensors:
        """See `Probe`."""
        ways = [vector[name].to(self._execution.device) for name in weights]

        def bends(leaves: Tensors, batch: Batch) -> Iterable[Tensor]:
            at = list(leaves.values())
            found = self._loss(leaves, batch, None, temperature, mode)
            slopes = torch.autograd.grad(found, at, create_graph=True, materialize_grads=True)
            along = torch.stack([(slope * way).sum() for slope, way in zip(slopes, ways, strict=True)]).sum()
            return torch.autograd.grad(along, at, materialize_grads=True)

        return self._mean(weights, batches, bends, "products with the Hessian")

    def response(
        self,
        weights: Tensors,
        read: Callable[[Tensor], Tensor],
        *,
        others: Callable[[Tensor], Tensor] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensors:
        """See `Probe`."""
        interface, device = self._recipe.interface, self._execution.device
        if device.type == "mps" and dtype == torch.float64:
            device = torch.device("cpu")  # which has no float64
        self._execution.activate()
        leaves = _leaves(weights, device, dtype)

        def prepared(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.to(device, copy=True)
            wide = tensor.to(device, dtype, copy=True)
            return wide if others is None else others(wide)

        held = {name: prepared(tensor) for name, tensor in self._held(weights).items()}
        given = torch.ones(1, *interface.input_shape, device=device)
        given = given.to(dtype if interface.input_dtype == "float32" else torch.int64)
        with self._asked("inference"):
            outputs: Tensor = functional_call(self._model, {**held, **leaves}, (given,))
        found = torch.autograd.grad(read(outputs), list(leaves.values()), materialize_grads=True)
        return self._alike(weights, found, "gradients")

    def _held(self, weights: Tensors) -> Tensors:
        """Every parameter that is not among some weights, and every buffer, as stored."""
        others = {name: tensor for name, tensor in self._state.weights.items() if name not in weights}
        return {**others, **self._state.buffers}

    def _loss(
        self, leaves: Tensors, batch: Batch, loss: Loss | None, temperature: float, mode: Mode
    ) -> Tensor:
        device, objective = self._execution.device, self._recipe.objective
        # Copies: batch norm in training mode writes into the buffers that it is given.
        held = {name: tensor.to(device, copy=True) for name, tensor in self._held(leaves).items()}
        with self._asked(mode):
            outputs = answer(_At(self._model, {**held, **leaves}), objective, batch, self._execution)
        return (objective.loss if loss is None else loss)(outputs / temperature, batch)

    def _mean(
        self,
        weights: Tensors,
        batches: Iterable[Batch],
        of_batch: Callable[[Tensors, Batch], Iterable[Tensor]],
        what: str,
    ) -> Tensors:
        """The mean over all examples of what is a mean over those of each batch; of one batch, that to the bit."""
        self._execution.activate()
        leaves = _leaves(weights, self._execution.device, torch.float32)
        mean = [torch.zeros_like(leaf, requires_grad=False) for leaf in leaves.values()]
        seen = 0
        for batch in batches:
            count = len(next(iter(batch.values())))
            seen += count
            for own, part in zip(mean, of_batch(leaves, batch), strict=True):
                own.add_(part.detach() - own, alpha=count / seen)
        return self._alike(weights, mean, what)

    def _alike(self, weights: Tensors, found: Iterable[Tensor], what: str) -> Tensors:
        """What was found, by name. Raises LthError: it is not finite."""
        alike = {}
        for (name, weight), tensor in zip(weights.items(), found, strict=True):
            if not torch.isfinite(tensor).all():
                raise LthError(
                    f"the {what} are not finite: that of {name}, at the weights of "
                    f"step {self._state.step}; a lower optimizer.lr or another pruning.at may help"
                )
            alike[name] = tensor.detach().to(weight.device)
        return alike

    @contextmanager
    def _asked(self, mode: Mode) -> Iterator[None]:
        """The network in a mode, drawing the same numbers each time."""
        device = self._execution.device
        self._model.train(mode == "training")
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self._recipe.seeds["augment"], "probe"))
            yield


class _At(nn.Module):
    """A network at other tensors than its own, which are left alone."""

    def __init__(self, model: nn.Module, tensors: Tensors) -> None:
        super().__init__()
        self._model = model
        self._tensors = tensors

    def forward(self, *inputs: Any) -> Any:
        return functional_call(self._model, self._tensors, inputs)


def _leaves(weights: Tensors, device: torch.device, dtype: torch.dtype) -> Tensors:
    return {name: weight.detach().to(device, dtype).requires_grad_() for name, weight in weights.items()}


class BriefProbe(TrainingProbe):
    """A probe to try a score with: the first batch stands for any number of them."""

    def batches(self, count: Count) -> Iterator[Batch]:
        """See `Probe`."""
        return super().batches(1)
