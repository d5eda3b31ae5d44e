import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_cli.pruning import mask as m


def masks_of(**rows: list[int]) -> m.Masks:
    return {name: torch.tensor(row, dtype=torch.bool) for name, row in rows.items()}


bits = st.lists(st.booleans(), min_size=1, max_size=40)
some_masks = st.dictionaries(st.sampled_from("abcd"), bits, min_size=1).map(
    lambda rows: {name: torch.tensor(row) for name, row in rows.items()}
)


def test_ones_keep_everything():
    dense = m.ones({"a": torch.zeros(2, 3), "b": torch.zeros(4)})
    assert {name: (mask.shape, mask.dtype) for name, mask in dense.items()} == {
        "a": ((2, 3), torch.bool),
        "b": ((4,), torch.bool),
    }
    assert m.density(dense) == 1.0
    assert m.count(dense) == m.total(dense) == 10


def test_densities_by_hand():
    masks = masks_of(a=[1, 0, 0, 0], b=[1, 1])
    assert m.count(masks) == 3
    assert m.layer_counts(masks) == {"a": 1, "b": 2}
    assert m.density(masks) == 0.5
    assert m.layer_densities(masks) == {"a": 0.25, "b": 1.0}


def test_density_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no weights"):
        m.density({})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_apply_makes_pruned_weights_positive_zero(dtype):
    weight = torch.tensor([-1.0, -0.0, float("nan"), float("-inf"), 2.0, -0.0], dtype=dtype)
    applied = m.apply({"a": weight}, masks_of(a=[0, 0, 0, 0, 1, 1]))["a"]
    assert applied.dtype == dtype
    assert applied.tolist() == [0.0, 0.0, 0.0, 0.0, 2.0, 0.0]
    assert torch.signbit(applied).tolist() == [False, False, False, False, False, True]


def test_apply_leaves_tensors_without_a_mask_and_its_inputs_alone():
    weight, bias = torch.ones(2), torch.ones(3)
    applied = m.apply({"weight": weight, "bias": bias}, masks_of(weight=[0, 1]))
    assert applied["bias"] is bias
    assert weight.tolist() == [1.0, 1.0]
    assert list(applied) == ["weight", "bias"]


def test_apply_refuses_masks_that_do_not_fit():
    with pytest.raises(ValueError, match="names differ: b"):
        m.apply({"a": torch.ones(2)}, masks_of(b=[1, 1]))
    with pytest.raises(ValueError, match="shapes of a differ"):
        m.apply({"a": torch.ones(2, 2)}, masks_of(a=[1, 1]))


def test_nestedness_by_hand():
    outer = masks_of(a=[1, 1, 0], b=[1])
    assert m.is_nested(masks_of(a=[0, 1, 0], b=[1]), outer)
    assert m.is_nested(outer, outer)
    assert not m.is_nested(masks_of(a=[0, 1, 1], b=[0]), outer)
    with pytest.raises(ValueError, match="names differ: b"):
        m.is_nested(masks_of(a=[0, 0, 0]), outer)


@settings(deadline=None)
@given(some_masks, st.integers(0, 2**53 - 1))
def test_layerwise_shuffle_keeps_each_layer_count(masks, seed):
    shuffled = m.shuffle_layerwise(masks, seed)
    assert m.layer_counts(shuffled) == m.layer_counts(masks)
    assert all(torch.equal(mask, m.shuffle_layerwise(masks, seed)[name]) for name, mask in shuffled.items())


@settings(deadline=None)
@given(some_masks, st.integers(0, 2**53 - 1))
def test_global_random_mask_keeps_the_count(masks, seed):
    drawn = m.random_global(masks, seed)
    assert m.count(drawn) == m.count(masks)
    assert {name: mask.shape for name, mask in drawn.items()} == {n: k.shape for n, k in masks.items()}


@settings(deadline=None)
@given(some_masks, st.integers(0, 2**32))
def test_random_controls_of_nested_masks_are_nested(outer, seed):
    inner = {name: mask & (torch.arange(mask.numel()) % 2 == 0) for name, mask in outer.items()}
    for control in (m.shuffle_layerwise, m.random_global):
        assert m.is_nested(control(inner, seed), control(outer, seed))


def test_shuffle_differs_between_seeds_and_layers():
    half = torch.arange(1000).view(50, 20) % 2 == 0
    first = m.shuffle_layerwise({"a": half, "b": half}, 0)
    assert not torch.equal(first["a"], m.shuffle_layerwise({"a": half}, 1)["a"])
    assert not torch.equal(first["a"], first["b"])
    assert first["a"].shape == (50, 20)


def test_global_random_mask_evens_out_layer_densities():
    masks = {"a": torch.ones(4000, dtype=torch.bool), "b": torch.zeros(4000, dtype=torch.bool)}
    densities = m.layer_densities(m.random_global(masks, 3))
    assert all(abs(density - 0.5) < 0.05 for density in densities.values())


def test_every_kept_set_of_a_global_random_mask_is_as_likely():
    masks = masks_of(a=[1, 0], b=[0])
    kept = [
        torch.cat(list(m.random_global(masks, seed).values())).int().argmax().item() for seed in range(300)
    ]
    assert all(70 < kept.count(position) < 130 for position in range(3))


def test_random_masks_are_unrelated_to_other_uses_of_the_same_seed():
    half = torch.arange(100) < 50
    plain = half[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    shuffled, drawn = m.shuffle_layerwise({"a": half}, 0)["a"], m.random_global({"a": half}, 0)["a"]
    assert not torch.equal(shuffled, plain)
    assert not torch.equal(drawn, plain)
    assert not torch.equal(shuffled, drawn)


def test_even_masks_have_one_density_and_stay_nested():
    masks = {"a": torch.arange(10) < 9, "b": torch.arange(100).view(4, 25) < 13, "c": torch.arange(5) < 1}
    drawn = m.random_even(masks, 7)
    assert m.layer_counts(drawn) == {"a": 2, "b": 20, "c": 1}  # ceil(23 / 115 x 10, 100, 5)
    smaller = m.random_even({**masks, "a": torch.arange(10) < 2}, 7)
    assert m.layer_counts(smaller) == {"a": 2, "b": 14, "c": 1}  # ceil(16 / 115 x 10, 100, 5)
    assert m.is_nested(smaller, drawn)
    assert not torch.equal(m.random_even(masks, 8)["b"], drawn["b"])
