import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_cli.config.errors import LthError
from lth_cli.pruning.allocate import prune_global, prune_layerwise
from lth_cli.pruning.mask import count, is_nested, layer_counts, ones

# few distinct values, so that ties are common; infinities and both zeros included
values = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, math.inf])
layer = st.lists(st.tuples(values, st.booleans()), min_size=1, max_size=30)
network = st.dictionaries(st.sampled_from(["z", "a", "m"]), layer, min_size=1)


def tensors(rows):
    scores = {name: torch.tensor([score for score, _ in row]) for name, row in rows.items()}
    masks = {name: torch.tensor([kept for _, kept in row]) for name, row in rows.items()}
    return scores, masks


def reference(scores, masks, number):
    """Sort (score, position) pairs in plain Python and drop the first ones."""
    positions = [(name, i) for name, mask in masks.items() for i in range(mask.numel()) if mask[i]]
    gone = set(sorted(positions, key=lambda at: scores[at[0]][at[1]].item())[:number])  # sorted() is stable
    return {
        name: [bool(mask[i]) and (name, i) not in gone for i in range(mask.numel())]
        for name, mask in masks.items()
    }


def test_global_by_hand():
    scores = {"a": torch.tensor([[3.0, 1.0], [0.1, 4.0]]), "b": torch.tensor([0.5, 2.0])}
    masks = {"a": torch.tensor([[True, True], [False, True]]), "b": torch.tensor([True, True])}
    pruned = prune_global(scores, masks, 2)
    assert pruned["a"].tolist() == [[True, False], [False, True]]
    assert pruned["b"].tolist() == [False, True]


def test_layerwise_by_hand():
    scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([0.5, 0.2])}
    pruned = prune_layerwise(scores, ones(scores), {"a": 2, "b": 0})
    assert {name: mask.tolist() for name, mask in pruned.items()} == {
        "a": [True, False, False],
        "b": [True, True],
    }


def test_lower_positions_of_equal_scores_go_first_in_layer_order():
    scores = {"z": torch.ones(2, 2), "a": torch.ones(2)}
    pruned = prune_global(scores, ones(scores), 5)
    assert pruned["z"].any().item() is False
    assert pruned["a"].tolist() == [False, True]
    assert prune_global(scores, ones(scores), 3)["z"].tolist() == [[False, False], [False, True]]


@settings(deadline=None)
@given(network, st.data())
def test_global_agrees_with_sorting(rows, data):
    scores, masks = tensors(rows)
    number = data.draw(st.integers(0, count(masks)))
    pruned = prune_global(scores, masks, number)
    assert {name: mask.tolist() for name, mask in pruned.items()} == reference(scores, masks, number)
    assert count(pruned) == count(masks) - number
    assert is_nested(pruned, masks)


@settings(deadline=None)
@given(network, st.data())
def test_layerwise_is_global_within_each_layer(rows, data):
    scores, masks = tensors(rows)
    counts = {name: data.draw(st.integers(0, kept)) for name, kept in layer_counts(masks).items()}
    pruned = prune_layerwise(scores, masks, counts)
    for name, number in counts.items():
        assert pruned[name].tolist() == reference({name: scores[name]}, {name: masks[name]}, number)[name]


@settings(deadline=None)
@given(network, st.data())
def test_pruned_weights_never_influence(rows, data):
    scores, masks = tensors(rows)
    number = data.draw(st.integers(0, count(masks)))
    other = {name: score.where(masks[name], float("nan")) for name, score in scores.items()}
    plain, disturbed = prune_global(scores, masks, number), prune_global(other, masks, number)
    assert all(torch.equal(plain[name], disturbed[name]) for name in masks)


def test_layout_in_memory_changes_nothing():
    score = torch.arange(24.0).view(2, 3, 4).remainder(5)
    rearranged = score.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not rearranged.is_contiguous()
    plain = prune_global({"a": score}, ones({"a": score}), 11)["a"]
    assert torch.equal(prune_global({"a": rearranged}, ones({"a": rearranged}), 11)["a"], plain)


def test_scores_may_be_a_column_of_something_larger_or_have_gradients():
    table = torch.tensor([[3.0, 0.0], [1.0, 9.0], [2.0, 5.0]])
    column = table[:, 0]  # of one axis, and two elements apart
    columns = torch.stack([column, table[:, 1]], 1).view(3, 1, 2)[..., 0]  # likewise once it is flat
    everywhere = torch.tensor(1.0).expand(3)
    leaf = column.clone().requires_grad_()
    for score, kept in (
        (column, [True, False, True]),
        (columns, [[True], [False], [True]]),
        (everywhere, [False, True, True]),
        (leaf * 2, [True, False, True]),
        (column[1:2], [False]),
    ):
        pruned = prune_global({"a": score}, ones({"a": score}), 1)
        assert pruned["a"].tolist() == kept


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bfloat16, torch.float16, torch.float64])
def test_every_real_dtype_is_ordered_as_sorting_does(dtype):
    drawn = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near = 1 + 1e-9 * drawn[0]  # of one order of magnitude, told apart by their last bits alone
    scores = {"a": (10 * drawn[1]).abs().to(dtype), "b": near.to(dtype), "c": torch.tensor([-1.0, 3.0])}
    masks = ones(scores)
    for number in (1, 60, 150, 201):
        pruned = prune_global(scores, masks, number)
        assert {name: mask.tolist() for name, mask in pruned.items()} == reference(scores, masks, number)


def test_masks_given_are_left_alone():
    score = {"a": torch.tensor([1.0, 2.0])}
    masks = ones(score)
    for number in (0, 2):
        pruned = prune_global(score, masks, number)
        assert pruned["a"] is not masks["a"]
        assert masks["a"].all()
        assert count(pruned) == 2 - number


@pytest.mark.parametrize("number", [-1, 3])
def test_more_than_exist_is_refused(number):
    score = {"a": torch.tensor([1.0, 2.0])}
    with pytest.raises(ValueError, match=rf"cannot prune {number} of 2 remaining"):
        prune_global(score, ones(score), number)


def test_layer_without_a_count_is_refused():
    score = {"a": torch.ones(2), "b": torch.ones(2)}
    with pytest.raises(ValueError, match="counts and masks differ: b"):
        prune_layerwise(score, ones(score), {"a": 1})


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "returned nothing for a"),
        (None, "returned nothing for a"),
        ({"a": [1.0, 2.0]}, "of a must be a tensor, got list"),
        ({"a": torch.ones(2, 1)}, r"of a has shape \(2, 1\), the weights have \(2,\)"),
        ({"a": torch.ones(2, dtype=torch.bool)}, "must be real numbers, got torch.bool"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "must be real numbers, got torch.complex64"),
        ({"a": torch.tensor([1.0, math.nan])}, "of a is NaN at 1 remaining weights"),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_bad_scores_are_named(scores, message, number):
    with pytest.raises(LthError, match=message):
        prune_global(scores, {"a": torch.ones(2, dtype=torch.bool)}, number)
