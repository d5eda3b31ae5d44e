"""Small trajectories on the digits, and engines with a store of their own."""

from __future__ import annotations

import dataclasses
import functools
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.experiments.plan import Plan, make_plan
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.engine import Engine
from lth_cli.training.trajectory import FromState, Trajectory

sys.path.insert(0, str(Path(__file__).parent))  # for training_helpers

# 431 of the digits make 8 steps of 60 an epoch.
HERE = ("device=cpu", "threads=1", "training.length=2ep", "dataset.subset.fraction=0.3")


@functools.lru_cache(maxsize=64)
def plan_of(*overrides: str) -> Plan:
    return make_plan(load("prune", [*HERE, *overrides]).config)


@pytest.fixture
def make_dense() -> Callable[..., Trajectory]:
    """The dense trajectory of some overrides."""
    return lambda *overrides: plan_of(*overrides).dense


@pytest.fixture
def make_ticket() -> Callable[..., Trajectory]:
    """The same from step `start` on, with a random half of the prunable weights pruned."""

    def make(*overrides: str, start: int = 0, seed: int = 0) -> Trajectory:
        plan = plan_of(*overrides)
        shapes = {name: shape for name, shape in _shapes(plan).items() if name in plan.prunable}
        generator = torch.Generator().manual_seed(seed)
        masks = {name: torch.rand(shape, generator=generator) < 0.5 for name, shape in shapes.items()}
        return dataclasses.replace(
            plan.dense, start=FromState(plan.dense, start), masks=masks, first_step=start
        )

    return make


def _shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    model = plan.dense.recipe.build(0)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.fixture
def make_engine(tmp_path: Path) -> Callable[..., Engine]:
    """An engine; engines of one folder name share a store."""

    def make(
        folder: str = "store",
        every: str = "60s",
        evaluate: str = "1ep",
        stop: threading.Event | None = None,
        run: str = "run",
    ) -> Engine:
        config = load("prune", [f"evaluation.every={evaluate}"]).config
        return Engine(
            store=TrajectoryStore(tmp_path / folder),
            run_id=run,
            evaluation=config.evaluation,
            checkpoint_every=every,
            stop=stop or threading.Event(),
        )

    return make


class StopAfter(threading.Event):
    """Asks to stop once it has been asked so many times; training asks after every step."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.fixture
def stop_after() -> type[StopAfter]:
    return StopAfter
