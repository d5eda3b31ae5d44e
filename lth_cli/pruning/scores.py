"""Scores: how much each weight deserves to stay. Higher is kept longer.

A score is a function `(weights, masks, *, seed) -> scores` of tensors by name, alike in names, shapes and
devices. Pruned weights arrive as 0.0 and what is returned for them is ignored. The seed is fresh each round.
One with a keyword `probe` may ask the training for gradients and more (`probe.Probe`); its other keywords are keys of
`pruning.arguments`. Every such function in this module can be named in `pruning.score` as it is; any other by its
import path.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Protocol, TypeAlias, TypeVar, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.config.targets import check_arguments, first_two, locate
from lth_cli.pruning.mask import Masks, Tensors, total
from lth_cli.pruning.probe import Batch, Loss, Mode, Probe

Batches: TypeAlias = PositiveInt | Literal["all"]
Labels: TypeAlias = Literal["true", "predictions", "softmax", "uniform"]
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Score(Protocol):
    """What `pruning.score` names."""

    def __call__(self, weights: Tensors, masks: Masks, *, seed: int) -> Tensors:
        """Real numbers, alike to `weights` in names, shapes and devices."""


def needs_classes(
    when: Callable[[Mapping[str, Any]], bool] = lambda arguments: True,
) -> Callable[[_Function], _Function]:
    """Mark a score as one of classification alone: with the arguments of which `when` is true."""

    def mark(score: _Function) -> _Function:
        score.needs_classes = when  # type: ignore[attr-defined]
        return score

    return mark


def magnitude(weights: Tensors, masks: Masks, *, seed: int) -> Tensors:
    """|w|, not normalised between layers (Frankle & Carbin 2019, arXiv:1803.03635)."""
    return {name: weight.abs() for name, weight in weights.items()}


def random(weights: Tensors, masks: Masks, *, seed: int) -> Tensors:
    """A rank drawn uniformly without ties over all weights: random pruning."""
    source = torch.Generator().manual_seed(derive_seed(seed, "random_score"))
    ranks = torch.randperm(total(masks), generator=source)
    pieces = torch.split(ranks, [weight.numel() for weight in weights.values()])
    return {
        name: piece.view(weight.shape).to(weight.device)
        for (name, weight), piece in zip(weights.items(), pieces, strict=True)
    }


def saliency(weights: Tensors, masks: Masks, *, seed: int, probe: Probe, mode: Mode = "training") -> Tensors:
    """|w g|, g the gradient of the loss of one batch: how much the loss changes when w goes, to first order.

    As `saliency` of JaxPruner (Lee et al. 2023, arXiv:2304.14082). `snip` of one batch is the same number.
    """
    slopes = probe.gradients(weights, probe.batches(1), mode=mode)
    return {name: (weight * slopes[name]).abs() for name, weight in weights.items()}


@needs_classes(lambda arguments: arguments.get("labels", "true") != "true")
def snip(
    weights: Tensors,
    masks: Masks,
    *,
    seed: int,
    probe: Probe,
    batches: Batches = 1,
    labels: Labels = "true",
    mode: Mode = "training",
) -> Tensors:
    """Connection sensitivity |w g| (Lee et al. 2019, arXiv:1810.02340), not divided by its sum, which orders alike.

    Args:
        weights, masks, seed, probe: as of every score.
        batches: of so many batches, or of all; gradients are averaged with their signs, then |w g| is taken, as in the
            code of Lee et al. 2020 (arXiv:1906.06307).
        labels: in the place of the true ones in the cross-entropy of classification (the same paper, unsupervised
            pruning): the logits, their softmax, or the same share for each class.
        mode: of batch norm and dropout.
    """
    slopes = probe.gradients(weights, probe.batches(batches), loss=_UNSUPERVISED.get(labels), mode=mode)
    return {name: (weight * slopes[name]).abs() for name, weight in weights.items()}


def gradient_times_weight(
    weights: Tensors,
    masks: Masks,
    *,
    seed: int,
    probe: Probe,
    batches: Batches = "all",
    mode: Mode = "training",
) -> Tensors:
    """The sum over batches of |w g|, absolute values first: signs of different batches do not cancel, as in `snip`.

    What Frankle et al. 2021 (arXiv:2009.08576) run as SNIP.
    """
    return _accumulated(weights, probe, batches, mode, torch.abs)


def fisher(
    weights: Tensors,
    masks: Masks,
    *,
    seed: int,
    probe: Probe,
    batches: Batches = "all",
    mode: Mode = "training",
) -> Tensors:
    """The sum over batches of (w g)^2, g the gradient of a batch: the empirical Fisher information times w^2.

    The first-order criterion of Molchanov et al. 2019 (arXiv:1906.10771), for single weights. Fisher pruning (Theis et
    al. 2018, arXiv:1801.05787) takes g of single examples, as `training.batch_size=1` does.
    """
    return _accumulated(weights, probe, batches, mode, torch.square)


@needs_classes()
def grasp(
    weights: Tensors,
    masks: Masks,
    *,
    seed: int,
    probe: Probe,
    temperature: Annotated[float, Field(gt=0.0)] = 200.0,
    examples: PositiveInt = 10,
    mode: Mode = "training",
) -> Tensors:
    """w (H g): half of what the squared norm of the gradient loses when w goes (Wang et al. 2020, arXiv:2002.07376).

    The paper's score is -w (H g), of which the largest goes: here that is the lowest. g is zero at pruned weights,
    which will not move.

    Args:
        weights, masks, seed, probe: as of every score.
        temperature: what logits are divided by.
        examples: of each class.
        mode: of batch norm and dropout.
    """
    sample = list(probe.balanced(examples))
    slopes = probe.gradients(weights, sample, temperature=temperature, mode=mode)
    flow = {name: slope * masks[name] for name, slope in slopes.items()}
    bends = probe.product(weights, sample, flow, temperature=temperature, mode=mode)
    return {name: weight * bends[name] for name, weight in weights.items()}


def synflow(weights: Tensors, masks: Masks, *, seed: int, probe: Probe) -> Tensors:
    """|w dR/dw| of R, the sum of the outputs to an input of ones of the network with absolute parameters; no data.

    Tanaka et al. 2020 (arXiv:2006.05467, algorithm 1), whose 100 repetitions are `pruning.iterations`. As in their
    code, statistics of batch norm are the stored ones, absolute too. In float64: products over many layers leave the
    range of float32.
    """
    positive = {name: weight.abs() for name, weight in weights.items()}
    slopes = probe.response(positive, torch.sum, others=torch.abs)
    return {name: (weight * slopes[name]).abs() for name, weight in positive.items()}


def _accumulated(
    weights: Tensors, probe: Probe, batches: Batches, mode: Mode, of: Callable[[Tensor], Tensor]
) -> Tensors:
    """The sum over batches, each counted once, of a function of w g."""
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in probe.batches(batches):
        for name, slope in probe.gradients(weights, [batch], mode=mode).items():
            sums[name] += of(weights[name] * slope)
    return sums


def _with_own_answers(logits: Tensor, batch: Batch) -> Tensor:
    return -(logits * functional.log_softmax(logits, 1)).sum(1).mean()


def _with_softmax(logits: Tensor, batch: Batch) -> Tensor:
    return -(functional.softmax(logits, 1) * functional.log_softmax(logits, 1)).sum(1).mean()


def _with_uniform(logits: Tensor, batch: Batch) -> Tensor:
    return -functional.log_softmax(logits, 1).mean()


# Cross-entropy with labels that the network gives itself; they are differentiated too, since otherwise the gradient of
# the one with its own softmax would be zero everywhere.
_UNSUPERVISED: dict[str, Loss] = {
    "predictions": _with_own_answers,
    "softmax": _with_softmax,
    "uniform": _with_uniform,
}


def check_score(config: schema.Pruning, classes: int | None) -> None:
    """Check score and arguments against each other and the training.

    Args:
        config: names both.
        classes: that the outputs are logits of; None for any other objective.

    Raises:
        ConfigError: when `config.score` names no score, arguments are not its own, or it needs classes.
    """
    found = locate_score(config.score)
    arguments = _checked(found, config)
    needed = getattr(found, "needs_classes", None)
    if classes is None and needed is not None and needed(arguments):
        given = "".join(f" with {key}={value}" for key, value in arguments.items() if key == "labels")
        message = f"{config.score}{given} is of classes, and this objective and data set have none"
        raise ConfigError(("pruning.score", f"{message}; scores of any training: magnitude, snip, synflow"))


def make_score(config: schema.Pruning, probe: Probe | None) -> Score:
    """The score of a config with its arguments and, where it asks for that, the probe. Raises ConfigError."""
    found = locate_score(config.score)
    arguments = _checked(found, config)
    if "probe" in inspect.signature(found).parameters:
        arguments["probe"] = probe
    return functools.partial(found, **arguments)


def _checked(score: Score, config: schema.Pruning) -> dict[str, Any]:
    supplied = (*first_two(score), "seed", "probe")
    return check_arguments(score, config.arguments, "pruning.arguments", supplied)


def locate_score(name: str) -> Score:
    """The score that `pruning.score` names.

    Args:
        name: a score of this module, such as `magnitude`, or an import path, such as `mylab.scores.snip`.

    Raises:
        ConfigError: when there is no such score, or it does not take `(weights, masks, *, seed)`.
    """
    short = {n: f for n, f in vars(sys.modules[__name__]).items() if _is_score(f)}
    if name in short:
        return cast(Score, short[name])
    accepted = f"accepted: {', '.join(short)}, or an import path such as mylab.scores.snip"
    if "." not in name:
        raise ConfigError(("pruning.score", f"no score {name!r}; {accepted}"))
    found = locate(name, "pruning.score")
    try:
        # Partial: a keyword without a default may be a key of `pruning.arguments`.
        inspect.signature(found).bind_partial({}, {}, seed=0)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            ("pruning.score", f"{name!r} is no score: it must take (weights, masks, *, seed); {accepted}")
        ) from error
    return cast(Score, found)


def _is_score(value: Any) -> bool:
    """Whether a value of this module is a score function written here."""
    return (
        inspect.isfunction(value)
        and value.__module__ == __name__
        and list(inspect.signature(value).parameters)[:3] == ["weights", "masks", "seed"]
    )
