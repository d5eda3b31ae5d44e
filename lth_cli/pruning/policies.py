"""Policies: masks that change within a training (sparse training), as pure functions of tensors and the step.

A policy draws the masks that a training starts with, says at which steps they change, and makes the new ones. The
training does the rest: it takes the gradients, keeps pruned weights at zero, clears optimizer state where a weight
grows, and stores the masks with every state.
"""

from __future__ import annotations

import abc
import inspect
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field

from lth_cli.config.errors import ConfigError
from lth_cli.config.pruning import SparseTraining
from lth_cli.config.steps import Duration
from lth_cli.config.targets import check_arguments, locate
from lth_cli.config.values import OpenFraction, PositiveSteps, Steps, exact
from lth_cli.pruning import mask as mask_room
from lth_cli.pruning.allocate import prune_global, prune_layerwise
from lth_cli.pruning.distribute import layer_counts
from lth_cli.pruning.mask import Masks, Tensors

_SUPPLIED = ("steps_per_epoch", "horizon")


class Change(NamedTuple):
    """New masks.

    Attributes:
        masks: True = kept.
        grown: True where a weight is kept that was not; it starts at zero, and so does its optimizer state.
        skip_update: whether the step changes the masks and nothing else.
    """

    masks: Masks
    grown: Masks
    skip_update: bool = False


class Policy(abc.ABC):
    """How masks change within a training. May take `steps_per_epoch` and `horizon` (steps in the training).

    Attributes:
        needs_gradients: whether `change` is given gradients, which cost a pass.
        draws: whether `change` depends on its seed.
    """

    needs_gradients: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def description(self) -> dict[str, Any]:
        """Plain values that decide every change, durations as numbers of steps: part of the identity."""

    @abc.abstractmethod
    def start(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Masks:
        """The masks of the first step, of the tensors that are pruned, in the order given."""

    @abc.abstractmethod
    def due(self, step: int) -> bool:
        """Whether masks change before the update that leads from `step` to `step + 1`."""

    def share(self, step: int) -> Fraction | None:
        """The share of the prunable weights that remains from a step on; None where their number never changes.

        Nothing but the count of multiply-adds asks for it.
        """
        return None

    @abc.abstractmethod
    def change(self, step: int, weights: Tensors, gradients: Tensors, masks: Masks, seed: int) -> Change:
        """The masks from this step on.

        Args:
            step: at which it is due.
            weights: masked, by name.
            gradients: of the loss of the step's batch, those of pruned weights too; empty where none are needed.
            masks: so far.
            seed: another one for each step.
        """


class Fixed(Policy):
    """Masks stay as they are."""

    description: ClassVar[dict[str, Any]] = {}

    def start(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Masks:
        """Everything."""
        return mask_room.everything(shapes)

    def due(self, step: int) -> bool:
        """Never."""
        return False

    def change(self, step: int, weights: Tensors, gradients: Tensors, masks: Masks, seed: int) -> Change:
        """Not asked for."""
        return Change(masks, {})


@dataclass(frozen=True)
class _Window:
    """Steps at which masks change: from `begin`, exclusive, to `end`."""

    begin: int
    end: int
    every: int

    @classmethod
    def of(
        cls, begin: Duration, end: Duration | None, every: Duration, steps_per_epoch: int, horizon: int
    ) -> _Window:
        """Three quarters of a training where no end is given. Raises ConfigError: outside of it."""
        first = begin.steps(steps_per_epoch)
        last = horizon * 3 // 4 if end is None else end.steps(steps_per_epoch)
        if not first < last < horizon:
            raise ConfigError(
                (
                    "sparse_training.end",
                    f"masks would change from step {first} to step {last}; the end must lie after the beginning "
                    f"and before that of the training, which has {horizon} steps",
                )
            )
        return cls(first, last, every.steps(steps_per_epoch))

    def turn(self, step: int) -> bool:
        """Whether a whole number of intervals has passed at a step inside."""
        return self.begin < step <= self.end and (step - self.begin) % self.every == 0

    def progress(self, step: int) -> Fraction:
        """From 0 at the beginning to 1 at the end."""
        passed = Fraction(step - self.begin, self.end - self.begin)
        return min(max(passed, Fraction(0)), Fraction(1))


class Gradual(Policy):
    """Gradual magnitude pruning (Zhu & Gupta 2017, arXiv:1710.01878): weights of least magnitude go, step by step.

    At progress p through its steps the sparsity is s = s_f (1 - (1 - p)^3): ceil((1 - s) n) of n weights remain.

    Args:
        density: share of the prunable weights that remains at the end.
        begin: step after which pruning begins.
        end: step of the last pruning; None is three quarters of the training.
        every: steps between two prunings; the last one is at `end` in any case.
        allocation: rank all weights together, or those of each layer.
    """

    needs_gradients = False
    draws = False

    def __init__(
        self,
        *,
        density: OpenFraction,
        begin: Steps = Duration(),  # noqa: B008 - immutable
        end: Steps | None = None,
        every: PositiveSteps = Duration(epochs=1),  # noqa: B008
        allocation: Literal["global", "layerwise"] = "global",
        steps_per_epoch: int,
        horizon: int,
    ) -> None:
        self._density, self._allocation = density, allocation
        self._window = _Window.of(begin, end, every, steps_per_epoch, horizon)

    @property
    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"density": self._density, "allocation": self._allocation, **asdict(self._window)}

    def start(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Masks:
        """Everything."""
        return mask_room.everything(shapes)

    def due(self, step: int) -> bool:
        """See `Policy`."""
        return self._window.turn(step) or step == self._window.end

    def share(self, step: int) -> Fraction:
        """The share of weights that remains from a step on."""
        sparsity = (1 - exact(self._density)) * (1 - (1 - self._window.progress(step)) ** 3)
        return 1 - sparsity

    def change(self, step: int, weights: Tensors, gradients: Tensors, masks: Masks, seed: int) -> Change:
        """See `Policy`."""
        scores = {name: weights[name].abs() for name in masks}
        share = self.share(step)

        def surplus(some: Masks) -> int:
            return max(mask_room.count(some) - math.ceil(share * mask_room.total(some)), 0)

        if self._allocation == "global":
            return Change(prune_global(scores, masks, surplus(masks)), {})
        counts = {name: surplus({name: mask}) for name, mask in masks.items()}
        return Change(prune_layerwise(scores, masks, counts), {})


class RigL(Policy):
    """RigL (Evci et al. 2020, arXiv:1911.11134): weights of least magnitude go, those of largest gradient come.

    Random masks at the start. At each change a share alpha / 2 (1 + cos(pi p)) of each layer's kept weights, rounded
    down, p being the progress through its steps, is dropped, and as many are grown where the dense gradient is largest,
    just dropped ones included: they keep their value, as in that paper's code, and all others start at zero. The step
    does nothing else.

    Args:
        density: share of the prunable weights that is kept.
        distribution: `erk` (Erdos-Renyi-kernel): densities of layers in proportion to sum(shape) / prod(shape), 1 at
            most; `uniform`: all alike, where the paper keeps the first layer dense.
        drop_fraction: alpha.
        begin: step after which masks change.
        end: step before which they change for the last time; None is three quarters of the training.
        every: steps between two changes.
    """

    draws = False

    def __init__(
        self,
        *,
        density: OpenFraction,
        distribution: Literal["erk", "uniform"] = "erk",
        drop_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3,
        begin: Steps = Duration(),  # noqa: B008
        end: Steps | None = None,
        every: PositiveSteps = Duration(iterations=100),  # noqa: B008
        steps_per_epoch: int,
        horizon: int,
    ) -> None:
        self._density, self._distribution, self._alpha = density, distribution, drop_fraction
        self._window = _Window.of(begin, end, every, steps_per_epoch, horizon)

    @property
    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        own = {"density": self._density, "distribution": self._distribution, "drop_fraction": self._alpha}
        return {**own, **asdict(self._window)}

    def start(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Masks:
        """Drawn uniformly within each layer; ceil(density x total) weights in all."""
        counts = layer_counts(shapes, self._density, self._distribution)
        first = {
            name: (torch.arange(math.prod(shape)) < counts[name]).view(shape)
            for name, shape in shapes.items()
        }
        return mask_room.shuffle_layerwise(first, seed)

    def due(self, step: int) -> bool:
        """See `Policy`; at the end nothing would be dropped any more."""
        return self._window.turn(step) and step < self._window.end

    def dropped(self, step: int, kept: int) -> int:
        """How many of a layer's weights change places at a step."""
        progress = float(self._window.progress(step))
        return int(self._alpha / 2 * (1 + math.cos(math.pi * progress)) * kept)

    def change(self, step: int, weights: Tensors, gradients: Tensors, masks: Masks, seed: int) -> Change:
        """See `Policy`."""
        counts = {name: self.dropped(step, kept) for name, kept in mask_room.layer_counts(masks).items()}
        stay = prune_layerwise({name: weights[name].abs() for name in masks}, masks, counts)
        free = {name: ~mask for name, mask in stay.items()}
        spared = {name: there - counts[name] for name, there in mask_room.layer_counts(free).items()}
        come = prune_layerwise({name: gradients[name].abs() for name in masks}, free, spared)
        new = {name: stay[name] | come[name] for name in masks}
        return Change(new, {name: new[name] & ~masks[name] for name in masks}, skip_update=True)


def make_policy(section: SparseTraining, *, steps_per_epoch: int, horizon: int) -> Policy | None:
    """The policy that a section names; None where masks stay as they are.

    Raises:
        ConfigError: no such class, wrong arguments, or steps outside the training.
    """
    target = locate(section.target, "sparse_training._target_")
    if not (inspect.isclass(target) and issubclass(target, Policy)):
        message = f"{section.target!r} is not a lth_cli.pruning.policies.Policy"
        raise ConfigError(("sparse_training._target_", message))
    arguments = check_arguments(target, section.arguments, "sparse_training", supplied=_SUPPLIED)
    if target is Fixed:
        return None
    accepted = inspect.signature(target).parameters
    supplied = {"steps_per_epoch": steps_per_epoch, "horizon": horizon}
    made: Policy = target(
        **arguments, **{name: given for name, given in supplied.items() if name in accepted}
    )
    return made
