"""From the `objective` section of the config to an objective."""

from __future__ import annotations

import functools
import inspect

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.targets import check_arguments, first_two, locate
from lth_cli.objectives.objective import Objective


def make_objective(section: schema.Objective, label_smoothing: float) -> Objective:
    """The objective that a section names.

    Args:
        section: the class, its arguments, a person's own loss.
        label_smoothing: of `training`, for objectives that have targets to smooth.

    Raises:
        ConfigError: no such class, wrong arguments, or nothing that could be smoothed.
    """
    target = locate(section.target, "objective._target_")
    if not (inspect.isclass(target) and issubclass(target, Objective)):
        message = f"{section.target!r} is not a lth_cli.objectives.objective.Objective"
        raise ConfigError(("objective._target_", message))
    arguments = check_arguments(target, section.arguments, "objective", supplied=("label_smoothing", "loss"))
    smooths = "label_smoothing" in inspect.signature(target).parameters
    if label_smoothing and not smooths:
        raise ConfigError(
            ("training.label_smoothing", f"{section.target} has no labels to smooth; leave it at 0")
        )
    if smooths:
        arguments["label_smoothing"] = label_smoothing
    if section.loss is not None and "loss" not in inspect.signature(target).parameters:
        raise ConfigError(
            ("objective.loss", f"{section.target} is trained by its own loss alone; leave it out")
        )
    if section.loss is not None:
        loss = locate(section.loss.target, "objective.loss._target_")
        given = check_arguments(loss, section.loss.arguments, "objective.loss", supplied=first_two(loss))
        arguments["loss"] = functools.partial(loss, **given)
    made: Objective = target(**arguments)
    return made
