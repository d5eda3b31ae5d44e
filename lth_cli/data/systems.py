"""Trajectories of systems of differential equations, in several environments: the same terms, other parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.data.source import Fields, Place

_Floats = NDArray[np.float64]
_TOLERANCE = 1e-12  # relative and absolute, of the authors' code
_FARTHEST = 1e6  # of a state; beyond it squared errors would leave float32
_MOST_STEPS = 1000  # of LSODA for a state; some ten are usual
_LEAST = 5  # points that a smoothed derivative looks at


@dataclass(frozen=True)
class System:
    """A system of differential equations.

    Attributes:
        derivative: (states, parameters) -> time derivatives.
        parameters: their means; the new environment has these where `new` is empty.
        first: (generator, trajectories) -> initial states [trajectories, states].
        terms: of each state's equation, named as `models.equations` does.
        presets: parameters of the environments in order, where they are not drawn.
        new: parameters of the new environment, where they are not the means.
    """

    derivative: Callable[[_Floats, Sequence[float]], Sequence[float]]
    parameters: tuple[float, ...]
    first: Callable[[np.random.Generator, int], _Floats]
    terms: tuple[tuple[str, ...], ...]
    presets: tuple[tuple[float, ...], ...] = ()
    new: tuple[float, ...] = ()


def _ring(source: np.random.Generator, count: int) -> _Floats:
    """Points at a distance of 1.3 to 2.3 from the origin."""
    drawn = source.normal(size=(count, 2)) * 2 - 1
    radius = source.uniform(1.3, 2.3, (count, 1))
    ring: _Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * radius
    return ring


SYSTEMS = {
    "linear": System(
        lambda x, p: (p[0] * x[0] + p[1] * x[1], p[2] * x[0] + p[3] * x[1], p[4] * x[2]),
        (-0.1, 2.0, -2.0, -0.1, -0.3),
        lambda source, count: source.normal(size=(count, 3)),
        (("x0", "x1"), ("x0", "x1"), ("x2",)),
    ),
    "lorenz": System(
        lambda x, p: (p[0] * (x[1] - x[0]), x[0] * (p[1] - x[2]) - x[1], x[0] * x[1] - p[2] * x[2]),
        (10.0, 28.0, 8 / 3),
        lambda source, count: source.normal(size=(count, 3)),
        (("x0", "x1"), ("x0", "x1", "x0 x2"), ("x2", "x0 x1")),
    ),
    "lotka_volterra": System(
        lambda x, p: (p[0] * x[0] - p[1] * x[0] * x[1], p[3] * x[0] * x[1] - p[2] * x[1]),
        (0.5, 0.75, 0.5, 0.75),
        lambda source, count: source.uniform(1.0, 2.0, (count, 2)),
        (("x0", "x0 x1"), ("x1", "x0 x1")),
        presets=tuple(
            (0.5, beta, 0.5, delta)
            for beta, delta in (
                *((0.5, 0.5), (0.75, 0.5), (1.0, 0.5), (0.5, 0.75), (0.5, 1.0)),
                *((0.75, 0.75), (0.75, 1.0), (1.0, 0.75), (1.0, 1.0)),
            )
        ),
        new=(0.5, 0.625, 0.5, 1.125),
    ),
    "pendulum": System(
        lambda x, p: (x[1], -p[0] * x[1] - p[1] * np.sin(x[0])),
        (0.6 / 1.2, 9.8 / 10.0),
        _ring,
        (("x1",), ("x1", "sin(x0)")),
    ),
}

SystemName = Literal["linear", "lorenz", "lotka_volterra", "pendulum"]


def systems(
    place: Place,
    *,
    system: SystemName = "lotka_volterra",
    environments: PositiveInt = 3,
    trajectories: PositiveInt = 16,
    tests: PositiveInt = 16,
    span: Annotated[float, Field(gt=0.0)] = 4.0,
    dt: Annotated[float, Field(gt=0.0)] = 0.02,
    held: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2,
    ahead: Annotated[float, Field(gt=0.0)] = 2.5,
    variance: Annotated[float, Field(ge=0.0)] = 0.01,
    noise: Annotated[float, Field(ge=0.0)] = 0.0,
    new: bool = False,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
) -> Fields:
    """Trajectories of a system in several environments, as the code of SpReME makes them (arXiv:2302.05942).

    An example is an initial state with the trajectory that it leads to in each environment; scipy integrates (LSODA,
    tolerances of 1e-12). Parameters and initial states of training are rounded to float16, as there. Test
    trajectories are without noise, start anew and are longer.

    | system | parameters (mean) | initial states |
    | --- | --- | --- |
    | `linear` | damped, 3 states (-0.1, 2, -2, -0.1, -0.3) | N(0, 1) |
    | `lorenz` | sigma 10, rho 28, beta 8 / 3 | N(0, 1) |
    | `lotka_volterra` | nine environments of their own, (0.5, 0.5 to 1, 0.5, 0.5 to 1) | U(1, 2) |
    | `pendulum` | b / m 0.5, g / L 0.98 | at a distance of U(1.3, 2.3) |

    Args:
        place: not used; nothing is read.
        system: see the table.
        environments: of Lotka-Volterra the first so many of nine; of others with parameters drawn.
        trajectories: initial states that train.
        tests: initial states that test.
        span: of a training trajectory, in the unit of time.
        dt: between two of its states.
        held: last share of its states, by which the best is chosen and on which nothing is trained.
        ahead: how many spans a test trajectory lasts; it has as many states as trained ones.
        variance: of each parameter over the environments.
        noise: standard deviation of what is added to training states, in that of each state over the trajectories.
        new: the environment that no training saw, with the mean parameters (Lotka-Volterra: 0.5, 0.625, 0.5, 1.125),
            for adaptation; it is one.
        seed: of all that is drawn; part of the data set, unrelated to the seeds of a run.

    Returns:
        states float32 [N, environments, T, states]; late, likewise, from the last of these on over the held share (of
        a test trajectory: its end); spacing float32 [N] between two states.

    Raises:
        ConfigError: too few states, more environments than there are, or states that leave what can be computed.
    """
    chosen = SYSTEMS[system]
    count = len(np.arange(0, span, dt))
    left = int(count * held)
    if left < 1 or count - left < _LEAST:
        problem = f"span {span:g} in steps of {dt:g} is {count} states, of which {left} are held; at least "
        raise ConfigError(("dataset.span", f"{problem}1 must be held and {_LEAST} trained on"))
    if new and environments != 1:
        raise ConfigError(("dataset.environments", "the new environment is one; write 1"))
    if chosen.presets and not new and environments > len(chosen.presets):
        problem = f"{system} has {len(chosen.presets)}; {environments} are asked for"
        raise ConfigError(("dataset.environments", problem))

    def drawing(what: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(seed, f"systems {what}{' new' if new else ''}"))

    means = np.array([chosen.new or chosen.parameters] if new else [chosen.parameters] * environments)
    parameters = means + (0.0 if new else variance**0.5) * drawing("parameters").normal(size=means.shape)
    if chosen.presets and not new:
        parameters = np.array(chosen.presets[:environments])
    if not np.abs(parameters).max() <= np.finfo(np.float16).max:
        problem = (
            f"{variance:g} draws a parameter of {np.abs(parameters).max():g}, which float16 does not hold"
        )
        raise ConfigError(("dataset.variance", problem))
    parameters = _rounded(parameters)
    trained = count - left

    def solved(first: _Floats, times: NDArray[Any]) -> _Floats:
        return np.stack([[_solve(chosen, x, p, times) for p in parameters] for x in first])

    clean = solved(_rounded(chosen.first(drawing("first states"), trajectories)), dt * np.arange(count))
    spread = clean[:, :, :trained].std(axis=(0, 2), keepdims=True)
    with np.errstate(over="ignore"):
        seen = clean + noise * spread * drawing("noise").normal(size=clean.shape)
    if not np.abs(seen).max() < _FARTHEST:
        raise ConfigError(("dataset.noise", f"{noise:g} takes states beyond {_FARTHEST:g}"))
    spacing = ahead * span / (trained - 1)
    tested = solved(chosen.first(drawing("test states"), tests), spacing * np.arange(trained))
    return Fields(
        _fields(seen[:, :, :trained], seen[:, :, trained - 1 :], dt),
        _fields(tested, tested[:, :, -left - 1 :], spacing),
        {"environments": len(parameters), "states": len(chosen.terms)},
    )


def _rounded(values: _Floats) -> _Floats:
    rounded: _Floats = values.astype(np.float16).astype(np.float64)
    return rounded


def _solve(system: System, first: _Floats, parameters: Sequence[float], times: NDArray[Any]) -> _Floats:
    """States at some times, [times, states]. Raises ConfigError."""
    from scipy.integrate import solve_ivp

    def unsolved(why: str) -> ConfigError:
        told = ", ".join(f"{value:g}" for value in parameters)
        problem = f"with parameters {told} it leaves what can be computed within {times[-1]:g}: {why}"
        return ConfigError(
            ("dataset.system", f"{problem}; lower dataset.variance, or dataset.span and dataset.ahead")
        )

    steps = itertools.count(1)

    def watched(time: float, x: _Floats) -> float:
        """Asked after each step: where states blow up, LSODA goes on in ever smaller ones."""
        if not np.abs(x).max() < _FARTHEST:
            raise unsolved(f"a state is beyond {_FARTHEST:g} at time {time:g}")
        if next(steps) > _MOST_STEPS * len(times):
            raise unsolved(f"at time {time:g} it has taken {_MOST_STEPS:,} steps for each state asked for")
        return 1.0

    found: Any = solve_ivp(
        lambda _, x: system.derivative(x, parameters),
        (times[0], times[-1]),
        first,
        method="LSODA",
        t_eval=times,
        rtol=_TOLERANCE,
        atol=_TOLERANCE,
        events=watched,
    )
    if not found.success:
        raise unsolved(found.message)
    states: _Floats = found.y.T
    return states


def _fields(states: _Floats, late: _Floats, spacing: float) -> dict[str, Tensor]:
    return {
        "states": torch.from_numpy(states).float().contiguous(),
        "late": torch.from_numpy(late).float().contiguous(),
        "spacing": torch.full((len(states),), spacing),
    }
