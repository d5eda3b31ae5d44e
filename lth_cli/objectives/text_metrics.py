"""Metrics of all answers of a split, for `evaluation.metrics`: those that are no sums over batches, or go beside a
headline.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lth_cli.objectives.objective import Batch


def f1(outputs: Tensor, batch: Batch) -> float:
    """Of class 1 for two classes, else the mean over classes. Outputs [N, classes], labels int64 [N]."""
    from sklearn.metrics import f1_score

    average: Any = "binary" if outputs.shape[1] == 2 else "macro"
    return float(f1_score(batch["labels"], outputs.argmax(1), average=average, zero_division=0))


def matthews(outputs: Tensor, batch: Batch) -> float:
    """Matthews correlation of any number of classes. Outputs [N, classes], labels int64 [N]."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(batch["labels"], outputs.argmax(1)))


def spearman(outputs: Tensor, batch: Batch) -> float:
    """Spearman's rank correlation. Outputs [N, 1], targets float32 [N]."""
    from scipy.stats import spearmanr

    return float(spearmanr(outputs.flatten(), batch["targets"]).statistic)
