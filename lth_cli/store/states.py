"""Training states as files: weights, buffers and optimizer state after one step of one trajectory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lth_cli.store.files import Damaged, entries
from lth_cli.store.tensors import FORMAT_PARTIAL, FORMAT_WITH_MASKS, read_about, read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

_KIND = "state"
_SUFFIX = ".safetensors"
_PREFIX = "step_"


@dataclass(frozen=True)
class State:
    """All a training needs to go on after `step` optimizer steps, keyed by parameter and buffer names."""

    step: int
    weights: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Parameter name, then the optimizer's key (`momentum_buffer`, `exp_avg`, ...)."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """Bool, True = kept, of a training that changes its masks; empty where they are those it starts from."""
    memory: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Whose it is, then the name: what else the next step depends on."""
    partial: bool = False
    """Whether what the optimizer had was left out: its weights can be used, its training cannot go on from it."""


@dataclass(frozen=True)
class StateHeader:
    """What a state file says it is; `load_state` verifies it."""

    trajectory: str
    step: int


def state_name(step: int) -> str:
    """The file name of the state after `step` steps."""
    return f"{_PREFIX}{step:08d}{_SUFFIX}"


def stored_steps(folder: Path) -> dict[int, Path]:
    """State files in a folder by step, ascending; {} when there is no such folder."""
    names = [path for path in entries(folder) if path.name.startswith(_PREFIX) and path.suffix == _SUFFIX]
    digits = {path: path.name[len(_PREFIX) : -len(_SUFFIX)] for path in names}
    found = {int(text): path for path, text in digits.items() if text.isascii() and text.isdigit()}
    return {step: path for step, path in sorted(found.items()) if path.name == state_name(step)}


def save_state(path: Path, state: State, trajectory: str) -> None:
    """Write a state, atomically; the same state and trajectory give the same bytes.

    One without masks and memory is of format 1, which every release reads.

    Raises:
        WriteFailed: the file could not be written.
        ValueError: a name with a slash, a negative step, or a dtype that cannot be stored.
    """
    if state.step < 0:
        raise ValueError(f"step {state.step} is negative")
    tensors = {f"weights/{_checked(name)}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"buffers/{_checked(name)}": tensor for name, tensor in state.buffers.items()}
    for name, slots in state.optimizer.items():
        tensors |= {f"optimizer/{_checked(name)}/{_checked(key)}": tensor for key, tensor in slots.items()}
    tensors |= {f"masks/{_checked(name)}": mask for name, mask in state.masks.items()}
    for owner, held in state.memory.items():
        tensors |= {f"memory/{_checked(owner)}/{_checked(name)}": tensor for name, tensor in held.items()}
    about: dict[str, object] = {"trajectory": trajectory, "step": state.step}
    number = FORMAT_WITH_MASKS if state.masks or state.memory else None
    if state.partial:
        about, number = {**about, "partial": True}, FORMAT_PARTIAL
    write_tensors(path, _KIND, tensors, about, number)


def _checked(name: str) -> str:
    if not name or "/" in name:
        raise ValueError(f"a tensor named {name!r} cannot be stored; names have no slash and are not empty")
    return name


def load_state(path: Path) -> State:
    """Read a state onto the CPU and verify every byte of it.

    Raises:
        Damaged: the file is not what was written, or not a state.
        NewerFormat, ReadFailed: it cannot be read.
    """
    import torch

    tensors, meta = read_tensors(path, _KIND)
    state = State(step=_header_of(path, meta).step, partial=meta.get("partial") is True)
    for key, tensor in tensors.items():
        match key.split("/"):
            case ["weights", name]:
                state.weights[name] = tensor
            case ["buffers", name]:
                state.buffers[name] = tensor
            case ["optimizer", name, slot]:
                state.optimizer.setdefault(name, {})[slot] = tensor
            case ["masks", name] if tensor.dtype == torch.bool:
                state.masks[name] = tensor
            case ["memory", owner, name]:
                state.memory.setdefault(owner, {})[name] = tensor
            case _:
                raise Damaged(path, f"{key!r} is not a part of a state")
    return state


def read_header(path: Path) -> StateHeader:
    """Which trajectory and step a state file says it is, tensors unread. Raises as `load_state`."""
    return _header_of(path, read_about(path, _KIND))


def _header_of(path: Path, meta: dict[str, object]) -> StateHeader:
    trajectory, step = meta.get("trajectory"), meta.get("step")
    if not isinstance(trajectory, str) or not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise Damaged(path, "its header names no trajectory and step")
    return StateHeader(trajectory, step)
