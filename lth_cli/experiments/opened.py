"""A recorded round as plain torch objects: a state, a model, examples; for the Python API and for exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from lth_cli.config import schema
from lth_cli.config.steps import Duration
from lth_cli.experiments.processes import trainers
from lth_cli.experiments.recorded import Recorded
from lth_cli.pruning.mask import apply
from lth_cli.store.states import State
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.engine import Engine
from lth_cli.training.restore import restore

Step = int | Literal["init", "end"]
"""A step counter of a round's training, or its start or end."""

# What is trained to reach a state is evaluated at its start and end alone.
_SELDOM = schema.Evaluation(every=Duration(iterations=10**9))


@dataclass(frozen=True)
class Place:
    """What this machine has, for a run that comes from anywhere.

    Attributes:
        runs_dir: whose shared store has further states.
        data: where data lies; a root of None is that of the run.
        device: used where the run's own is not here.
        threads: used with it.
    """

    runs_dir: str
    data: schema.DataPlace
    device: str = "cpu"
    threads: int | Literal["auto"] = "auto"


def state_at(recorded: Recorded, step: Step) -> State:
    """The state of a round at a step, on the CPU: read where the run or the store has it, trained where not.

    Raises:
        RequestError: the step lies outside the round's training, or can neither be read nor trained here.
        LthError: reading or training fails.
    """
    number = step_number(recorded, step)
    if number in recorded.round.checkpoints():
        return recorded.round.checkpoint(number)
    recorded.check(number)
    with trainers() as make_trainer:
        store = TrajectoryStore(Path(recorded.plan.config.runs_dir) / ".store")
        engine = Engine(
            store,
            str(recorded.run.info["id"]),
            _SELDOM,
            recorded.plan.config.checkpoint.every,
            make_trainer=make_trainer,
        )
        return recorded.state(number, engine)


def step_number(recorded: Recorded, step: Step) -> int:
    """The counter that a step stands for. Raises RequestError: it lies outside the round's training."""
    if step == "init":
        return recorded.start
    return recorded.end if step == "end" else recorded.step(Duration(iterations=step))


def model_of(recorded: Recorded, state: State, *, masked: bool) -> nn.Module:
    """The network of a round with the weights of a state, on the CPU, in evaluation mode.

    Args:
        recorded: the round.
        state: one of its training.
        masked: set what the round prunes to zero; else the weights are those stored.
    """
    model = recorded.plan.dense.recipe.build(init_seed=0)
    restore(model, state)
    if masked:
        masks = recorded.masks_of(state)
        with torch.no_grad():
            live = dict(model.named_parameters())
            for name, tensor in apply({name: live[name] for name in masks}, masks).items():
                live[name].copy_(tensor)
    return model.eval()


def examples_of(recorded: Recorded) -> dict[str, dict[str, Tensor]]:
    """The data of a run by split and name of the tensor, on the CPU: as a model sees them, without augmentation."""
    data = recorded.plan.dense.data
    found = {}
    for split in data.sizes:
        batches = list(data.evaluation(split))
        found[split] = {name: torch.cat([batch[name].cpu() for batch in batches]) for name in batches[0]}
    return found
