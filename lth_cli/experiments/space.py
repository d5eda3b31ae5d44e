"""How much disk a run needs, estimated before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.experiments.plan import Plan
from lth_cli.pruning.straight_through import StraightThrough
from lth_cli.training import optimizers

_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def needed(plan: Plan, trainings: int) -> int:
    """Bytes of the states that so many trainings of a plan leave: of each its start, its end and the scored step, of
    the dense one the rewind point and what is to be kept too, and one resume point at a time.
    """
    model = plan.dense.recipe.build(init_seed=0)
    weights = _bytes([*model.parameters(), *model.buffers()])
    # States of a training that changes its masks hold them, a byte a weight.
    policy = plan.dense.recipe.policy
    masks = 0 if policy is None else _bytes(list(plan.dense.masks.values()))
    if isinstance(policy, StraightThrough):  # and latent values of 4 bytes
        masks *= 9 if policy.trains_scores else 5
    try:
        kept = _optimizer_bytes(plan, model)
    except (ConfigError, RuntimeError):  # an optimizer that cannot step on zeros: as large as Adam's
        kept = 2 * weights
    start, state = weights + masks, weights + masks + kept
    dense = {0, plan.rewind_to, plan.scored_at(plan.dense), plan.dense.end, *plan.keep}
    full = len({plan.scored_at(plan.dense), plan.dense.end})
    return trainings * (start + full * state) + (len(dense) - 1 - full) * state + state


def _optimizer_bytes(plan: Plan, model: torch.nn.Module) -> int:
    """What the optimizer keeps, seen after one step on gradients of zero."""
    optimizer = optimizers.build(plan.config.optimizer, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return _bytes([value for slots in optimizer.state.values() for value in slots.values()])


def _bytes(values: list[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def shortage(plan: Plan, trainings: int, folder: Path) -> str | None:
    """A sentence for a person, when the free space of a folder's disk does not suffice for so many trainings."""
    free = shutil.disk_usage(folder).free
    wanted = needed(plan, trainings)
    if wanted <= free:
        return None
    return (
        f"the disk of {folder} has {_human(free)} free, and this run may need {_human(wanted)}; "
        "if it fills up, free some space and repeat the command: it goes on from there"
    )


def _human(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.3g} {unit}"
        count /= 1000
    return ""
