"""How much disk a run needs, estimated before it starts."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Interface
from lth_cli.experiments.plan import Plan
from lth_cli.models.build import build
from lth_cli.pruning.straight_through import StraightThrough
from lth_cli.training import optimizers

_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def needed(plan: Plan, trainings: int) -> int:
    """Bytes of the states that so many trainings of a plan leave: of each its start, its end and the scored step, of
    the dense one the rewind point and what is to be kept too, and one resume point at a time.
    """
    recipe = plan.dense.recipe
    rateless = recipe.optimizer.model_copy(update={"lr": 1.0})  # which does not change what is kept
    weights, kept = _sizes(recipe.model.model_dump_json(), recipe.interface.plain, rateless.model_dump_json())
    # States of a training that changes its masks hold them, a byte a weight.
    policy = recipe.policy
    masks = 0 if policy is None else _bytes(list(plan.dense.masks.values()))
    if isinstance(policy, StraightThrough):  # and latent values of 4 bytes
        masks *= 9 if policy.trains_scores else 5
    start, state = weights + masks, weights + masks + kept
    dense = {0, plan.rewind_to, plan.scored_at(plan.dense), plan.dense.end, *plan.keep}
    full = len({plan.scored_at(plan.dense), plan.dense.end})
    return trainings * (start + full * state) + (len(dense) - 1 - full) * state + state


@functools.lru_cache(maxsize=64)  # asked for each point of a study, and a model is slow to build
def _sizes(model: str, plain: tuple[Any, ...], optimizer: str) -> tuple[int, int]:
    """Bytes of a network, and of what its optimizer keeps, seen after one step on gradients of zero."""
    network = build(schema.Model.model_validate_json(model), Interface.of_plain(plain), init_seed=0)
    weights = _bytes([*network.parameters(), *network.buffers()])
    try:
        stepping = optimizers.build(schema.Optimizer.model_validate_json(optimizer), network)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        stepping.step()
    except (ConfigError, RuntimeError):  # an optimizer that cannot step on zeros: as large as Adam's
        return weights, 2 * weights
    return weights, _bytes([value for slots in stepping.state.values() for value in slots.values()])


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
