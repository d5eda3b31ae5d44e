"""Updates: one step of a training, as a function of the live training, the batch and the step.

An update takes the gradients of a batch as often as it needs to and applies what it made of them. What it must keep
from one step to the next belongs into `Live.memory`, which is part of every state; everything else is a function of
its arguments.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.config.spec import Spec
from lth_cli.config.targets import check_arguments, locate
from lth_cli.data.batches import Batch

_SMALL = 1e-12


class Live(Protocol):
    """A training at work, as an update sees it.

    Attributes:
        memory: tensors by owner and name that survive a step, on the device; stored with every state.
    """

    memory: dict[str, dict[str, Tensor]]

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Which weights of the prunable tensors are kept, bool by name."""

    @property
    def model(self) -> nn.Module:
        """In training mode; its weights are those before the step."""

    def gradients(self, batch: Batch, draw: int = 0) -> Tensor:
        """Leave the gradients of the loss in `.grad`, in the place of earlier ones, and return that loss.

        They are of the whole batch: those of other processes are in them. Pruned weights have gradients of zero, but
        where masks are straight-through.
        Called twice in a step, dropout drops the same units, and the objective draws the same; another `draw` is
        another one.
        """

    def forget(self) -> None:
        """Let the optimizer begin anew, as before its first step."""

    def apply(self) -> None:
        """Clip the gradients, let the optimizer step on them at this step's rate, keep pruned weights at zero."""


class Update(abc.ABC):
    """What a step does with a batch.

    Attributes:
        several_processes: whether it can train in several. It can where it takes gradients from `Live.gradients`
            alone and draws nothing, so that all processes come to the same weights.
        whole_batches: whether a model answers the batch as a whole, as answers of teachers that are kept are of it.
        keeps_weights: whether it keeps weights in `Live.memory` or steps without `Live.gradients`, so that masks that
            change would not reach them.
        sees_all: whether every batch must hold all training examples.
        numerics: of this update alone, raised whenever a release changes what it computes, so that old states are never
            mistaken for new ones.
        own_loss: whether it minimises a loss of its own, in which the objective's, and teachers, have no part.
        passes: how often a step takes gradients of each example, for the count of multiply-adds.
    """

    several_processes: ClassVar[bool] = False
    whole_batches: ClassVar[bool] = True
    keeps_weights: ClassVar[bool] = False
    sees_all: ClassVar[bool] = False
    numerics: ClassVar[int] = 1
    own_loss: ClassVar[bool] = False
    passes: int = 1

    def check(self, model: nn.Module, frozen: Collection[str]) -> None:
        """Refuse a model that it cannot train, before anything is; here, one that names another update (`update`).

        Args:
            model: as it is built.
            frozen: names of the parameters that `training.freeze` chooses.

        Raises:
            ConfigError: at `update` or `training.freeze`.
        """
        name = getattr(model, "update", None)
        if isinstance(name, str):
            raise ConfigError(("update", f"{type(model).__name__} is trained by update={name}"))

    def check_data(self, spec: Spec) -> None:
        """Refuse data that it cannot train on, before anything is trained.

        Raises:
            ConfigError: at `update`.
        """
        return

    @abc.abstractmethod
    def __call__(self, training: Live, batch: Batch, step: int) -> Tensor:
        """Go from `step` to `step + 1`; nothing should wait for the device.

        Returns:
            The loss of the batch before the step, as `Live.gradients` returned it.
        """


class Backpropagation(Update):
    """The gradient of the batch, applied."""

    several_processes = True

    def __call__(self, training: Live, batch: Batch, step: int) -> Tensor:
        """See `Update`."""
        loss = training.gradients(batch)
        training.apply()
        return loss


class SAM(Update):
    """Sharpness-aware minimisation (Foret et al. 2021, arXiv:2010.01412, algorithm 1), in two passes a step.

    e = rho g / (||g||_2 + 1e-12), with one norm over all parameters, g the gradient at the weights w; the optimizer
    steps from w on the gradient at w + e, so that weight decay is at w, too. Gradients are clipped at w + e. Pruned
    weights have no part in the norm or in e. Buffers, which are running statistics of batch norm, are those that the
    first pass leaves, as in Shin et al. 2023 (arXiv:2311.17539). In several processes e is made of the gradient of the
    whole batch; the code of that paper has one e for each device (m-SAM).

    Args:
        rho: length of e.
    """

    several_processes = True
    passes = 2

    def __init__(self, *, rho: Annotated[float, Field(gt=0.0)] = 0.05) -> None:
        self._rho = rho

    def __call__(self, training: Live, batch: Batch, step: int) -> Tensor:
        """See `Update`."""
        loss = training.gradients(batch)
        moved: list[Tensor] = [weight for weight in training.model.parameters() if weight.grad is not None]
        gradients = [weight.grad for weight in moved if weight.grad is not None]
        with torch.no_grad():
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            before = [weight.detach().clone() for weight in moved]
            steps: Sequence[Tensor] = torch._foreach_mul(gradients, self._rho / (norm + _SMALL))
            torch._foreach_add_(moved, list(steps))
        with kept_buffers(training.model):
            training.gradients(batch)
        with torch.no_grad():
            torch._foreach_copy_(
                moved, before
            )  # adding and subtracting e would not come back to the same bytes
        training.apply()
        return loss


class FederatedAveraging(Update):
    """A round of federated averaging (McMahan et al. 2017, arXiv:1602.05629, algorithm 1) as one step.

    The batch holds all examples of the clients of the round, and says whose they are in `clients` (data that are
    grouped so, such as `dataset=federated`). Each client starts from the weights before the step and from a new
    optimizer, passes over its examples `local_epochs` times in batches of `local_batch`, and the new weights are the
    mean of those of the clients of the round by their numbers of examples. Floating-point buffers are averaged
    likewise, others are those of the last client. Between rounds there is no state of an optimizer. The schedule of the
    rate counts rounds.

    A client's first pass is in the order of the batch: drawn by `seeds.order` and the round, or as stored with
    `training.shuffle=false`. Each further pass is shuffled again, by round, client and pass, whatever
    `training.shuffle`; algorithm 1 cuts batches once for all passes. A pass ends with a smaller batch where
    `local_batch` does not divide the examples.

    Args:
        local_epochs: E, passes of a client over its examples.
        local_batch: B, examples of a local step; null is all of a client's.
    """

    whole_batches = False  # but in local ones, in an order of their own

    def __init__(
        self,
        *,
        local_epochs: Annotated[int, Field(ge=1)] = 1,
        local_batch: Annotated[int, Field(ge=1)] | None = 10,
    ) -> None:
        self.passes = local_epochs
        self.local_batch = local_batch

    def check_data(self, spec: Spec) -> None:
        """Refuse data whose batches are not all examples of some clients. Raises ConfigError."""
        if spec.grouped != "clients":
            raise ConfigError(
                (
                    "update",
                    "federated averaging needs data grouped by clients, which these are not; write dataset=federated, "
                    'or grouped="clients" in the Fields that a data set of your own returns',
                )
            )

    def __call__(self, training: Live, batch: Batch, step: int) -> Tensor:
        """See `Update`; returns the mean of the local losses by examples."""
        tensors = [*training.model.parameters(), *training.model.buffers()]
        with torch.no_grad():
            before = [tensor.detach().clone() for tensor in tensors]
            mean = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in tensors]
        clients, counts = torch.unique_consecutive(batch["clients"], return_counts=True)
        total, begun, draw = len(batch["clients"]), 0, 0
        losses = []
        for client, count in zip(clients.tolist(), counts.tolist(), strict=True):
            training.forget()
            with torch.no_grad():
                torch._foreach_copy_(tensors, before)
            own = {name: tensor[begun : begun + count] for name, tensor in batch.items()}
            for epoch in range(self.passes):
                for rows in self._order(step, client, epoch, count):
                    some = {name: tensor[rows.to(tensor.device)] for name, tensor in own.items()}
                    losses.append(training.gradients(some, draw) * (len(rows) / (total * self.passes)))
                    training.apply()
                    draw += 1
            with torch.no_grad():
                for average, tensor, start in zip(mean, tensors, before, strict=True):
                    # Of changes, so that what no client changes stays to the byte.
                    average.add_(tensor.detach().float() - start.float(), alpha=count / total)
            begun += count
        training.forget()
        with torch.no_grad():
            for average, tensor, start in zip(mean, tensors, before, strict=True):
                if tensor.is_floating_point():
                    tensor.copy_(start + average)
        return torch.stack(losses).sum()

    def _order(self, step: int, client: int, epoch: int, count: int) -> Sequence[Tensor]:
        """Rows of the local batches of a client in one of its passes: the first as they come, others shuffled."""
        rows = torch.arange(count)
        if epoch:
            generator = torch.Generator().manual_seed(derive_seed(step, "federated", client, epoch))
            rows = torch.randperm(count, generator=generator)
        return torch.split(rows, self.local_batch or count)


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put buffers back as they were, whatever a pass through the model does to them."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    yield
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)


def make_update(section: schema.Update) -> Update:
    """The update that a section names.

    Raises:
        ConfigError: no such class, or wrong arguments.
    """
    target = locate(section.target, "update._target_")
    if not (inspect.isclass(target) and issubclass(target, Update)):
        raise ConfigError(("update._target_", f"{section.target!r} is not a lth_cli.training.updates.Update"))
    made: Update = target(**check_arguments(target, section.arguments, "update"))
    return made
