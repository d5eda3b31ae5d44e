"""Agreement of networks that differ by chance."""

from __future__ import annotations

import math

import pytest
import torch

from lth_cli.analyses.agreement.mathematics import agreement, distribution


def test_hand_computed() -> None:
    """Four networks, three examples: all agree; three against one; two against two."""
    predictions = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 1], [0, 0, 1]])
    found = agreement(predictions, torch.tensor([0, 1, 1]), 4)
    assert found.correct.tolist() == [1.0, 0.75, 0.5]
    assert found.modal.tolist() == [1.0, 0.75, 0.5]
    # 1 - (3 * 2) / (4 * 3), and 1 - (2 + 2) / 12
    assert found.disagreement.tolist() == pytest.approx([0.0, 0.5, 2 / 3])
    # - 3/4 ln 3/4 - 1/4 ln 1/4, and ln 2
    assert found.entropy.tolist() == pytest.approx([0.0, 0.562335, math.log(2)], abs=1e-6)
    assert found.ambiguous == pytest.approx(2 / 3)
    assert found.accuracies.tolist() == pytest.approx([2 / 3, 2 / 3, 1.0, 2 / 3])
    assert found.class_accuracies[:, 1].tolist() == [0.5, 0.5, 1.0, 0.5]
    assert math.isnan(found.class_accuracies[0, 3])
    assert found.churn[0, 1] == 0.0 and found.churn[1, 3] == pytest.approx(2 / 3)


def test_mean_churn_is_mean_disagreement() -> None:
    predictions = torch.randint(5, (6, 200), generator=torch.Generator().manual_seed(0))
    found = agreement(predictions, torch.zeros(200, dtype=torch.long), 5)
    assert sum(found.churn.values()) / 15 == pytest.approx(float(found.disagreement.mean()))


def test_distribution() -> None:
    found = distribution([4.0, 1.0, 2.0, 3.0, 10.0])
    assert (found.mean, found.least, found.quarter, found.median, found.three_quarters, found.most) == (
        4,
        1,
        2,
        3,
        4,
        10,
    )
    assert found.spread == pytest.approx(math.sqrt(50 / 4))


def test_one_network_has_nothing_to_agree_with() -> None:
    with pytest.raises(ValueError, match="two networks"):
        agreement(torch.zeros(1, 3, dtype=torch.long), torch.zeros(3, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="two values"):
        distribution([1.0])
