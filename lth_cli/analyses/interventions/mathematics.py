"""Scores that say which concepts to correct first, and what correcting them does (Shin et al. 2023, arXiv:2302.14260).

Where the paper and the authors' code differ, this follows the code: CCTP takes sum_j |W_ji| times the probability of
the concept, whatever the second half is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Answers:
    """What a network answers to N examples, before any correction.

    Attributes:
        logits: of K concepts, [N, K].
        concepts: true ones, of 0 and 1, [N, K].
        labels: int64 [N].
        weight: of the second half, [classes, K].
        bias: of it, [classes].
        of_probabilities: whether the second half takes probabilities of concepts, not logits.
    """

    logits: Tensor
    concepts: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor
    of_probabilities: bool

    @property
    def probabilities(self) -> Tensor:
        """Of the concepts, [N, K]."""
        return self.logits.sigmoid()

    @property
    def given(self) -> Tensor:
        """What the second half is given, [N, K]."""
        return self.probabilities if self.of_probabilities else self.logits

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """What stands for an absent and a present concept, [K] each: 0 and 1, or the 5th and 95th percentile of
        logits.
        """
        if self.of_probabilities:
            absent = torch.zeros_like(self.logits[0])
            return absent, absent + 1
        low, high = torch.quantile(self.logits, torch.tensor([0.05, 0.95], dtype=self.logits.dtype), dim=0)
        return low, high

    def classes(self, given: Tensor) -> Tensor:
        """Logits of classes, [..., classes], of what the second half is given, [..., K]."""
        return functional.linear(given, self.weight, self.bias)


def score(name: str, answers: Answers) -> Tensor:
    """How soon each concept of each example should be corrected, [N, K]; higher is sooner. `rand` is none of them."""
    return _SCORES[name](answers)


def _uncertainty(answers: Answers) -> Tensor:
    return 1 / (answers.probabilities - 0.5).square()


def _loss(answers: Answers) -> Tensor:
    return (answers.probabilities - answers.concepts).square()


def _contribution(answers: Answers) -> Tensor:
    return answers.weight.abs().sum(0) * answers.probabilities


def _expected_change(answers: Answers) -> Tensor:
    before = answers.classes(answers.given).log_softmax(1)

    def divergence(after: Tensor) -> Tensor:
        return (after.exp() * (after - before)).sum(1)

    return _expected(answers, divergence)


def _expected_certainty(answers: Answers) -> Tensor:
    before = _entropy(answers.classes(answers.given).log_softmax(1))
    return before[:, None] - _expected(answers, _entropy)


_SCORES: dict[str, Callable[[Answers], Tensor]] = {
    "ucp": _uncertainty,
    "lcp": _loss,
    "cctp": _contribution,
    "ectp": _expected_change,
    "eudtp": _expected_certainty,
}


def _entropy(logarithms: Tensor) -> Tensor:
    return -(logarithms.exp() * logarithms).sum(1)


def _expected(answers: Answers, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Of log probabilities of classes once a concept is known, as often as it is predicted absent and present, [N,
    K].
    """
    given, probabilities, ends = answers.given, answers.probabilities, answers.ends
    found = torch.empty_like(given)
    for concept in range(given.shape[1]):
        known = []
        for end in ends:
            told = given.clone()
            told[:, concept] = end[concept]
            known.append(of(answers.classes(told).log_softmax(1)))
        p = probabilities[:, concept]
        found[:, concept] = (1 - p) * known[0] + p * known[1]
    return found


def by_group(scores: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """The mean score of each group's concepts, [N, groups]."""
    return torch.stack([scores[:, list(group)].mean(1) for group in groups], 1)


def ranks(scores: Tensor, *, batch: bool) -> Tensor:
    """After how many corrections each is made, int64 [N, G]: the highest score of an example first.

    With `batch`, the highest of all examples first, N corrections at once.
    """
    count = len(scores)
    if not batch:
        return scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    flat = scores.flatten().argsort(dim=0, descending=True, stable=True).argsort(dim=0, stable=True)
    return (flat // count).view_as(scores)


def errors(
    answers: Answers,
    rank: Tensor,
    steps: int,
    read: Callable[[Tensor], Tensor] = lambda given: given[None],
    *,
    balanced: bool = False,
) -> list[float]:
    """The share of examples classified wrongly after 0 ... steps corrections.

    Args:
        answers: of the network.
        rank: of each concept, [N, K].
        steps: after which all are corrected.
        read: what the second half makes of it, [draws, N, K]; class logits are averaged over draws.
        balanced: the mean over the classes of their shares, as the authors' code for SkinCon.
    """
    low, high = answers.ends
    true = low + answers.concepts * (high - low)
    each = functional.one_hot(answers.labels).double()
    each = each[:, each.any(0)]
    found = []
    for count in range(steps + 1):
        given = torch.where(rank < count, true, answers.given)
        predicted = answers.classes(read(given)).mean(0).argmax(1)
        wrong = (predicted != answers.labels).double()
        found.append((wrong @ each / each.sum(0)).mean().item() if balanced else wrong.mean().item())
    return found
