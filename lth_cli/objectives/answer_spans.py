"""Answers that are spans of a text: cross-entropy of their ends, F1 and exact match as SQuAD counts them."""

from __future__ import annotations

import copy
import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from lth_cli.config.metrics import Metric
from lth_cli.config.spec import Interface, Spec
from lth_cli.objectives.objective import Batch, Loss, Objective, mean_of, require
from lth_cli.objectives.text import SIZES, shown, text_interface

_FIELDS = {
    **{"tokens": "int64", "spans": "int32", "question": "int32"},
    **{"text": "uint8", "offsets": "int32", "answers": "uint8"},
}
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_END = b"\xff"  # after each answer


class AnswerSpans(Objective):
    """Mean of the cross-entropies of the first and the last token; outputs [B, L, 2] are logits of both.

    An example is a window of a text. The best span of a question is that of the highest sum of both logits in any of
    its windows, among the `n_best` highest of each and `max_answer` tokens long at most, as in `run_qa.py` of
    transformers. Its words are compared with the answers as by SQuAD's evaluation (Rajpurkar et al. 2016): F1 of words
    and exact match, without case, punctuation and articles, the best over the answers, mean over the questions. Where
    questions may have no answer (SQuAD 2.0), none is given if the begin token's sum, the lowest over the windows,
    is above that of the best span by more than `threshold`.

    Args:
        n_best: of the first tokens, and of the last ones, that are looked at in a window.
        max_answer: tokens of an answer.
        threshold: see above.
        loss: a person's own, (outputs, batch) -> mean over the batch; evaluation reports the cross-entropy anyway.
    """

    metrics = (Metric("f1", "higher", "%"), Metric("exact_match", "higher", "%"))

    def __init__(
        self,
        *,
        n_best: PositiveInt = 20,
        max_answer: PositiveInt = 30,
        threshold: float = 0.0,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(loss=loss)
        self._n_best, self._max_answer, self._threshold = n_best, max_answer, threshold
        self._unanswered = False

    def interface(self, spec: Spec) -> Interface:
        """Tokens in, two logits of each out."""
        require(spec, "answer_spans", _FIELDS, (*SIZES, "unanswered"))
        return text_interface(spec, (*spec.shapes["tokens"], 2), {"span_ends": 2})

    def settled(self, spec: Spec, *, steps_per_epoch: int, horizon: int) -> Objective:
        """Knowing whether questions may have no answer."""
        require(spec, "answer_spans", _FIELDS, (*SIZES, "unanswered"))
        settled = copy.copy(self)
        settled._unanswered = bool(spec.sizes["unanswered"])
        return settled

    def given(self, batch: Batch) -> Tensor:
        """Tokens, and segments where there are such."""
        return shown(batch)

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy (natural logarithm) of both ends."""
        # The classes are the second axis: [B, L, 2] with [B, 2].
        return functional.cross_entropy(outputs, batch["spans"].long())

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sum of the mean cross-entropy of both ends, and a row for each window: the number of its question, the
        scores of its best span and of none, exact match and F1 of the span's words, exact match of no words.
        """
        total = functional.cross_entropy(outputs, batch["spans"].long(), reduction="sum")
        best, first, last = best_spans(outputs, batch["offsets"][..., 0] >= 0, self._n_best, self._max_answer)
        rows = torch.arange(len(first), device=first.device)
        ends = torch.stack([batch["offsets"][rows, first, 0], batch["offsets"][rows, last, 1]], 1)
        scores = torch.stack([best, outputs[:, 0].sum(1)], 1).tolist()
        texts, answers = batch["text"].cpu().numpy(), batch["answers"].cpu().numpy()
        told = []
        for row, (begin, stop) in enumerate(ends.tolist()):
            right = [answer.decode() for answer in answers[row].tobytes().split(_END) if answer]
            compared = 0.0, 0.0
            if math.isfinite(scores[row][0]):
                said = texts[row, begin:stop].tobytes().decode()
                compared = compare(said, right, unanswered=self._unanswered)
            nothing, _ = compare("", right, unanswered=self._unanswered)
            told.append((float(batch["question"][row]), *scores[row], *compared, nothing))
        return {"loss": total / 2, "windows": torch.tensor(told, dtype=torch.float64)}

    def summarize(self, totals: Mapping[str, Any]) -> dict[str, float]:
        """Mean cross-entropy over the windows, F1 and exact match over the questions."""
        windows: dict[float, list[Sequence[float]]] = {}
        for row in totals["windows"]:
            windows.setdefault(row[0], []).append(row)
        exact, f1 = [], []
        for rows in windows.values():
            # Of equal scores the worst counts, so that the order of the windows does not.
            _, score, _, matched, shared, nothing = max(rows, key=lambda row: (row[1], -row[4], -row[3]))
            none = min(row[2] for row in rows)
            # Without any span the answer is a wrong one of score 0, as in run_qa.py.
            if self._unanswered and none - (score if math.isfinite(score) else 0.0) > self._threshold:
                matched = shared = nothing
            exact.append(matched)
            f1.append(shared)
        return {
            "loss": mean_of(totals, "loss"),
            "f1": math.fsum(f1) / len(f1),
            "exact_match": math.fsum(exact) / len(exact),
        }

    def error(self, metrics: Mapping[str, float]) -> float | None:
        """What F1 lacks."""
        return 1.0 - metrics["f1"]


def best_spans(
    outputs: Tensor, inside: Tensor, n_best: int, max_answer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The span of each window with the highest sum of its logits.

    Args:
        outputs: logits of first and last tokens [B, L, 2].
        inside: tokens that may be in an answer, bool [B, L].
        n_best: of each, the highest ones that are looked at, whether inside or not.
        max_answer: tokens.

    Returns:
        The sums [B], -inf where there is no such span, the first tokens and the last ones, int64 [B].
    """
    count = min(n_best, outputs.shape[1])
    (starts, first), (stops, last) = (outputs[..., end].topk(count) for end in range(2))
    length = last[:, None, :] - first[:, :, None] + 1
    allowed = inside.gather(1, first)[:, :, None] & inside.gather(1, last)[:, None, :]
    allowed &= (length >= 1) & (length <= max_answer)
    sums = (starts[:, :, None] + stops[:, None, :]).masked_fill(~allowed, -math.inf)
    best, place = sums.flatten(1).max(1)
    chosen = [first.gather(1, (place // count)[:, None]), last.gather(1, (place % count)[:, None])]
    return best, chosen[0][:, 0], chosen[1][:, 0]


def words(text: str) -> list[str]:
    """The words that SQuAD compares: of small letters, without ASCII punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def compare(said: str, answers: Sequence[str], *, unanswered: bool) -> tuple[float, float]:
    """Exact match and F1 of words, each the best over the answers.

    Args:
        said: what is compared.
        answers: the right ones.
        unanswered: by the rules of SQuAD 2.0: answers without words do not count, and where there are none, saying
            nothing is right; by those of 1.1 the F1 of no words is 0.
    """
    ours = words(said)
    right = [words(answer) for answer in answers]
    if unanswered:
        right = [answer for answer in right if answer] or [[]]
    exact = max(float(ours == answer) for answer in right)
    return exact, max(_f1(ours, answer, unanswered) for answer in right)


def _f1(said: Sequence[str], right: Sequence[str], unanswered: bool) -> float:
    if unanswered and not (said and right):
        return float(said == right)
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if shared else 0.0
