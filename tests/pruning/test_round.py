import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_cli.config.errors import ConfigError, LthError
from lth_cli.config.schema import Pruning
from lth_cli.pruning.mask import count, is_nested, layer_counts, ones
from lth_cli.pruning.round import finished, next_masks


def weights_of(**sizes: int) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return {f"{name}.weight": torch.randn(size, generator=source) for name, size in sizes.items()}


def run(config, weights, seed=0):
    """All rounds on fixed weights; the layer counts of each, the dense one first."""
    masks, found, number = ones(weights), [ones(weights)], 0
    while not finished(config, masks, number):
        number += 1
        smaller = next_masks(config, weights, masks, round_number=number, output=["out.weight"], seed=seed)
        assert is_nested(smaller, masks)
        masks = smaller
        found.append(masks)
    return found


def spy(weights, masks, *, seed):
    """A score that shows what it was given through the error it causes."""
    raise LthError(f"{[tensor.tolist() for tensor in weights.values()]} {list(masks)}")


def clobber(weights, masks, *, seed):
    """A careless score that writes into its inputs."""
    return {name: weight.zero_() for name, weight in weights.items()}


def not_a_number(weights, masks, *, seed):
    return {name: weight / 0 for name, weight in weights.items()}


def test_geometric_global_by_hand():
    weights = {"a.weight": torch.tensor([0.3, -5.0, 0.1]), "b.weight": torch.tensor([-0.2, 4.0])}
    config = Pruning(rounds=2, fraction=0.4)
    first = next_masks(config, weights, ones(weights), round_number=1, output=["b.weight"], seed=0)
    assert {name: mask.tolist() for name, mask in first.items()} == {
        "a.weight": [True, True, False],
        "b.weight": [False, True],
    }
    second = next_masks(
        config, weights, first, round_number=2, output=["b.weight"], seed=0
    )  # ceil(0.4 x 3) = 2
    assert {name: mask.tolist() for name, mask in second.items()} == {
        "a.weight": [False, True, False],
        "b.weight": [False, False],
    }


@pytest.mark.parametrize(
    ("size", "fraction", "left"), [(5, 0.2, 4), (10, 0.1, 9), (35, 0.6, 14), (100, 0.29, 71)]
)
def test_ceiling_is_that_of_the_decimal_written(size, fraction, left):
    weights = weights_of(a=size)
    config = Pruning(rounds=1, fraction=fraction)
    assert (
        count(next_masks(config, weights, ones(weights), round_number=1, output=["out.weight"], seed=0))
        == left
    )


def test_densities_of_the_lmc_paper():
    densities = [
        count(masks) / 100_000 for masks in run(Pruning(rounds=12), weights_of(a=60_000, out=40_000))
    ]
    table = [100, 80, 64, 51.2, 41, 32.8, 26.2, 21, 16.8, 13.4, 10.7, 8.6, 6.9]
    assert [round(100 * density, 1) for density in densities] == table


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), st.integers(1, 999))
def test_geometric_prunes_exactly_the_ceiling(size, thousandths):
    weights = weights_of(a=size, b=3)
    found = run(Pruning(rounds=4, fraction=thousandths / 1000), weights)
    for before, after in pairwise(found):
        assert count(before) - count(after) == -(-thousandths * count(before) // 1000)


def test_layerwise_prunes_each_layer_by_its_own_fraction():
    weights = weights_of(fc1=100, fc2=50, out=10)
    config = Pruning(
        rounds=2,
        allocation="layerwise",
        layer_fractions={"output": 0.1, "fc2.*": 0.5, "*": 0.25},
    )
    assert [layer_counts(masks) for masks in run(config, weights)] == [
        {"fc1.weight": 100, "fc2.weight": 50, "out.weight": 10},
        {"fc1.weight": 75, "fc2.weight": 25, "out.weight": 9},
        {"fc1.weight": 56, "fc2.weight": 12, "out.weight": 8},
    ]


def test_linear_leaves_equal_steps_globally():
    found = run(Pruning(rounds=4, schedule="linear"), weights_of(a=7, b=4))  # 8.25, 5.5 (to even), 2.75, 0
    assert [count(masks) for masks in found] == [11, 8, 6, 3, 0]


def test_linear_layerwise_is_the_mnist_1d_linspace():
    found = run(Pruning(rounds=99, schedule="linear", allocation="layerwise"), weights_of(a=990, out=99))
    assert [layer_counts(masks) for masks in found] == [
        {"a.weight": 990 - 10 * number, "out.weight": 99 - number} for number in range(100)
    ]


def test_linear_never_prunes_more_than_exist():
    weights = weights_of(a=10)
    masks = {"a.weight": torch.arange(10) < 2}
    config = Pruning(rounds=2, schedule="linear")
    assert count(next_masks(config, weights, masks, round_number=1, output=["out.weight"], seed=0)) == 2


def test_counts_of_open_lth_by_hand():
    weights = {"a.weight": torch.tensor([0.5, -0.1, 0.2, 0.4]), "b.weight": torch.tensor([-0.4, 0.4, 0.9])}
    config = Pruning(rounds=2, fraction=0.2, count="open_lth")
    first = next_masks(
        config, weights, ones(weights), round_number=1, output=["c.weight"], seed=0, left_out=3
    )
    # ceil(0.2 x (7 + 3)) = 2 others lie below the 0.4 at rank 2; it goes, and the two tied with it.
    assert {name: mask.tolist() for name, mask in first.items()} == {
        "a.weight": [True, False, False, False],
        "b.weight": [False, False, True],
    }
    with pytest.raises(LthError, match="prunes 20 weights this round, and 2 are left"):  # ceil(0.2 x 92) + 1
        next_masks(config, weights, first, round_number=2, output=["c.weight"], seed=0, left_out=90)


@pytest.mark.parametrize(
    ("total", "left_out", "fraction", "kept"),
    [
        # LeNet-300-100 without its output layer, open_lth's default: masks of both programs were compared.
        (
            *(265_200, 1_000, 0.2),
            "211959 169366 135291 108031 86223 68777 54820 43655 34723 27577 21860 17287 13628 10701 8359",
        ),
        # ResNet-20, where nothing is left out, and without its first convolution and output layer.
        (270_896, 0, 0.2, "216715 173371 138695 110955 88763 71009 56806"),
        (269_824, 1_072, 0.3, "188554 131665 91842 63966 44453 30794 21233"),
    ],
)
def test_counts_of_open_lth_where_it_was_run(total, left_out, fraction, kept):
    weights = {"a.weight": torch.arange(1.0, total + 1)}
    config, masks, found = Pruning(rounds=15, fraction=fraction, count="open_lth"), ones(weights), []
    for number in range(1, len(kept.split()) + 1):
        masks = next_masks(
            config, weights, masks, round_number=number, output=["out.weight"], seed=0, left_out=left_out
        )
        found.append(count(masks))
    assert found == [int(number) for number in kept.split()]


@pytest.mark.parametrize("allocation", ["global", "layerwise"])
@pytest.mark.parametrize("schedule", ["geometric", "linear"])
def test_last_round_stops_exactly_at_the_target_density(allocation, schedule):
    config = Pruning(rounds=50, density=0.31, allocation=allocation, schedule=schedule)
    found = run(config, weights_of(a=57, b=31, out=13))
    assert count(found[-1]) == 32  # ceil(0.31 x 101)
    assert count(found[-2]) > 32
    assert len(found) < 51


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(1, 99), st.integers(1, 99))
def test_layerwise_rounds_reach_any_density_exactly(sizes, fraction, density):
    weights = weights_of(**{f"l{i}": size for i, size in enumerate(sizes)})
    config = Pruning(rounds=500, fraction=fraction / 100, density=density / 100, allocation="layerwise")
    assert count(run(config, weights)[-1]) == -(-density * sum(sizes) // 100)


def test_layers_share_what_the_density_allows_in_proportion():
    weights = weights_of(a=40, b=20)  # would lose 20 and 10; 9 may go
    config = Pruning(rounds=1, fraction=0.5, density=0.85, allocation="layerwise")
    masks = next_masks(config, weights, ones(weights), round_number=1, output=["out.weight"], seed=0)
    assert layer_counts(masks) == {"a.weight": 34, "b.weight": 17}


def test_finished():
    masks = {"a": torch.arange(10) < 5}
    assert not finished(Pruning(rounds=3), masks, 2)
    assert finished(Pruning(rounds=3), masks, 3)
    assert finished(Pruning(rounds=0), masks, 0)
    assert finished(Pruning(rounds=3, density=0.5), masks, 1)
    assert finished(Pruning(rounds=3, density=0.41), masks, 1)  # ceil(4.1) = 5
    assert not finished(Pruning(rounds=3, density=0.4), masks, 1)
    assert finished(Pruning(rounds=3), {"a": torch.zeros(2, dtype=torch.bool)}, 1)


def test_random_score_is_fresh_each_round_and_follows_the_seed():
    weights = weights_of(a=200)
    config = Pruning(rounds=2, score="random", fraction=0.5)

    def once(round_number, seed):
        return next_masks(
            config, weights, ones(weights), round_number=round_number, output=["out.weight"], seed=seed
        )

    assert torch.equal(once(1, 0)["a.weight"], once(1, 0)["a.weight"])
    assert not torch.equal(once(1, 0)["a.weight"], once(2, 0)["a.weight"])
    assert not torch.equal(once(1, 0)["a.weight"], once(1, 1)["a.weight"])


def test_score_sees_pruned_weights_as_zero_and_only_prunable_tensors():
    weights = {"a.weight": torch.tensor([7.0, 2.0]), "a.bias": torch.tensor([1.0])}
    masks = {"a.weight": torch.tensor([False, True])}
    with pytest.raises(LthError, match=r"\[\[0\.0, 2\.0\]\] \['a\.weight'\]"):
        next_masks(
            Pruning(rounds=1, score=f"{__name__}.spy"),
            weights,
            masks,
            round_number=1,
            output=["a.weight"],
            seed=0,
        )


def test_score_cannot_change_the_weights():
    weights = {"a.weight": torch.nn.Parameter(torch.tensor([7.0, 2.0]))}
    config = Pruning(rounds=1, score=f"{__name__}.clobber")
    next_masks(config, weights, ones(weights), round_number=1, output=["a.weight"], seed=0)
    assert weights["a.weight"].tolist() == [7.0, 2.0]


def test_bad_scores_and_rounds_are_refused():
    weights = {"a.weight": torch.zeros(4)}
    masks = ones(weights)
    with pytest.raises(LthError, match="NaN at 4 remaining"):
        config = Pruning(rounds=1, score=f"{__name__}.not_a_number")
        next_masks(config, weights, masks, round_number=1, output=["a.weight"], seed=0)
    with pytest.raises(ConfigError, match=r"pruning\.score"):
        next_masks(
            Pruning(rounds=1, score="snap"), weights, masks, round_number=1, output=["a.weight"], seed=0
        )
    for number in (0, 2):
        with pytest.raises(ValueError, match=rf"round {number} is not one of 1 \.\.\. 1"):
            next_masks(Pruning(rounds=1), weights, masks, round_number=number, output=["a.weight"], seed=0)


def test_diverged_weights_are_an_error_only_where_they_remain():
    weights = {"a.weight": torch.tensor([math.nan, 1.0, 2.0])}
    config = Pruning(rounds=1, fraction=0.5)
    masks = {"a.weight": torch.tensor([False, True, True])}
    pruned = next_masks(config, weights, masks, round_number=1, output=["a.weight"], seed=0)
    assert pruned["a.weight"].tolist() == [False, False, True]
    with pytest.raises(LthError, match="NaN at 1 remaining"):
        next_masks(config, weights, ones(weights), round_number=1, output=["a.weight"], seed=0)


def test_a_layers_weights_and_biases_are_ranked_together():
    config = Pruning(rounds=2, allocation="layerwise", schedule="linear", biases=True)
    weights = {
        "a.weight": torch.tensor([1.0, 2.0, 3.0]),
        "a.bias": torch.tensor([9.0]),
        "b.weight": torch.tensor([5.0, 6.0]),
    }
    masks = next_masks(config, weights, ones(weights), round_number=1, output=["b.weight"], seed=0)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "a.weight": [False, False, True],
        "a.bias": [True],
        "b.weight": [False, True],
    }


@pytest.mark.parametrize("schedule", ["exponential", "cubic"])
@pytest.mark.parametrize("allocation", ["global", "global_normalized", "uniform", "erk"])
def test_the_density_is_reached_in_the_last_round_exactly(schedule, allocation):
    weights = {name: w.view(10, -1) for name, w in weights_of(a=100, b=370, out=50).items()}
    config = Pruning(rounds=3, density=0.1, schedule=schedule, allocation=allocation)
    counts = [count(masks) for masks in run(config, weights)]
    shares = [
        0.1 ** (r / 3) if schedule == "exponential" else 1 - 0.9 * (1 - (1 - r / 3) ** 3) for r in range(4)
    ]
    assert counts == [math.ceil(round(520 * share, 6)) for share in shares]
    assert counts[-1] == 52


def test_uniform_densities_differ_by_less_than_a_weight():
    weights = {name: w.view(10, -1) for name, w in weights_of(a=100, b=370, out=50).items()}
    for masks in run(Pruning(rounds=4, fraction=0.3, allocation="uniform"), weights):
        density = count(masks) / 520
        for name, kept in layer_counts(masks).items():
            assert abs(kept - density * weights[name].numel()) < 1


def test_layers_may_have_densities_of_their_own_and_the_others_share_the_rest():
    weights = {name: w.view(10, -1) for name, w in weights_of(a=100, b=370, out=50).items()}
    config = Pruning(rounds=1, density=0.1, schedule="exponential", layer_densities={"a*": 0.5, "out*": 1.0})
    kept = layer_counts(run(config, weights)[-1])
    assert kept == {"a.weight": 50, "b.weight": 37, "out.weight": 50}


def test_normalised_scores_are_those_over_the_norm_of_their_tensor():
    weights = {"a.weight": torch.tensor([[3.0, 4.0]]), "b.weight": torch.tensor([[30.0, 40.0]])}
    config = Pruning(rounds=1, fraction=0.5, allocation="global_normalized")
    masks = run(config, weights)[-1]  # 0.6 and 0.8 of both; ties go in the order of the layers
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "a.weight": [[False, True]],
        "b.weight": [[False, True]],
    }


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"schedule": "cubic"}, "needs pruning.density"),
        ({"layer_densities": {"a": 0.1}}, "needs pruning.schedule"),
        ({"pattern": "2:4"}, "takes one round"),
        ({"pattern": "2:4", "rounds": 1, "density": 0.4}, "is a density"),
        ({"pattern": "fan_in"}, "needs pruning.allocation"),
        ({"pattern": "channel", "biases": True}, "need pruning.pattern=unstructured"),
        ({"pattern": "4:2"}, "2:4"),
    ],
)
def test_what_goes_together_with_nothing_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        Pruning(**{"rounds": 2, **wrong})


seen: list[dict[str, torch.Tensor]] = []


def watched(weights, masks, *, seed):
    """The magnitude of weights that it notes."""
    seen.append(weights)
    return {name: weight.abs() for name, weight in weights.items()}


def left_in_iterations(weights, **settings):
    """Weights left at each scoring, then at the end; and the masks of the end."""
    seen.clear()
    config = Pruning(rounds=1, score=f"{__name__}.watched", **settings)
    masks = next_masks(config, weights, ones(weights), round_number=1, output=["out.weight"], seed=0)
    return [[int(weight.count_nonzero()) for weight in found.values()] for found in seen], masks


def test_iterations_follow_an_exponential_exactly():
    weights = weights_of(a=1000)
    counts, masks = left_in_iterations(weights, fraction=0.99, iterations=3)
    assert [*counts, [count(masks)]] == [[1000], [216], [47], [10]]  # 1000 x 0.01^(1/3) = 215.4, 46.4
    for found in seen:  # of the weights of the round, not of what was left of them
        kept = found["a.weight"] != 0
        assert torch.equal(found["a.weight"][kept], weights["a.weight"][kept])
    counts, masks = left_in_iterations(weights, fraction=0.75, iterations=2)
    assert [*counts, [count(masks)]] == [[1000], [500], [250]]
    counts, masks = left_in_iterations(weights, schedule="linear", iterations=3)  # to none at all
    assert [*counts, [count(masks)]] == [[1000], [0], [0], [0]]


def test_iterations_are_of_each_layer_where_these_are_ranked_alone():
    counts, masks = left_in_iterations(
        weights_of(a=400, out=100),
        allocation="layerwise",
        iterations=2,
        fraction=0.75,
        layer_fractions={"output": 0.96},
    )
    assert [*counts, list(layer_counts(masks).values())] == [[400, 100], [200, 20], [100, 4]]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(1, 999), st.integers(1, 9), st.booleans())
def test_iterations_of_an_unchanging_score_end_where_one_does(size, thousandths, iterations, layerwise):
    weights = weights_of(a=size, b=7)
    allocation = "layerwise" if layerwise else "global"
    once, again = (
        next_masks(
            Pruning(rounds=2, fraction=thousandths / 1000, iterations=number, allocation=allocation),
            weights,
            ones(weights),
            round_number=1,
            output=[],
            seed=0,
        )
        for number in (1, iterations)
    )
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_inverted_keeps_the_lowest():
    weights = {"a.weight": torch.tensor([0.3, -5.0, 0.1]), "b.weight": torch.tensor([-0.2, 4.0])}
    config = Pruning(rounds=1, fraction=0.4, invert=True)
    found = next_masks(config, weights, ones(weights), round_number=1, output=[], seed=0)
    assert [mask.tolist() for mask in found.values()] == [[True, False, True], [True, False]]


def unsigned(weights, masks, *, seed):
    return {name: torch.arange(weight.numel(), dtype=torch.uint8) for name, weight in weights.items()}


def test_inverted_unsigned_scores_have_no_negative():
    weights = weights_of(a=4)
    config = Pruning(rounds=1, fraction=0.5, invert=True, score=f"{__name__}.unsigned")
    found = next_masks(config, weights, ones(weights), round_number=1, output=[], seed=0)
    assert found["a.weight"].tolist() == [True, True, False, False]


def test_counts_of_open_lth_are_of_one_pruning_a_round():
    with pytest.raises(ValueError, match=r"needs pruning\.iterations=1"):
        Pruning(rounds=1, count="open_lth", iterations=2)


def infinite_in_one(weights, masks, *, seed):
    return {name: 1 / weight for name, weight in weights.items()}


def failing(weights, masks, *, seed):
    raise KeyError("fc9.weight")


def test_an_infinite_score_and_one_that_fails_are_named():
    weights = {"a.weight": torch.tensor([0.0, 1.0, 2.0])}
    for score, told in (
        ("infinite_in_one", "score of a.weight is infinite at 1 remaining weights"),
        ("failing", "score=.*failing failed: KeyError: 'fc9.weight'"),
    ):
        config = Pruning(rounds=1, score=f"{__name__}.{score}")
        with pytest.raises(LthError, match=told):
            next_masks(config, weights, ones(weights), round_number=1, output=[], seed=0)
    masks = {"a.weight": torch.tensor([False, True, True])}
    config = Pruning(rounds=1, score=f"{__name__}.infinite_in_one")
    assert next_masks(config, weights, masks, round_number=1, output=[], seed=0)["a.weight"].sum() == 1


def test_what_a_score_says_of_pruned_weights_is_in_no_norm():
    weights = {"a.weight": torch.tensor([[0.0, 3.0, 4.0]]), "b.weight": torch.tensor([[0.5, 0.9]])}
    masks = {"a.weight": torch.tensor([[False, True, True]]), "b.weight": torch.ones(1, 2, dtype=torch.bool)}
    config = Pruning(rounds=1, fraction=0.25, score=f"{__name__}.relative", allocation="global_normalized")
    pruned = next_masks(config, weights, masks, round_number=1, output=[], seed=0)
    assert pruned["a.weight"].tolist() == [[False, True, True]]
    assert pruned["b.weight"].tolist() == [[False, True]]  # 0.5 of a norm of 1.03; 3 of 5


def relative(weights, masks, *, seed):
    return {name: weight * weight / weight for name, weight in weights.items()}
