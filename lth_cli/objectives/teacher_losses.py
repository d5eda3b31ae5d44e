"""What a student loses by answering otherwise than its teacher. Logits in, the mean over the batch out.

Gradients flow to the student alone: teacher logits come without any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Loss: TypeAlias = Callable[[Tensor, Tensor, float], Tensor]
"""Of student and teacher, logits [B, classes] (of `features` those), temperature -> scalar."""


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p || q) with p, q the softmax of the teacher's and the student's logits / T, mean over the batch.

    Hinton et al. 2015 (arXiv:1503.02531), section 2: the gradient of the soft cross-entropy, of which this differs by
    the teacher's entropy, shrinks as 1/T^2, hence the factor.

    Args:
        student: logits [B, classes].
        teacher: logits [B, classes].
        temperature: T > 0.
    """
    soft = functional.log_softmax(student / temperature, dim=1)
    targets = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(soft, targets, reduction="batchmean", log_target=True) * temperature**2


def squared_error(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over batch and classes of the squared difference of logits; the temperature plays no part.

    Ba & Caruana 2014 (arXiv:1312.6184), equation 1, but for a constant factor.
    """
    return functional.mse_loss(student, teacher)


def hard_labels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy with the class the teacher finds most likely; the temperature plays no part."""
    return functional.cross_entropy(student, teacher.argmax(1))


def similarities(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of the similarities between examples; the temperature plays no part.

    Similarities are inner products of features, each row of them of length 1 (Tung & Mori 2019, arXiv:1907.09682,
    equations 1 to 4), so that widths may differ.

    Args:
        student: features [B, width].
        teacher: features [B, any width].
    """
    ours, theirs = (functional.normalize(x @ x.T, dim=1) for x in (student, teacher))
    return functional.mse_loss(ours, theirs)


LOSSES: dict[str, Loss] = {
    "kl": divergence,
    "mse": squared_error,
    "cross_entropy": hard_labels,
    "features": similarities,
}
"""By the name that `distillation.loss` has."""


def average(answers: Sequence[Tensor]) -> Tensor:
    """The mean of several teachers' logits, each [B, classes], as composer's distillation takes it."""
    return answers[0] if len(answers) == 1 else torch.stack(list(answers)).mean(0)
