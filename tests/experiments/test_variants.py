"""Other ways to prune, each a short run read back."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.experiments.plan import make_plan
from lth_cli.pruning.mask import everything
from lth_cli.pruning.round import next_masks
from lth_cli.store.runs import Run
from lth_cli.training.probe import TrainingProbe


@pytest.fixture
def prune(tmp_path, lth, small):
    def go(*overrides, command="prune", base=small):
        done = lth(command, *base, "name=x", *overrides)
        assert done.code == 0, done.err
        return Run.open(tmp_path / "runs" / "x")

    return go


def kept(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def by_layer(masks):
    counts = {}
    for name, count in kept(masks).items():
        layer = name.rpartition(".")[0]
        counts[layer] = counts.get(layer, 0) + count
    return counts


def test_training_is_shared_with_pruning(tmp_path, lth, small):
    assert lth("train", *small, "name=dense").code == 0
    assert lth("prune", *small, "name=ticket", "pruning.rounds=1").code == 0
    dense, ticket = (Run.open(tmp_path / "runs" / name) for name in ("dense", "ticket"))
    assert [(row["steps_trained"], row["steps_reused"]) for row in dense.results()] == [(16, 0)]
    assert [(row["steps_trained"], row["steps_reused"]) for row in ticket.results()] == [(0, 16), (16, 0)]
    one, other = (run.round(0).checkpoints()[16] for run in (dense, ticket))
    assert one.read_bytes() == other.read_bytes()
    assert one.samefile(other)


def test_deleting_the_store_or_a_run_harms_no_other(tmp_path, lth, small):
    import shutil

    assert lth("prune", *small, "name=a", "pruning.rounds=1").code == 0
    shutil.rmtree(tmp_path / "runs" / ".store")
    assert lth("show", "a").code == 0
    assert lth("prune", *small, "name=b", "pruning.rounds=1").code == 0
    shutil.rmtree(tmp_path / "runs" / "b")
    run = Run.open(tmp_path / "runs" / "a")
    assert run.round(1).checkpoint(16).step == 16


def test_scored_at_an_earlier_step(prune):
    run = prune("pruning.rounds=1", "pruning.at=5it")
    weights, masks = run.round(0).checkpoint(5).weights, run.round(1).masks()
    gone = torch.cat([weights[name][~mask].abs() for name, mask in masks.items()])
    left = torch.cat([weights[name][mask].abs() for name, mask in masks.items()])
    assert gone.max() <= left.min()
    end = run.round(0).checkpoint(16).weights
    assert max(end[name][~mask].abs().max() for name, mask in masks.items()) > min(
        end[name][mask].abs().min() for name, mask in masks.items()
    )


def test_a_target_density_ends_the_rounds_exactly_there(prune):
    run = prune("pruning.rounds=12", "pruning.density=0.5", "controls.kinds=[random]", "controls.rounds=1-12")
    total = 64 * 30 + 30 * 20
    counts = [sum(kept(round_.masks()).values()) for round_ in run.rounds()]
    assert counts[-1] == math.ceil(0.5 * total)
    assert len(counts) == 5
    assert counts[:4] == [2520, 2016, 1612, 1289]
    assert [round_.number for round_ in run.rounds("random")] == [1, 2, 3, 4]


def test_layerwise_with_the_output_at_half_the_rate(prune):
    run = prune("pruning=layerwise_magnitude", "pruning.rounds=2")
    sizes = kept(run.round(0).masks())
    assert sorted(sizes.values()) == [200, 600, 1920]
    for before, after in itertools.pairwise(run.rounds()):
        for name, count in kept(after.masks()).items():
            had = kept(before.masks())[name]
            rate = Fraction(1, 10) if sizes[name] == 200 else Fraction(1, 5)
            assert had - count == math.ceil(rate * had), name


def test_linear_schedule_and_one_shot(prune):
    run = prune("pruning.schedule=linear", "pruning.rounds=3")
    assert [sum(kept(round_.masks()).values()) for round_ in run.rounds()] == [2520, 1680, 840, 0]


def test_the_mnist1d_case_study_in_small(prune):
    run = prune(
        "experiment=mnist1d_lottery",
        "training.length=60it",
        "pruning.at=40it",
        "pruning.rounds=3",
        "model.hidden=20",
        "dataset.num_samples=500",
        base=("device=cpu", "threads=1"),
    )
    sizes = by_layer(run.round(0).masks())
    assert sizes == {"linear1": 820, "linear2": 420, "linear3": 210}, "biases are pruned with their weights"
    for number, round_ in enumerate(run.rounds()):
        remaining = {layer: round(size * (1 - Fraction(number, 3))) for layer, size in sizes.items()}
        assert by_layer(round_.masks()) == remaining
        start, first = round_.checkpoint(0).weights, run.round(0).checkpoint(0).weights
        for name, mask in round_.masks().items():
            assert torch.equal(start[name], torch.where(mask, first[name], 0.0))
    assert run.results()[-1]["density"] == 0.0
    # Nothing is left: every example gets the same class.
    assert run.results()[-1]["test_accuracy"] < 0.3


def test_a_score_and_a_model_of_ones_own(prune, tmp_path, monkeypatch):
    (tmp_path / "own_room.py").write_text(
        "import torch\n"
        "def first(weights, masks, *, seed):\n"
        "    return {n: torch.arange(w.numel(), dtype=torch.float32).view_as(w) for n, w in weights.items()}\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, input_shape, classes, *, width: int):\n"
        "        super().__init__()\n"
        "        self.a = torch.nn.Linear(64, width)\n"
        "        self.b = torch.nn.Linear(width, classes)\n"
        "    def forward(self, x):\n"
        "        return self.b(self.a(x.flatten(1)).relu())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "configs" / "model" / "own.yaml").write_text("_target_: own_room.Net\nwidth: 5\n")
    run = prune(
        "--config-dir",
        "configs",
        "model=own",
        "pruning.score=own_room.first",
        "pruning.rounds=1",
        "training.length=4it",
        base=("device=cpu", "threads=1"),
    )
    masks = run.round(1).masks()
    assert sum(kept(masks).values()) == 370 - 74
    assert not masks["a.weight"].flatten()[:37].any()


def test_scores_ask_the_training_that_they_prune(prune, small):
    """Each round that of the round before: its weights, biases and statistics at its end."""
    asked = (
        "pruning=snip",
        "pruning.at=null",
        "pruning.train_dense=true",
        "pruning.rounds=2",
        "pruning.arguments.batches=2",
        "training.length=4it",
    )
    run = prune(*asked)
    plan = make_plan(load("prune", [*small, *asked]).config)
    masks = everything(plan.prunable_shapes)
    for number in (1, 2):
        state = run.round(number - 1).checkpoint(4)
        probe = TrainingProbe(plan.dense, state)
        masks = next_masks(
            plan.config.pruning,
            state.weights,
            masks,
            round_number=number,
            output=plan.output,
            seed=0,
            probe=probe,
        )
        found = run.round(number).masks()
        assert all(torch.equal(mask, found[name]) for name, mask in masks.items())


def test_exclusions_and_biases(prune):
    run = prune("pruning.rounds=1", "pruning.biases=true", "pruning.output_layer=prune")
    assert len(run.round(1).masks()) == 6


def test_another_thread_count_is_another_experiment(lth, small):
    assert lth("train", *small, "name=x").code == 0
    refused = lth("train", *small, "name=x", "threads=2")
    assert refused.code == 2
    assert "threads (1 there, 2 now)" in refused.err
