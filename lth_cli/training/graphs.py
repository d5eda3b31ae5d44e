"""CUDA graphs: a small network's forward and backward pass as one launch instead of hundreds.

A GPU computes a kernel of a small network in less time than the CPU takes to launch it. A graph holds all launches of a
pass, recorded once; replayed, it runs the same kernels on the weights and the batch that are there then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lth_cli.data.batches import Batch

Compute = Callable[[Batch], Tensor]
"""Leaves the gradients of a batch's loss in `.grad`, which is None before, and returns the loss, detached."""

_FIRST = 20  # short trainings gain nothing
_WARM_UPS = 3  # cuDNN and cuBLAS set themselves up on the stream that records
_TIMED = 5
_LONGEST = 0.05  # seconds of a pass; a longer one does not wait for its launches
_WORTH = 0.9


class Graphs:
    """Computes gradients as a pass does, by a graph where that was measured faster and gave the same bytes.

    Args:
        model: on a CUDA device, of modules that do in every pass what they did in the first.

    Attributes:
        graphed: whether batches of the usual shape are replayed; None before that is settled.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._parameters = [weight for weight in model.parameters() if weight.requires_grad]
        self._calls = 0
        self._recorded: _Recorded | None = None
        self.graphed: bool | None = None

    def __call__(self, compute: Compute, batch: Batch) -> Tensor:
        """The loss of a batch; its gradients are in `.grad`, to be overwritten by the next call.

        Args:
            compute: the pass, the same in every call; draws random numbers from the device's generator alone.
            batch: in the memory of the device.
        """
        if self.graphed is None:
            self._calls += 1
            if self._calls > _FIRST:
                with torch.cuda.device(self._parameters[0].device):
                    self._settle(compute, batch)
        if self._recorded is not None and self._recorded.takes(batch):
            return self._recorded(batch)
        return compute(batch)

    def _settle(self, compute: Compute, batch: Batch) -> None:
        """Record a pass over this batch, compare it with the pass itself, and keep what is faster."""

        def alone(batch: Batch) -> Tensor:
            self._clear()
            return compute(batch)

        self.graphed = False
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        drawn = torch.cuda.get_rng_state()
        plain = self._seconds(lambda: alone(batch))
        if plain < _LONGEST:
            torch.cuda.set_rng_state(drawn)
            wanted = [alone(batch), *(weight.grad for weight in self._parameters)]
            self._restore(buffers)
            try:
                recorded = _Recorded(self._parameters, alone, batch)
            except RuntimeError:  # something in the pass cannot be recorded
                recorded = None
                _end_recording()
            self._restore(buffers)
            if recorded is not None:
                torch.cuda.set_rng_state(drawn)
                got = [recorded(batch), *(weight.grad for weight in self._parameters)]
                alike = all(map(_equal, wanted, got))
                if alike and self._seconds(lambda: recorded(batch)) < _WORTH * plain:
                    self._recorded, self.graphed = recorded, True
        self._restore(buffers)
        torch.cuda.set_rng_state(drawn)
        self._clear()

    def _clear(self) -> None:
        for weight in self._parameters:
            weight.grad = None

    def _restore(self, buffers: list[Tensor]) -> None:
        for buffer, value in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(value)

    def _seconds(self, work: Callable[[], object]) -> float:
        """What a call takes, launches included, when several follow each other."""
        work()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(_TIMED):
            work()
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / _TIMED


class _Recorded:
    """A pass over batches of one shape."""

    def __init__(self, parameters: list[nn.Parameter], compute: Compute, batch: Batch) -> None:
        self._parameters = parameters
        self._batch = {name: tensor.clone() for name, tensor in batch.items()}
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                compute(self._batch)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph, stream=stream):
            self._loss = compute(self._batch)
        self._gradients = [weight.grad for weight in parameters]

    def takes(self, batch: Batch) -> bool:
        """Whether a batch is of the recorded shapes and formats."""
        return _format(batch) == _format(self._batch)

    def __call__(self, batch: Batch) -> Tensor:
        for name, tensor in self._batch.items():
            tensor.copy_(batch[name])
        self._graph.replay()
        for weight, gradient in zip(self._parameters, self._gradients, strict=True):
            weight.grad = gradient
        return self._loss.clone()  # the next replay writes over it


def _end_recording() -> None:
    """Record something else: after a recording that failed, random numbers are refused until another one ends well."""
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.zeros((), device="cuda").add_(1)


def _format(batch: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in batch.items()}


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)
