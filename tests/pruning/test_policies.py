"""Masks that change within a training: counts, and which weights go and come."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lth_cli.config.errors import ConfigError
from lth_cli.config.pruning import SparseTraining
from lth_cli.config.steps import Duration
from lth_cli.pruning.distribute import layer_counts as spread
from lth_cli.pruning.mask import count, layer_counts, total
from lth_cli.pruning.policies import Gradual, RigL, make_policy

# A busy machine is no fault.
FEW = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
HORIZON = {"steps_per_epoch": 10, "horizon": 101}
SHAPES = {"conv.weight": (6, 3, 3, 3), "fc.weight": (20, 40), "out.weight": (10, 20)}
densities = st.integers(1, 99).map(lambda percent: percent / 100)
shapes = st.dictionaries(
    st.sampled_from("abcde"), st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple), min_size=1
)


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@given(shapes, densities, st.sampled_from(["erk", "uniform"]))
@FEW
def test_layers_share_out_exactly_what_is_kept(some, density, distribution):
    counts = spread(some, density, distribution)
    sizes = {name: math.prod(shape) for name, shape in some.items()}
    assert sum(counts.values()) == math.ceil(Fraction(str(density)) * sum(sizes.values()))
    assert all(0 <= counts[name] <= sizes[name] for name in sizes)
    if distribution == "uniform":
        assert all(abs(counts[name] - density * sizes[name]) < 2 for name in sizes)


def test_erk_is_in_proportion_to_sum_over_product_and_full_layers_leave_their_rest_to_others():
    counts = spread({"small": (4, 4), "large": (100, 100)}, 0.1, "erk")
    assert counts == {"small": 16, "large": 1002 - 16}
    counts = spread(SHAPES, 0.05, "erk")
    ratio = {n: counts[n] / (math.prod(SHAPES[n]) * sum(SHAPES[n]) / math.prod(SHAPES[n])) for n in SHAPES}
    assert max(ratio.values()) - min(ratio.values()) < 0.1


@given(st.integers(0, 10**6), densities, st.sampled_from(["erk", "uniform"]), st.integers(5, 20))
@FEW
def test_rigl_moves_as_many_as_it_drops(seed, density, distribution, every):
    policy = RigL(density=density, distribution=distribution, every=Duration(0, every), **HORIZON)
    masks = policy.start(SHAPES, seed)
    assert count(masks) == math.ceil(Fraction(str(density)) * total(masks))
    weights, gradients = tensors(seed), tensors(seed + 1)
    due = [step for step in range(101) if policy.due(step)]
    assert due == list(range(every, 75, every))
    for step in due:
        masked = {name: weight * masks[name] for name, weight in weights.items()}
        change = policy.change(step, masked, gradients, masks, seed=0)
        assert layer_counts(change.masks) == layer_counts(masks)
        assert change.skip_update
        for name, mask in masks.items():
            new, grown = change.masks[name], change.grown[name]
            assert torch.equal(grown, new & ~mask)
            moved = policy.dropped(step, int(mask.sum()))
            assert int(grown.sum()) <= moved
            lost = mask & ~new
            sizes = masked[name].abs()
            if lost.any():
                by_size = sizes[mask].sort().values[:moved].max()
                assert sizes[lost].max() <= by_size
            if grown.any() and (out := ~new).any():
                steep = gradients[name].abs()
                assert steep[grown].min() >= steep[out].max()
        masks = change.masks


@given(st.integers(0, 10**6), densities, st.sampled_from(["global", "layerwise"]), st.integers(5, 30))
@FEW
def test_gradual_pruning_follows_its_cubic_and_keeps_the_largest(seed, density, allocation, every):
    policy = Gradual(
        density=density, allocation=allocation, begin=Duration(0, 5), every=Duration(0, every), **HORIZON
    )
    weights, masks = tensors(seed), policy.start(SHAPES, 0)
    assert count(masks) == total(masks)
    due = [step for step in range(101) if policy.due(step)]
    assert due == sorted({*range(5 + every, 76, every), 75})
    for step in due:
        share = 1 - (1 - density) * (1 - (1 - (step - 5) / 70) ** 3)
        change = policy.change(step, weights, {}, masks, seed=0)
        assert not change.skip_update
        groups = [masks] if allocation == "global" else [{name: mask} for name, mask in masks.items()]
        for group in groups:
            new = {name: change.masks[name] for name in group}
            wanted = share * total(group)
            assert count(new) in (math.ceil(wanted - 1e-9), math.ceil(wanted + 1e-9))
            kept = torch.cat([weights[name][new[name]].abs() for name in group])
            gone = torch.cat([weights[name][~new[name]].abs() for name in group])
            assert not len(gone) or not len(kept) or kept.min() >= gone.max()
        assert all(not (change.masks[name] & ~mask).any() for name, mask in masks.items())
        masks = change.masks
    assert count(masks) >= math.ceil(Fraction(str(density)) * total(masks))


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"end": "11ep"}, "sparse_training.end.*101 steps"),
        ({"begin": "8ep"}, "sparse_training.end.*step 80 to step 75"),
        ({"density": 1.0}, "sparse_training.density"),
        ({"dense": 1}, "sparse_training.dense: unknown key"),
        ({"_target_": "torch.optim.SGD"}, "is not a lth_cli.pruning.policies.Policy"),
    ],
)
def test_what_cannot_be_is_refused(given_, told):
    section = {"_target_": "lth_cli.pruning.policies.RigL", "density": 0.1, "every": "5it", **given_}
    with pytest.raises(ConfigError, match=told):
        make_policy(SparseTraining.model_validate(section), **HORIZON)


def test_masks_that_stay_have_no_policy():
    assert make_policy(SparseTraining(), **HORIZON) is None
