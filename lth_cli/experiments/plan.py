"""A request checked against data, model and machine before anything is created."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.steps import Duration
from lth_cli.data.batches import Data
from lth_cli.data.prepare import prepare
from lth_cli.data.source import open_place
from lth_cli.models.build import build, output_layer, prunable
from lth_cli.pruning.scores import locate_score
from lth_cli.pruning.select import fraction_of, select_prunable
from lth_cli.training import optimizers, precision
from lth_cli.training.trajectory import Trajectory, dense


@dataclass(frozen=True)
class Plan:
    """Everything an experiment needs, checked.

    Attributes:
        config: validated, with device and threads settled.
        dense: the dense trajectory.
        prunable: names of the tensors that pruning may touch.
        output: module name of the output layer.
        rewind_to: step the rounds restart from.
        scored_at: step whose weights are scored.
    """

    config: schema.Config
    dense: Trajectory
    prunable: list[str]
    output: str
    rewind_to: int
    scored_at: int

    @property
    def horizon(self) -> int:
        """The step at which every training ends."""
        return self.dense.horizon


def make_plan(config: schema.Config) -> Plan:
    """Load the data, try the model, resolve every step; nothing is written but caches of data.

    Raises:
        ConfigError: naming the config path of whatever does not fit.
    """
    execution = precision.resolve(config)
    settled = {"device": str(execution.device), "threads": execution.threads}
    config = config.model_copy(update=settled)
    data = load_data(config, execution)
    trajectory = dense(config, data, execution)
    model = build(config.model, data.input_shape, data.classes, config.resolved_seeds["init"])
    optimizers.build(config.optimizer, model)
    output = output_layer(model)
    names = select_prunable(
        config.pruning, prunable(model, biases=config.pruning.biases), output, config.model.prune_output
    )
    locate_score(config.pruning.score)
    for name in names:
        fraction_of(config.pruning, name, output)
    horizon = trajectory.horizon
    rewind_to = _step("rewind.to", config.rewind.to, trajectory, 0, horizon - 1)
    at = config.pruning.at
    scored_at = horizon if at is None else _step("pruning.at", at, trajectory, rewind_to + 1, horizon)
    return Plan(config, trajectory, names, output, rewind_to, scored_at)


def load_data(config: schema.Config, execution: precision.Execution) -> Data:
    """The prepared data set of a config, on the device."""
    return prepare(
        config.dataset,
        open_place(config.data),
        split_seed=config.resolved_seeds["split"],
        device=execution.device,
        evaluation_batch=config.evaluation.batch_size,
    )


def _step(where: str, duration: Duration, trajectory: Trajectory, lowest: int, highest: int) -> int:
    step = duration.steps(trajectory.steps_per_epoch)
    if not lowest <= step <= highest:
        raise ConfigError(
            (
                where,
                f"{duration} is step {step}; it must lie between {lowest} and {highest} "
                f"(training.length={trajectory.config.training.length}, {trajectory.steps_per_epoch} steps an epoch)",
            )
        )
    return step


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Config paths at which two plain configs differ, with both values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            found += differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if ours == theirs else [f"{path} ({theirs!r} there, {ours!r} now)"]
