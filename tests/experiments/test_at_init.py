"""Pruning before training, and of whole channels, from end to end."""

import pytest
import torch

from lth_cli.pruning.mask import count
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state


def weights(round_, step):
    return load_state(round_.checkpoints()[step]).weights


def test_pruned_at_initialisation_the_dense_network_is_not_trained(tmp_path, lth_in, small):
    done = lth_in(
        tmp_path,
        "prune",
        *small,
        "pruning=at_init",
        "pruning.density=0.2",
        "name=a",
        "controls.kinds=[random]",
    )
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "runs" / "a")
    dense, ticket = run.results()
    assert dense["steps_trained"] == 0
    assert ticket["steps_trained"] == 16
    initial = weights(run.round(0), 0)
    masks = run.round(1).masks()
    kept = torch.cat([initial[name][mask].abs() for name, mask in masks.items()])
    gone = torch.cat([initial[name][~mask].abs() for name, mask in masks.items()])
    assert kept.min() >= gone.max()
    assert count(masks) == 504  # ceil(0.2 x 2520)
    again = lth_in(tmp_path, "rewind", "a", *small, "name=b", "control=reinit")
    assert again.code == 0, again.err
    assert lth_in(tmp_path, "verify", "a", "b").code == 0


def test_state_and_scores_may_be_of_different_steps(tmp_path, lth_in, small):
    shared = (*small, "pruning=at_init", "pruning.rounds=2", "pruning.density=0.25")
    done = lth_in(tmp_path, "prune", *shared, "rewind.to=5it", "pruning.at=3it", "name=a")
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "runs" / "a")
    assert run.round(0).summary["end_step"] == 5
    scored = weights(run.round(0), 3)
    masks = run.round(2).masks()
    kept = torch.cat([scored[name][mask].abs() for name, mask in masks.items()])
    gone = torch.cat([scored[name][~mask].abs() for name, mask in masks.items()])
    assert kept.min() >= gone.max(), "both rounds score the dense network at step 3"
    assert run.round(2).summary["start_step"] == 5


def test_a_channel_goes_with_its_norm(tmp_path, lth_in, small):
    wanted = [o for o in small if not o.startswith("model")]
    done = lth_in(
        tmp_path,
        "prune",
        *wanted,
        "model=resnet20",
        "model.depth=8",
        "model.width=4",
        "training.length=4it",
        "pruning=channel",
        "pruning.rounds=1",
        "pruning.fraction=0.4",
        "name=a",
    )
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "runs" / "a")
    masks = run.round(1).masks()
    assert {"bn.weight", "bn.bias", "blocks.0.bn1.weight", "blocks.0.bn2.bias"} <= masks.keys()
    assert not {name for name in masks if name.startswith("fc")}
    gone = ~masks["conv.weight"].flatten(1).any(1)
    assert torch.equal(~masks["bn.weight"], gone)
    assert torch.equal(~masks["bn.bias"], gone)
    end = weights(run.round(1), 4)
    for name, mask in masks.items():
        assert not end[name][~mask].any()
    assert any(not mask.flatten(1).any(1).all() for name, mask in masks.items() if mask.dim() > 1)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["pruning.train_dense=false"], "needs pruning.at"),
        (["pruning=two_of_four", "model.hidden=[31,20]"], "it does not divide"),
        (["pruning=channel", "pruning.output_layer=prune"], "outputs of the network"),
        (["pruning=channel", "controls.kinds=[random]"], "one by one"),
        (["pruning.at=17it"], "between 0 and 16"),
        (["pruning=snip", "pruning.density=0.0001"], "one weight is kept at least"),
        (["pruning=channel", "pruning.density=0.01"], "one channel of every tensor is kept at least"),
        (
            ["pruning=one_shot", "pruning.layer_densities={fc_layers.0.weight: 1e-4}"],
            "layer_densities: fc_layers.0",
        ),
        (["pruning=snip", "pruning.arguments={batches: 2, often: 3}"], "added to it with a plus"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_there(wrong, told, tmp_path, lth_in, small):
    done = lth_in(tmp_path, "prune", *small, *wrong)
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "runs").exists()


OWN = """
def of_another_shape(weights, masks, *, seed):
    return {name: weight.sum(0) for name, weight in weights.items()}

def later_not_a_number(weights, masks, *, seed):
    later = any((~mask).any() for mask in masks.values())
    return {name: weight.abs() * float("nan" if later else "1") for name, weight in weights.items()}
"""


def test_a_score_of_ones_own_is_tried_before_the_training(tmp_path, lth_in, small, monkeypatch):
    """Once, on one batch, of the initial weights; where it fails later, what is trained stays."""
    (tmp_path / "own_scores.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    rounds = ("pruning.rounds=2", "training.length=2it")
    refused = lth_in(tmp_path, "prune", *small, *rounds, "pruning.score=own_scores.of_another_shape")
    assert refused.code == 2
    assert (
        "pruning.score: tried on initial weights, the pruning score of fc_layers.0.weight has shape"
        in refused.err
    )
    assert not (tmp_path / "runs").exists()
    failed = lth_in(
        tmp_path, "prune", *small, *rounds, "pruning.score=own_scores.later_not_a_number", "name=a"
    )
    assert failed.code == 1 and "NaN at" in failed.err
    assert len(Run.open(tmp_path / "runs" / "a").results()) == 2


def test_rounds_that_end_above_the_density_are_told_of(tmp_path, lth_in, small):
    short = ("pruning.rounds=2", "training.length=2it")
    done = lth_in(tmp_path, "prune", *small, *short, "pruning.density=0.6")
    assert "2 rounds of 0.2 leave 63.97 % of the weights; pruning.rounds=3 reaches it" in done.err
    pattern = ("pruning=two_of_four", "model.hidden=[32,20]", "pruning.allocation=erk")
    assert (
        "allocation=erk has no effect"
        in lth_in(tmp_path, "prune", *small, *pattern, "training.length=2it").err
    )
    assert "not reached" not in lth_in(tmp_path, "prune", *small, *short, "pruning.density=0.7").err
