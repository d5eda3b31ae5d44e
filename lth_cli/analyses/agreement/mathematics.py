"""How far networks that differ by chance alone agree, example by example (Cooper et al. 2022, arXiv:2206.11834)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True)
class Distribution:
    """Values over runs: mean, sample standard deviation, and quantiles (linear between order statistics)."""

    mean: float
    spread: float
    least: float
    quarter: float
    median: float
    three_quarters: float
    most: float


def distribution(values: Sequence[float]) -> Distribution:
    """The distribution of some values.

    Raises:
        ValueError: fewer than two.
    """
    if len(values) < 2:
        raise ValueError("a distribution takes two values at least")
    marks = torch.quantile(
        torch.tensor(values, dtype=torch.float64),
        torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64),
    ).tolist()
    return Distribution(statistics.fmean(values), statistics.stdev(values), *marks)


@dataclass(frozen=True, eq=False)
class Agreement:
    """What B networks predict for N examples.

    Attributes:
        correct: share of the networks that are right, [N].
        modal: share of the networks that predict the most frequent class, [N].
        entropy: of the predictions, - sum_c (n_c / B) ln(n_c / B) in nats: 0 where all agree, at most ln of
            the smaller of B and the number of classes, [N].
        disagreement: probability that two of the networks differ, d(x) = 1 - sum_c n_c (n_c - 1) / (B (B - 1)), [N].
        accuracies: of each network, [B].
        class_accuracies: by network and true class, [B, classes]; NaN for a class without examples.
        churn: share of examples that two networks classify differently, by their positions.
    """

    correct: Tensor
    modal: Tensor
    entropy: Tensor
    disagreement: Tensor
    accuracies: Tensor
    class_accuracies: Tensor
    churn: dict[tuple[int, int], float]

    @property
    def ambiguous(self) -> float:
        """Share of examples on which not all networks agree, d(x) > 0."""
        return float((self.disagreement > 0).double().mean())


def agreement(predictions: Tensor, labels: Tensor, classes: int) -> Agreement:
    """Compare networks.

    Args:
        predictions: classes, int64 [B, N].
        labels: true classes, int64 [N].
        classes: how many there are.

    Raises:
        ValueError: fewer than two networks.
    """
    networks, examples = predictions.shape
    if networks < 2:
        raise ValueError("agreement takes two networks at least")
    votes = torch.zeros(classes, examples, dtype=torch.float64)
    votes.scatter_add_(0, predictions, torch.ones_like(predictions, dtype=torch.float64))
    pairs = (votes * (votes - 1)).sum(0) / (networks * (networks - 1))
    right = (predictions == labels).double()
    members = torch.nn.functional.one_hot(labels, classes).double()
    churn = {
        (first, second): float((predictions[first] != predictions[second]).double().mean())
        for first, second in combinations(range(networks), 2)
    }
    return Agreement(
        correct=right.mean(0),
        modal=votes.max(0).values / networks,
        entropy=torch.special.entr(votes / networks).sum(0),
        disagreement=1.0 - pairs,
        accuracies=right.mean(1),
        class_accuracies=(right @ members) / members.sum(0),
        churn=churn,
    )
