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
from lth_cli.pruning.policies import SET, Gradual, RigL, Static, make_policy
from lth_cli.pruning.straight_through import StraightThrough

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


@given(
    st.integers(0, 10**6),
    densities,
    st.sampled_from(["erk", "uniform"]),
    st.integers(5, 20),
    st.sampled_from([SET, RigL]),
    st.sampled_from(["cosine", "constant", "linear", "cubic"]),
)
@FEW
def test_as_many_come_as_go(seed, density, distribution, every, kind, falls):
    spread_ = {"density": density, "distribution": distribution}
    policy = kind(**spread_, every=Duration(0, every), drop_schedule=falls, **HORIZON)
    masks = policy.start(SHAPES, seed)
    still = Static(**spread_).start(SHAPES, seed)
    assert all(torch.equal(mask, still[name]) for name, mask in masks.items())
    assert count(masks) == math.ceil(Fraction(str(density)) * total(masks))
    weights, gradients = tensors(seed), tensors(seed + 1)
    due = [step for step in range(101) if policy.due(step)]
    assert due == list(range(every, 76 if falls == "constant" else 75, every))
    for step in due:
        masked = {name: weight * masks[name] for name, weight in weights.items()}
        change = policy.change(step, masked, gradients, masks, seed=0)
        assert layer_counts(change.masks) == layer_counts(masks)
        assert change.skip_update == (kind is RigL)
        again = policy.change(step, masked, gradients, masks, seed=0)
        assert all(torch.equal(mask, again.masks[name]) for name, mask in change.masks.items())
        for name, mask in masks.items():
            new = change.masks[name]
            grown = new & ~mask
            moved = policy.dropped(step, int(mask.sum()))
            assert int(grown.sum()) <= moved
            lost = mask & ~new
            sizes = masked[name].abs()
            if lost.any():
                by_size = sizes[mask].sort().values[:moved].max()
                assert sizes[lost].max() <= by_size
            if kind is RigL and grown.any() and (out := ~new).any():
                steep = gradients[name].abs()
                assert steep[grown].min() >= steep[out].max()
        masks = change.masks


def test_the_share_that_goes_falls_as_in_the_released_code():
    shares = {
        falls: [
            SET(density=0.5, drop_schedule=falls, end=Duration(0, 80), **HORIZON).dropped(step, 1001)
            for step in (0, 20, 40)
        ]
        for falls in ("cosine", "constant", "linear", "cubic")
    }
    assert shares == {
        "cosine": [300, 256, 150],
        "constant": [300, 300, 300],
        "linear": [300, 225, 150],
        "cubic": [300, 126, 37],
    }


def test_what_comes_by_chance_is_any_free_weight_alike():
    policy = SET(density=0.5, drop_fraction=1.0, drop_schedule="constant", **HORIZON)
    masks = {"a": torch.arange(20).view(4, 5) < 10}
    seen = torch.zeros(4, 5)
    for seed in range(400):
        seen += policy.change(10, {"a": torch.ones(4, 5)}, {}, masks, seed).masks["a"]
    assert seen.sum() == 4000
    assert (seen - 200).abs().max() < 50  # five standard deviations


def test_tensors_with_a_density_of_their_own_count_apart():
    policy = Static(density=0.1, distribution="uniform", layer_densities={"conv*": 1.0, "*": 0.2})
    assert layer_counts(policy.start(SHAPES, 0)) == {"conv.weight": 162, "fc.weight": 160, "out.weight": 40}
    policy = Static(density=0.1, distribution="uniform", layer_densities={"fc.weight": 0.2})
    assert layer_counts(policy.start(SHAPES, 0)) == {"conv.weight": 17, "fc.weight": 160, "out.weight": 20}
    with pytest.raises(ConfigError, match=r"layer_densities: 'fx' matches no tensor"):
        Static(density=0.1, layer_densities={"fx": 0.2}).start(SHAPES, 0)


@pytest.mark.parametrize("allocation", ["uniform", "erk"])
def test_gradual_pruning_by_layer_ends_at_its_distribution(allocation):
    policy = Gradual(density=0.1, allocation=allocation, every=Duration(0, 15), **HORIZON)
    weights, masks = tensors(0), policy.start(SHAPES, 0)
    for step in (15, 30, 45, 60, 75):
        masks = policy.change(step, weights, {}, masks, 0).masks
        assert count(masks) == math.ceil(policy.share(step) * total(masks))
    wanted = spread(SHAPES, 0.1, allocation)
    assert all(abs(kept - wanted[name]) <= 1 for name, kept in layer_counts(masks).items())


def test_pruning_once_and_in_patterns():
    once = {"begin": Duration(0, 7), "end": Duration(0, 7), **HORIZON}
    shapes_ = {"fc.weight": (20, 40)}
    weights = {"fc.weight": tensors(3)["fc.weight"]}
    left = {}
    for pattern in ("unstructured", "2:4", "block_2x2", "fan_in"):
        policy = Gradual(density=0.5, allocation="layerwise", pattern=pattern, **once)
        assert [step for step in range(101) if policy.due(step)] == [7]
        left[pattern] = policy.change(7, weights, {}, policy.start(shapes_, 0), 0).masks["fc.weight"]
        assert left[pattern].sum() == 400
    assert (left["2:4"].view(-1, 4).sum(1) == 2).all()
    assert (left["fan_in"].sum(1) == 20).all()
    blocks = left["block_2x2"].view(10, 2, 20, 2).sum((1, 3))
    assert set(blocks.flatten().tolist()) == {0, 4}


def test_masks_straight_through_forget_what_was_pruned():
    policy = StraightThrough(density=0.25, end=Duration(0, 50), **HORIZON)
    weights = {"a": torch.tensor([[4.0, -3.0, 2.0, 1.0]])}
    nothing = {"a": torch.zeros(1, 4, dtype=torch.bool)}
    kept = [int(policy.change(step, weights, {}, nothing, 0).masks["a"].sum()) for step in (0, 10, 50, 90)]
    assert kept == [4, 3, 1, 1]  # 1 - 0.75 (1 - 0.8^3) = 0.634
    drawn = StraightThrough(density=0.5, score="random", **HORIZON)
    found = {str(drawn.change(1, weights, {}, nothing, seed).masks["a"].tolist()) for seed in range(60)}
    assert len(found) == 6


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
        ({"drop_schedule": "exponential"}, "sparse_training.drop_schedule"),
        ({"dense": 1}, "sparse_training.dense: unknown key"),
        ({"_target_": "torch.optim.SGD"}, "is not a lth_cli.pruning.policies.Policy"),
    ],
)
def test_what_cannot_be_is_refused(given_, told):
    section = {"_target_": "lth_cli.pruning.policies.RigL", "density": 0.1, "every": "5it", **given_}
    with pytest.raises(ConfigError, match=told):
        make_policy(SparseTraining.model_validate(section), **HORIZON)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"pattern": "3:x"}, "is no pattern"),
        ({"pattern": "2:4"}, "write sparse_training.density=0.5, and the same step"),
        ({"pattern": "channel"}, "lth prune alone"),
        ({"pattern": "fan_in"}, "sparse_training.allocation=layerwise"),
    ],
)
def test_patterns_that_cannot_be_are_refused(given_, told):
    section = {"_target_": "lth_cli.pruning.policies.Gradual", "density": 0.1, **given_}
    with pytest.raises(ConfigError, match=rf"sparse_training.pattern: .*{told}"):
        make_policy(SparseTraining.model_validate(section), **HORIZON)


def test_masks_that_stay_have_no_policy():
    assert make_policy(SparseTraining(), **HORIZON) is None
