import pytest
import torch

from lth_cli.config.errors import ConfigError
from lth_cli.pruning import scores
from lth_cli.pruning.mask import ones

WEIGHTS = {"a": torch.tensor([[-3.0, 0.5]]), "b": torch.tensor([-0.0, 2.0, -1.0])}


def inverted(weights, masks, *, seed):
    return {name: -weight.abs() for name, weight in weights.items()}


def without_seed(weights, masks):
    return weights


def test_magnitude_is_the_absolute_value():
    found = scores.magnitude(WEIGHTS, ones(WEIGHTS), seed=0)
    assert {name: score.tolist() for name, score in found.items()} == {
        "a": [[3.0, 0.5]],
        "b": [0.0, 2.0, 1.0],
    }


def test_random_scores_have_no_ties_and_follow_the_seed():
    weights = {"a": torch.zeros(20, 10), "b": torch.zeros(300)}
    masks = ones(weights)
    first = scores.random(weights, masks, seed=1)
    assert {name: score.shape for name, score in first.items()} == {"a": (20, 10), "b": (300,)}
    assert torch.cat([score.flatten() for score in first.values()]).unique().numel() == 500
    assert torch.equal(first["b"], scores.random(weights, masks, seed=1)["b"])
    assert not torch.equal(first["b"], scores.random(weights, masks, seed=2)["b"])


def test_scores_are_found_by_short_name_and_import_path():
    assert scores.locate_score("magnitude") is scores.magnitude
    assert scores.locate_score("random") is scores.random
    assert scores.locate_score("lth_cli.pruning.scores.random") is scores.random
    assert scores.locate_score(f"{__name__}.inverted") is inverted


@pytest.mark.parametrize("name", ["magnitud", "locate_score", "total", "Score", "", "_is_score"])
def test_unknown_score_lists_what_is_accepted(name):
    with pytest.raises(
        ConfigError, match=r"pruning\.score: no score .*accepted: magnitude, random, or an import path"
    ):
        scores.locate_score(name)


@pytest.mark.parametrize("name", [f"{__name__}.without_seed", "torch.abs", "math.floor"])
def test_what_is_no_score_is_refused(name):
    with pytest.raises(ConfigError, match=r"pruning\.score: .* must take \(weights, masks, \*, seed\)"):
        scores.locate_score(name)


def test_missing_module_is_named():
    with pytest.raises(ConfigError, match=r"pruning\.score: cannot import 'no_such_lab'"):
        scores.locate_score("no_such_lab.snip")
