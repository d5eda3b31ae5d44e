"""Scores of single examples: what a network finds easy and hard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from lth_cli.data.batches import Batch, labelled
from lth_cli.pruning.mask import Masks


@dataclass(frozen=True, eq=False)
class PerExample:
    """What one network says to N examples; all on the CPU.

    Attributes:
        loss: cross-entropy, float64 [N].
        margin: score of the true class less the largest of the others, float64 [N]; positive where right.
        el2n: L2 norm of softmax less one-hot label, float64 [N] (Paul et al. 2021, arXiv:2107.07075, section 2.2).
        prediction: int64 [N].
        correct: bool [N].
    """

    loss: Tensor
    margin: Tensor
    el2n: Tensor
    prediction: Tensor
    correct: Tensor


def per_example(scores: Tensor, labels: Tensor) -> PerExample:
    """Measure class scores [N, classes] against labels [N]."""
    scores, labels = scores.detach().cpu().double(), labels.cpu()
    truth = functional.one_hot(labels, scores.shape[1]).double()
    own = scores.gather(1, labels[:, None]).squeeze(1)
    others = scores.masked_fill(truth.bool(), -torch.inf).max(1).values
    predicted = scores.argmax(1)
    return PerExample(
        loss=functional.cross_entropy(scores, labels, reduction="none"),
        margin=own - others,
        el2n=(scores.softmax(1) - truth).norm(dim=1),
        prediction=predicted,
        correct=predicted == labels,
    )


def grand(model: nn.Module, batches: Iterable[Batch], masks: Masks, chunk: int) -> Tensor:
    """GraNd: the L2 norm of each example's gradient of the cross-entropy (Paul et al. 2021, equation 1), float64 [N].

    By all parameters, but for weights that the masks prune. In inference mode, so that an example's gradient does not
    depend on the batch it is in; without augmentation.

    Args:
        model: on the device of the batches.
        batches: the examples.
        masks: True = kept, by parameter name; empty for a dense network.
        chunk: examples whose gradients are held at a time.
    """
    model.eval()
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    buffers = dict(model.named_buffers())
    kept = {name: mask.to(weights[name].device) for name, mask in masks.items()}

    def loss(live: dict[str, Tensor], inputs: Tensor, label: Tensor) -> Tensor:
        scores = functional_call(model, (live, buffers), (inputs[None],))
        return functional.cross_entropy(scores, label[None])

    def squared_norm(inputs: Tensor, label: Tensor) -> Tensor:
        slopes = grad(loss)(weights, inputs, label)
        parts = [
            (slope * kept[name] if name in kept else slope).square().sum() for name, slope in slopes.items()
        ]
        return torch.stack(parts).sum()

    norms = [
        vmap(squared_norm, chunk_size=chunk)(inputs, labels).sqrt() for inputs, labels in labelled(batches)
    ]
    return torch.cat(norms).cpu().double()


def forgetting(correct: Sequence[Tensor]) -> Tensor:
    """How often each example went from right to wrong (Toneva et al. 2019, arXiv:1812.05159), int64 [N].

    An example that was never right counts as forgotten more often than any other can be: at every state.

    Args:
        correct: bool [N] at each of some states of one training, in order.

    Raises:
        ValueError: fewer than two states.
    """
    if len(correct) < 2:
        raise ValueError("forgetting takes two states of a training at least")
    history = torch.stack(list(correct))
    events = (history[:-1] & ~history[1:]).sum(0)
    return torch.where(history.any(0), events, len(correct))


def first_learned(correct: Sequence[Tensor]) -> Tensor:
    """The position of the first state at which each example is right; -1 where none is, int64 [N]."""
    history = torch.stack(list(correct))
    return torch.where(history.any(0), history.int().argmax(0), -1)


def barrier(middle: Tensor, ends: Sequence[Tensor]) -> Tensor:
    """Loss at the midpoint of two states less the mean of theirs, by example [N] (Paul et al. 2022, 2206.01278)."""
    return middle - torch.stack(list(ends)).mean(0)


def by_difficulty(difficulty: Tensor, losses: Sequence[Tensor], groups: int) -> list[dict[str, float]]:
    """Mean losses of two states over groups of examples, from easy to hard (Jin et al. 2022, arXiv:2210.13738).

    Args:
        difficulty: of each example [N]; among equals the position decides.
        losses: at two states, float64 [N] each.
        groups: as nearly of one size as N allows; at most N.

    Returns:
        Of each group its number from 1 on, how many examples it has, their mean difficulty, both mean losses, and the
        change from the first to the second in per cent of the first (Jin et al. report this), NaN where that is 0.
    """
    rows = []
    for number, part in enumerate(difficulty.argsort(stable=True).tensor_split(groups), start=1):
        first, second = (float(loss[part].mean()) for loss in losses)
        rows.append(
            {
                "group": number,
                "examples": len(part),
                "el2n": float(difficulty[part].mean()),
                "loss": first,
                "loss_compared": second,
                "change_percent": 100 * (second - first) / first if first else float("nan"),
            }
        )
    return rows
