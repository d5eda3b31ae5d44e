"""Stored weights into a live model."""

from __future__ import annotations

import torch
from torch import nn

from lth_cli.config.errors import LthError
from lth_cli.store.states import State


def restore(model: nn.Module, state: State) -> None:
    """Copy stored weights and buffers into a model.

    Raises:
        LthError: when the state is of another architecture.
    """
    for kind, live, stored in (
        ("weights", dict(model.named_parameters()), state.weights),
        ("buffers", dict(model.named_buffers()), state.buffers),
    ):
        here, there = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (live, stored))
        if here != there:
            differing = sorted(
                name for name in here.keys() | there.keys() if here.get(name) != there.get(name)
            )
            raise LthError(
                f"the stored state is of another architecture; {kind} differ: {', '.join(differing[:5])}"
            )
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(stored[name])
