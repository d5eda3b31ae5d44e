import pytest

from lth_cli.config.errors import ConfigError
from lth_cli.config.schema import Pruning
from lth_cli.pruning.select import fraction_of, select_prunable

NAMES = ["conv1.weight", "conv1.bias", "block.fc.weight", "fc.weight", "fc.bias"]


def select(prune_output=True, **fields):
    return select_prunable(Pruning(rounds=1, **fields), NAMES, ["fc.weight", "fc.bias"], prune_output)


def test_everything_by_default():
    assert select() == NAMES


@pytest.mark.parametrize(
    ("setting", "prune_output", "pruned"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("prune", False, True),
        ("keep", True, False),
    ],
)
def test_output_layer(setting, prune_output, pruned):
    chosen = select(prune_output, output_layer=setting)
    assert chosen == (NAMES if pruned else ["conv1.weight", "conv1.bias", "block.fc.weight"])


def test_exclude_patterns():
    assert select(exclude=["conv*.weight", "*.bias"]) == ["block.fc.weight", "fc.weight"]


def test_all_problems_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        select(
            exclude=["conv9*", "*"],
            allocation="layerwise",
            layer_fractions={"output": 0.1, "Conv1*": 0.1},
        )
    assert [path for path, _ in caught.value.problems] == [
        "pruning.exclude",
        "pruning.layer_fractions",
        "pruning.exclude",
    ]
    assert "'conv9*' matches no prunable tensor; there are: conv1.weight, conv1.bias" in str(caught.value)
    assert "leaves nothing to prune" in str(caught.value)


def test_keeping_the_only_layer_leaves_nothing():
    with pytest.raises(ConfigError, match=r"pruning\.output_layer: leaves nothing to prune"):
        select_prunable(Pruning(rounds=1), ["fc.weight"], ["fc.weight"], False)


def test_fractions_of_layers_that_are_not_pruned_are_fine():
    fractions = {"output": 0.1, "fc.*": 0.1}
    chosen = select(False, allocation="layerwise", layer_fractions=fractions)
    assert "fc.weight" not in chosen


def test_first_matching_pattern_gives_the_fraction():
    config = Pruning(
        rounds=1,
        allocation="layerwise",
        layer_fractions={"conv*.bias": 0.0, "conv*": 0.15, "output": 0.1, "fc.*": 0.5},
    )
    assert [fraction_of(config, name, ["fc.weight", "fc.bias"]) for name in NAMES] == [
        0.15,
        0.0,
        0.2,
        0.1,
        0.1,
    ]
