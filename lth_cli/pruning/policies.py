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
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.patterns import Pattern, parse_pattern
from lth_cli.config.pruning import SparseTraining
from lth_cli.config.steps import Duration
from lth_cli.config.targets import check_arguments, locate
from lth_cli.config.values import OpenFraction, PositiveSteps, Steps, exact
from lth_cli.pruning import mask as mask_room
from lth_cli.pruning.allocate import prune_layerwise
from lth_cli.pruning.distribute import Distribution, distribute, layer_counts
from lth_cli.pruning.mask import Masks, Tensors
from lth_cli.pruning.patterns import check_density, check_pattern, prune_together

_SUPPLIED = ("steps_per_epoch", "horizon")
_PATTERN = "sparse_training.pattern"
_DENSITY = "sparse_training.density"

Allocation: TypeAlias = Literal["global", "layerwise", "uniform", "erk"]
Densities: TypeAlias = dict[str, Annotated[float, Field(gt=0.0, le=1.0)]]


class Change(NamedTuple):
    """New masks.

    Attributes:
        masks: True = kept.
        skip_update: whether the step changes the masks and nothing else.
    """

    masks: Masks
    skip_update: bool = False


class Policy(abc.ABC):
    """How masks change within a training. May take `steps_per_epoch` and `horizon` (steps in the training).

    Attributes:
        needs_gradients: whether `change` is given gradients, which cost a pass.
        draws: whether `change` depends on its seed.
        straight_through: whether the optimizer steps on values of all weights, pruned ones too, by the gradient at the
            masked weights; masks are then made of those values after every step, whatever `due` says.
    """

    needs_gradients: ClassVar[bool] = True
    draws: ClassVar[bool] = True
    straight_through: ClassVar[bool] = False

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
        return Change(masks)


@dataclass(frozen=True)
class Window:
    """Steps at which masks change: from `begin`, exclusive, to `end`."""

    begin: int
    end: int
    every: int

    @classmethod
    def of(
        cls,
        begin: Duration,
        end: Duration | None,
        every: Duration,
        steps_per_epoch: int,
        horizon: int,
        *,
        once: bool = False,
    ) -> Window:
        """Three quarters of a training where no end is given; with `once`, the end may be the beginning.

        Raises:
            ConfigError: outside of the training.
        """
        first = begin.steps(steps_per_epoch)
        last = horizon * 3 // 4 if end is None else end.steps(steps_per_epoch)
        if not (first < last or (once and first == last)) or last >= horizon:
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
        """From 0 at the beginning to 1 at the end, which is 1 where both are one step."""
        if self.begin == self.end:
            return Fraction(step >= self.end)
        passed = Fraction(step - self.begin, self.end - self.begin)
        return min(max(passed, Fraction(0)), Fraction(1))


def prune_to(
    scores: Tensors, masks: Masks, share: Fraction, allocation: Allocation, pattern: Pattern | None
) -> Masks:
    """Prune until ceil(share x total) weights remain, those of least score going first.

    Args:
        scores: higher is kept.
        masks: what remains.
        share: of all weights with a mask.
        allocation: rank all weights together (`global`), or those of each layer: to the same share (`layerwise`), to
            densities of `distribute` (`uniform`, `erk`).
        pattern: of what goes together; whole blocks may leave some more, and N:M has a density of its own.
    """

    def surplus(some: Masks) -> int:
        return max(mask_room.count(some) - math.ceil(share * mask_room.total(some)), 0)

    if allocation == "global":
        return prune_together(scores, masks, surplus(masks), pattern)
    if allocation == "layerwise":
        counts = {name: surplus({name: mask}) for name, mask in masks.items()}
    else:
        shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
        room = mask_room.layer_counts(masks)
        kept = distribute(shapes, math.ceil(share * mask_room.total(masks)), allocation, room)
        counts = {name: room[name] - kept[name] for name in masks}
    pruned: Masks = {}
    for name, mask in masks.items():
        pruned |= prune_together(scores, {name: mask}, counts[name], pattern)
    return pruned


class Cubic(Policy):
    """A share of weights that falls to a density within some steps, and which weights are ranked together.

    At progress p the sparsity is s = s_f (1 - (1 - p)^3) (Zhu & Gupta 2017, arXiv:1710.01878).
    """

    def __init__(
        self, density: float, window: Window, allocation: Allocation, pattern: str, own: dict[str, Any]
    ) -> None:
        self._density, self._allocation, self._window, self._own = density, allocation, window, own
        self._text = pattern
        try:
            self._pattern = parse_pattern(pattern)
        except ValueError as error:
            raise ConfigError((_PATTERN, str(error))) from None
        if self._pattern is not None:
            self._check(self._pattern)

    def _check(self, pattern: Pattern) -> None:
        """Raises ConfigError: a pattern that does not go with the other settings."""
        if pattern.kind == "channel":
            # A bias and the parameters of a norm would go with it, which have no mask within a training.
            raise ConfigError((_PATTERN, "channel is for lth prune alone"))
        if pattern.kind == "fan_in" and self._allocation == "global":
            raise ConfigError((_PATTERN, "fan_in needs sparse_training.allocation=layerwise, uniform or erk"))
        if pattern.kind == "n_of_m":
            share = Fraction(pattern.first, pattern.second)
            if exact(self._density) != share or self._window.begin != self._window.end:
                message = (
                    f"{self._text} comes at once and is a density; write sparse_training.density={float(share)}, and "
                    "the same step for sparse_training.begin and end"
                )
                raise ConfigError((_PATTERN, message))

    @property
    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        together = {} if self._pattern is None else {"pattern": self._text}
        named = {"density": self._density, "allocation": self._allocation, **together, **self._own}
        return {**named, **asdict(self._window)}

    def start(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Masks:
        """Everything. Raises ConfigError: the pattern does not fit, or leaves more than the density."""
        if self._pattern is not None:
            check_pattern(self._pattern, shapes, _PATTERN)
        check_density(self._density, shapes, self._pattern, _DENSITY)
        return mask_room.everything(shapes)

    def share(self, step: int) -> Fraction:
        """The share of weights that remains from a step on."""
        sparsity = (1 - exact(self._density)) * (1 - (1 - self._window.progress(step)) ** 3)
        return 1 - sparsity

    def left(self, step: int, scores: Tensors, masks: Masks) -> Masks:
        """What remains of some masks from a step on."""
        # Half of the weights of N:M would go at a share of 1, too.
        pattern = self._pattern if self._window.progress(step) else None
        return prune_to(scores, masks, self.share(step), self._allocation, pattern)


class Gradual(Cubic):
    """Gradual magnitude pruning (Zhu & Gupta 2017, arXiv:1710.01878): weights of least magnitude go, step by step.

    At progress p through its steps the sparsity is s = s_f (1 - (1 - p)^3): ceil((1 - s) n) of n weights remain.

    Args:
        density: share of the prunable weights that remains at the end.
        begin: step after which pruning begins.
        end: step of the last pruning; None is three quarters of the training. That of `begin` prunes once.
        every: steps between two prunings; the last one is at `end` in any case.
        allocation: rank all weights together, or those of each layer: see `prune_to`.
        pattern: what goes together, as `pruning.pattern` but for channels; N:M at once.
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
        allocation: Allocation = "global",
        pattern: str = "unstructured",
        steps_per_epoch: int,
        horizon: int,
    ) -> None:
        window = Window.of(begin, end, every, steps_per_epoch, horizon, once=True)
        super().__init__(density, window, allocation, pattern, {})

    def due(self, step: int) -> bool:
        """See `Policy`."""
        return self._window.turn(step) or step == self._window.end

    def change(self, step: int, weights: Tensors, gradients: Tensors, masks: Masks, seed: int) -> Change:
        """See `Policy`."""
        return Change(self.left(step, {name: weights[name].abs() for name in masks}, masks))


class Static(Policy):
    """Random masks that stay as they are.

    Args:
        density: share of the prunable weights that is kept.
        distribution: `erk` (Erdos-Renyi-kernel; Evci et al. 2020, arXiv:1911.11134): densities of layers in proportion
            to sum(shape) / prod(shape), 1 at most; `uniform`: all alike.
        layer_densities: densities of tensors by name pattern, the first that matches; `density` is of the others.
    """

    needs_gradients = False
    draws = False

    def __init__(
        self,
        *,
        density: OpenFraction,
        distribution: Distribution = "erk",
        layer_densities: Densities | None = None,
    ) -> None:
        self._density, self._distribution, self._own = density, distribution, layer_densities or {}

    @property
    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        own = {"layer_densities": self._own} if self._own else {}
        return {"density": self._density, "distribution": self._distribution, **own}

    def start(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Masks:
        """Drawn uniformly within each layer; ceil(density x total) of the weights without a density of their own.

        Raises:
            ConfigError: a pattern of `layer_densities` that matches nothing, or a density below one weight.
        """
        for pattern in self._own:
            if not any(fnmatchcase(name, pattern) for name in shapes):
                message = f"{pattern!r} matches no tensor that is pruned; there are: {', '.join(shapes)}"
                raise ConfigError(("sparse_training.layer_densities", message))
        apart = {
            name: next(density for pattern, density in self._own.items() if fnmatchcase(name, pattern))
            for name in shapes
            if any(fnmatchcase(name, pattern) for pattern in self._own)
        }
        others = {name: shape for name, shape in shapes.items() if name not in apart}
        check_density(self._density, others, None, _DENSITY)
        counts = layer_counts(others, self._density, self._distribution)
        counts |= {
            name: math.ceil(exact(density) * math.prod(shapes[name])) for name, density in apart.items()
        }
        first = {
            name: (torch.arange(math.prod(shape)) < counts[name]).view(shape)
            for name, shape in shapes.items()
        }
        return mask_room.shuffle_layerwise(first, seed)

    def due(self, step: int) -> bool:
        """Never."""
        return False

    def change(self, step: int, weights: Tensors, gradients: Tensors, masks: Masks, seed: int) -> Change:
        """Not asked for."""
        return Change(masks)


DropSchedule: TypeAlias = Literal["cosine", "constant", "linear", "cubic"]


class _Rewired(Static):
    """Random masks at the start; at each change weights of least magnitude go, and as many others come.

    At progress p through its steps a share of each layer's kept weights is dropped, rounded down: alpha / 2
    (1 + cos(pi p)) (`cosine`), alpha (`constant`), alpha (1 - p) (`linear`) or alpha (1 - p)^3 (`cubic`); the code of
    Evci et al. 2020 (arXiv:1911.11134) has these, the last two as `exponential` with that exponent. As many are grown
    among all that are not kept then, just dropped ones included: they keep their value, as in that code, and all others
    start at zero.

    Args:
        density: share of the prunable weights that is kept.
        distribution: `erk` (Erdos-Renyi-kernel): densities of layers in proportion to sum(shape) / prod(shape), 1 at
            most; `uniform`: all alike, where the paper keeps the first layer dense.
        layer_densities: see `Static`.
        drop_fraction: alpha.
        drop_schedule: how it falls.
        begin: step after which masks change.
        end: step at which they change for the last time, if anything is dropped there; None is three quarters of the
            training.
        every: steps between two changes.
    """

    def __init__(
        self,
        *,
        density: OpenFraction,
        distribution: Distribution = "erk",
        layer_densities: Densities | None = None,
        drop_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3,
        drop_schedule: DropSchedule = "cosine",
        begin: Steps = Duration(),  # noqa: B008
        end: Steps | None = None,
        every: PositiveSteps = Duration(iterations=100),  # noqa: B008
        steps_per_epoch: int,
        horizon: int,
    ) -> None:
        super().__init__(density=density, distribution=distribution, layer_densities=layer_densities)
        self._alpha, self._drop_schedule = drop_fraction, drop_schedule
        self._window = Window.of(begin, end, every, steps_per_epoch, horizon)

    @property
    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        falls = {} if self._drop_schedule == "cosine" else {"drop_schedule": self._drop_schedule}
        return {**super().description, "drop_fraction": self._alpha, **falls, **asdict(self._window)}

    def due(self, step: int) -> bool:
        """See `Policy`."""
        return self._window.turn(step) and self._share(step) > 0

    def _share(self, step: int) -> float:
        progress = float(self._window.progress(step))
        if self._drop_schedule == "cosine":
            return self._alpha / 2 * (1 + math.cos(math.pi * progress))
        power = {"constant": 0, "linear": 1, "cubic": 3}[self._drop_schedule]
        return float(self._alpha * (1 - progress) ** power)

    def dropped(self, step: int, kept: int) -> int:
        """How many of a layer's weights change places at a step."""
        return int(self._share(step) * kept)

    @abc.abstractmethod
    def growth(self, gradients: Tensors, masks: Masks, seed: int) -> Tensors:
        """Scores of all weights; those of the highest that are free come."""

    def change(self, step: int, weights: Tensors, gradients: Tensors, masks: Masks, seed: int) -> Change:
        """See `Policy`."""
        counts = {name: self.dropped(step, kept) for name, kept in mask_room.layer_counts(masks).items()}
        stay = prune_layerwise({name: weights[name].abs() for name in masks}, masks, counts)
        free = {name: ~mask for name, mask in stay.items()}
        spared = {name: there - counts[name] for name, there in mask_room.layer_counts(free).items()}
        come = prune_layerwise(self.growth(gradients, masks, seed), free, spared)
        new = {name: stay[name] | come[name] for name in masks}
        return Change(new, skip_update=self.needs_gradients)


class SET(_Rewired):
    """Sparse evolutionary training (Mocanu et al. 2018, arXiv:1707.04780): what comes is drawn at random.

    The paper drops a share of the positive and of the negative weights, those closest to zero, after every epoch; here,
    as in Evci et al. 2020 (arXiv:1911.11134), a share of all goes by magnitude. The update of the step follows. The
    arguments are those of `_Rewired`.
    """

    draws = True

    def growth(self, gradients: Tensors, masks: Masks, seed: int) -> Tensors:
        """An order drawn anew."""
        return random_order(masks, seed)


class RigL(_Rewired):
    """RigL (Evci et al. 2020, arXiv:1911.11134): weights of least magnitude go, those of largest gradient come.

    What comes has the largest dense gradients of the step's batch. The step does nothing else. The arguments are those
    of `_Rewired`.
    """

    needs_gradients = True

    def growth(self, gradients: Tensors, masks: Masks, seed: int) -> Tensors:
        """By the dense gradient."""
        return {name: gradients[name].abs() for name in masks}


def random_order(masks: Masks, seed: int) -> Tensors:
    """Ranks of all weights of all layers, int64, drawn uniformly; no two are alike."""
    source = torch.Generator().manual_seed(seed)
    sizes = [mask.numel() for mask in masks.values()]
    pieces: tuple[Tensor, ...] = torch.split(torch.randperm(sum(sizes), generator=source), sizes)
    return {
        name: piece.view(mask.shape).to(mask.device)
        for (name, mask), piece in zip(masks.items(), pieces, strict=True)
    }


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
