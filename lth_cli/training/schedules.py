"""Learning-rate schedules: factors on the optimizer's rate, as functions of the step alone.

A schedule is a function that takes what it needs of `steps_per_epoch`, `horizon` and `warmup` (supplied, in steps)
and its own settings, and returns the factor at a step. One that takes `horizon` makes the training's length part of
its identity.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.steps import Duration
from lth_cli.config.targets import check_arguments, locate
from lth_cli.config.values import PositiveSteps, Steps

Factor = Callable[[int], float]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
_SUPPLIED = ("steps_per_epoch", "horizon", "warmup")


def constant() -> Factor:
    """The optimizer's rate throughout."""
    return lambda step: 1.0


def multi_step(
    *, steps_per_epoch: int, milestones: list[Steps], gamma: Annotated[float, Field(gt=0.0)] = 0.1
) -> Factor:
    """Times `gamma` at each milestone, counted from the start of training, warm-up included (as open_lth)."""
    drops = sorted(milestone.steps(steps_per_epoch) for milestone in milestones)
    return lambda step: float(gamma ** sum(step >= drop for drop in drops))


def linear(*, horizon: int, warmup: int, final: Share = 0.0) -> Factor:
    """Straight line from 1 after warm-up to `final` at the end of training."""
    return lambda step: 1.0 + (final - 1.0) * _progress(step, warmup, horizon)


def cosine(*, horizon: int, warmup: int, final: Share = 0.0) -> Factor:
    """Half a cosine from 1 after warm-up to `final` at the end of training (Loshchilov & Hutter 2017, eq. 5)."""
    return lambda step: final + (1.0 - final) * _half_cosine(_progress(step, warmup, horizon))


def cyclic(
    *,
    steps_per_epoch: int,
    warmup: int,
    first_cycle: PositiveSteps,
    growth: Annotated[float, Field(ge=1.0)] = 2.0,
    final: Share = 0.0,
) -> Factor:
    """Cosine cycles after warm-up, each `growth` times longer than the one before (Portes et al. 2022).

    The factor is final + (1 - final) (1 + cos(pi tau)) / 2 with tau = (t - sum_{j<i} T0 g^j) / (T0 g^i) in cycle i.
    """
    first = first_cycle.steps(steps_per_epoch)

    def factor(step: int) -> float:
        start, length = 0.0, float(first)
        elapsed = max(0, step - warmup)
        while elapsed >= start + length:
            start += length
            length *= growth
        return final + (1.0 - final) * _half_cosine((elapsed - start) / length)

    return factor


def _progress(step: int, warmup: int, horizon: int) -> float:
    return min(1.0, max(0.0, (step - warmup) / max(1, horizon - warmup)))


def _half_cosine(tau: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * tau))


def build(config: schema.Schedule, *, steps_per_epoch: int, horizon: int) -> tuple[Factor, dict[str, Any]]:
    """The factor of a configured schedule, warm-up included, and what identifies it.

    Args:
        config: the schedule section.
        steps_per_epoch: optimizer steps in an epoch.
        horizon: optimizer steps in the whole training.

    Returns:
        The factor as a function of the step, and a plain description in which every duration is a number of steps.

    Raises:
        ConfigError: for unknown or ill-typed settings.
    """
    function = locate(config.target, "schedule._target_")
    arguments = check_arguments(function, config.arguments, "schedule", supplied=_SUPPLIED)
    warmup = config.warmup.steps(steps_per_epoch)
    supplied = {"steps_per_epoch": steps_per_epoch, "horizon": horizon, "warmup": warmup}
    accepted = inspect.signature(function).parameters
    after_warmup = function(**{k: v for k, v in supplied.items() if k in accepted}, **arguments)
    if not callable(after_warmup) or not isinstance(after_warmup(0), float | int):
        raise ConfigError(
            ("schedule._target_", f"{config.target!r} must return a function from a step to a factor")
        )
    if not config.target.startswith(f"{__name__}."):
        _check(config.target, after_warmup, horizon)

    def factor(step: int) -> float:
        return step / warmup * after_warmup(step) if step < warmup else float(after_warmup(step))

    described: dict[str, Any] = {
        "_target_": config.target,
        **({} if config.version is None else {"_version_": config.version}),
        "warmup": warmup,
        **{name: _plain(value, steps_per_epoch) for name, value in arguments.items()},
    }
    if "horizon" in accepted:
        described["horizon"] = horizon
    return factor, described


def _check(target: str, factor: Factor, horizon: int) -> None:
    """Look at a thousand steps of the training, so that a wrong factor is found before it begins.

    Raises:
        ConfigError: a factor is no number, not finite or negative.
    """
    for step in {*range(0, horizon, max(1, horizon // 1000)), max(0, horizon - 1)}:
        value = factor(step)
        if not isinstance(value, float | int) or not (math.isfinite(value) and value >= 0):
            message = (
                f"{target!r} gives {value!r} at step {step}; a factor on optimizer.lr is a number, 0 or more"
            )
            raise ConfigError(("schedule._target_", message))


def _plain(value: Any, steps_per_epoch: int) -> Any:
    if isinstance(value, Duration):
        return value.steps(steps_per_epoch)
    if isinstance(value, list | tuple):
        return [_plain(item, steps_per_epoch) for item in value]
    return value
