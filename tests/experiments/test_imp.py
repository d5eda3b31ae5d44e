"""The protocol of Frankle & Carbin 2019 and Frankle et al. 2020, read back from the run directory."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from lth_cli.config.compose import load, validate
from lth_cli.data.batches import labelled
from lth_cli.pruning.mask import apply, is_nested
from lth_cli.store.results import COLUMNS
from lth_cli.store.runs import Run

ROUNDS, REWIND, END = 4, 3, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lth_in, small):
    folder = tmp_path_factory.mktemp("imp")
    done = lth_in(
        folder,
        "prune",
        *small,
        "name=imp",
        f"pruning.rounds={ROUNDS}",
        f"rewind.to={REWIND}it",
        "controls.kinds=[reinit,random]",
        "dataset.validation=50",
        "dataset.subset.fraction=0.31",
    )
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return Run.open(folder / "runs" / "imp")


def kept(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def test_exactly_the_ceiling_of_a_fifth_of_what_remains_goes_each_round(run):
    total = 64 * 30 + 30 * 20  # the output layer of a LeNet is never pruned
    expected = [total]
    for _ in range(ROUNDS):
        expected.append(expected[-1] - math.ceil(Fraction(1, 5) * expected[-1]))
    assert [kept(round_.masks()) for round_ in run.rounds()] == expected
    assert [row["density"] for row in run.results()] == pytest.approx([count / total for count in expected])
    assert sorted(tuple(mask.shape) for mask in run.round(0).masks().values()) == [(20, 30), (30, 64)]


def test_counts_of_open_lth_are_a_share_of_the_output_layer_too(tmp_path, lth_in, small):
    done = lth_in(
        tmp_path,
        "prune",
        *small,
        "name=a",
        "training.length=1it",
        "pruning.rounds=2",
        "pruning.count=open_lth",
    )
    assert done.code == 0, done.err
    # 2,520 prunable and 200 of the output layer: ceil(0.2 x 2,720) and one go, then ceil(0.2 x 2,175) and one.
    assert [kept(round_.masks()) for round_ in Run.open(tmp_path / "runs" / "a").rounds()] == [
        2520,
        1975,
        1539,
    ]
    refused = lth_in(tmp_path, "prune", *small, "pruning=layerwise_magnitude", "pruning.count=open_lth")
    assert refused.code == 2
    assert "pruning.count=open_lth needs pruning.allocation=global" in refused.err


TIED = """
from torch import nn

def tied(input_shape, classes):
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Linear(10, 64), nn.Linear(64, 10))
    layers[3].weight = layers[1].weight
    return layers
"""


def test_an_output_layer_that_shares_its_tensor_is_kept(tmp_path, lth_in, small, monkeypatch):
    (tmp_path / "tied_output.py").write_text(TIED)
    monkeypatch.syspath_prepend(tmp_path)
    own = [argument for argument in small if not argument.startswith("model.")]
    model = ("~model.hidden", "model._target_=tied_output.tied", "pruning.output_layer=keep")
    done = lth_in(tmp_path, "prune", *own, *model, "name=a", "training.length=1it", "pruning.rounds=1")
    assert done.code == 0, done.err
    assert list(Run.open(tmp_path / "runs" / "a").round(1).masks()) == ["2.weight"]


def test_masks_are_nested(run):
    masks = [round_.masks() for round_ in run.rounds()]
    for outer, inner in itertools.pairwise(masks):
        assert is_nested(inner, outer)


def test_every_round_starts_from_the_masked_rewind_point_with_a_fresh_optimizer(run):
    rewound = run.round(0).checkpoint(REWIND)
    for round_ in run.rounds()[1:]:
        start = round_.checkpoint(REWIND)
        expected = apply(rewound.weights, round_.masks())
        assert start.optimizer == {}
        assert all(torch.equal(start.weights[name], expected[name]) for name in expected)
    assert run.round(0).checkpoint(0).weights.keys() == rewound.weights.keys()


def test_the_smallest_of_all_layers_go(run):
    for before, after in itertools.pairwise(run.rounds()):
        weights, outer, inner = before.checkpoint(END).weights, before.masks(), after.masks()
        gone = torch.cat([weights[name][outer[name] & ~inner[name]].abs() for name in outer])
        left = torch.cat([weights[name][inner[name]].abs() for name in outer])
        assert gone.max() <= left.min()


def test_every_round_trains_from_the_rewind_point_to_the_horizon(run):
    rows = run.results()
    assert [(row["steps_trained"], row["steps_reused"]) for row in rows] == [(END, 0)] + [
        (END - REWIND, 0)
    ] * ROUNDS
    for round_ in run.rounds()[1:]:
        assert sorted(round_.checkpoints()) == [REWIND, END]
        assert [line["step"] for line in round_.metrics() if line["split"] == "test"] == [REWIND, 8, END]


def test_pruned_weights_are_zero_at_the_end(run):
    for round_ in run.rounds()[1:]:
        end = round_.checkpoint(END).weights
        assert all(not end[name][~mask].any() for name, mask in round_.masks().items())
        assert all(end[name][mask].any() for name, mask in round_.masks().items())


def test_accuracies_are_those_of_the_stored_weights(run):
    from lth_cli.experiments.plan import make_plan

    plan = make_plan(validate(run.config))
    inputs, labels = (
        torch.cat(part) for part in zip(*labelled(plan.dense.data.evaluation("test")), strict=True)
    )
    for round_ in run.rounds():
        model = plan.dense.recipe.build(0).eval()
        model.load_state_dict(round_.checkpoint(END).weights)
        with torch.no_grad():
            hits = (model(inputs).argmax(1) == labels).sum().item()
        assert run.results()[round_.number]["test_accuracy"] == hits / len(labels)
    assert run.results()[0]["test_accuracy"] > 0.5


def test_results_have_the_fixed_columns_and_every_split(run):
    header = (run.path / "results.csv").read_text().splitlines()[0].split(",")
    assert tuple(header[: len(COLUMNS)]) == COLUMNS
    for row in run.results():
        assert row["sparsity"] == pytest.approx(1 - row["density"])
        for split in ("train", "val", "test"):
            assert 0 <= row[f"{split}_accuracy"] <= 1
            assert row[f"{split}_loss"] > 0


def test_reinitialised_controls_have_the_ticket_masks_and_other_weights(run):
    assert run.branches() == ["random", "reinit"]
    numbers = [round_.number for round_ in run.rounds("reinit")]
    assert numbers == list(range(1, ROUNDS + 1))
    for number in numbers:
        ticket, control = run.round(number), run.round(number, "reinit")
        masks = control.masks()
        assert all(torch.equal(masks[name], mask) for name, mask in ticket.masks().items())
        start, rewound = control.checkpoint(REWIND).weights, ticket.checkpoint(REWIND).weights
        for name, mask in masks.items():
            assert not start[name][~mask].any()
            assert not (start[name][mask] == rewound[name][mask]).any()
    first, second = (run.round(number, "reinit").checkpoint(REWIND).weights for number in (1, 2))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_random_controls_keep_as_many_of_each_layer_elsewhere_with_the_rewound_weights(run):
    rewound = run.round(0).checkpoint(REWIND)
    for round_ in run.rounds("random"):
        ticket, masks = run.round(round_.number).masks(), round_.masks()
        for name, mask in masks.items():
            assert mask.sum() == ticket[name].sum()
            assert not torch.equal(mask, ticket[name])
        start, expected = round_.checkpoint(REWIND).weights, apply(rewound.weights, masks)
        assert all(torch.equal(start[name], expected[name]) for name in expected)


def test_the_run_says_everything_needed_to_run_it_again(run, folder, lth_in, small):
    info = run.info
    assert (info["kind"], info["state"], info["error"]) == ("prune", "finished", None)
    assert info["seeds"] == {"init": 0, "order": 0, "augment": 0, "mask": 0, "split": 0}
    assert info["command"][:2] == ["lth", "prune"]
    assert {"lth", "python", "torch", "torchvision"} <= info["versions"].keys()
    assert (run.config["device"], run.config["threads"]) == ("cpu", 1)
    assert {path.name for path in (run.path / "figures").iterdir()} == {"accuracy.png", "accuracy.svg"}
    for round_ in run.rounds():
        assert round_.summary["densities"].keys() == round_.masks().keys()
        assert round_.summary["end_step"] == END


def test_the_same_command_again_shows_and_does_not_repeat(run, folder, lth_in, small):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    again = lth_in(
        folder,
        "prune",
        *small,
        "name=imp",
        f"pruning.rounds={ROUNDS}",
        f"rewind.to={REWIND}it",
        "controls.kinds=[reinit,random]",
        "dataset.validation=50",
        "dataset.subset.fraction=0.31",
    )
    assert again.code == 0
    assert "finished already" in again.err
    assert "reinit" in again.out
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()} == before


def test_another_experiment_cannot_take_the_name(run, folder, lth_in, small):
    refused = lth_in(folder, "prune", *small, "name=imp", "pruning.rounds=3")
    assert refused.code == 2
    assert "name: the run 'imp' exists and is another experiment" in refused.err
    assert "pruning.rounds (4 there, 3 now)" in refused.err
    other = lth_in(folder, "train", *small, "name=imp")
    assert other.code == 2
    assert "command (prune there, train now)" in other.err


def test_a_key_that_data_had_not_yet_is_its_default(tmp_path, lth_in):
    typed = ("dataset=mnist1d", "dataset.num_samples=100", "training.length=1it", "device=cpu", "threads=1")
    assert lth_in(tmp_path, "train", *typed, "name=early", "-q").code == 0
    path = tmp_path / "runs" / "early" / "config.yaml"
    stored = path.read_text()
    path.write_text(stored.replace("  shuffle_seq: false\n", ""))
    assert path.read_text() != stored
    assert "finished already" in lth_in(tmp_path, "train", *typed, "name=early").err
    refused = lth_in(tmp_path, "train", *typed, "dataset.shuffle_seq=true", "name=early")
    assert refused.code == 2
    assert "dataset.shuffle_seq (False there, True now)" in refused.err


def test_a_longer_sweep_repeats_no_step(run, folder, lth_in, small):
    """Two more rounds under another name: everything up to round 4 is read, the rest trained."""
    more = lth_in(
        folder,
        "prune",
        *small,
        "name=more",
        f"pruning.rounds={ROUNDS + 1}",
        f"rewind.to={REWIND}it",
        "dataset.validation=50",
        "dataset.subset.fraction=0.31",
    )
    assert more.code == 0
    steps = [
        (row["steps_trained"], row["steps_reused"]) for row in Run.open(folder / "runs" / "more").results()
    ]
    assert steps == [(0, END)] + [(0, END - REWIND)] * ROUNDS + [(END - REWIND, 0)]


def test_a_run_is_complete_in_itself(run, folder, lth_in, tmp_path):
    import shutil

    shutil.copytree(run.path, tmp_path / "elsewhere")
    shown = lth_in(tmp_path, "show", "elsewhere")
    assert shown.code == 0
    assert "finished" in shown.out
    assert Run.open(tmp_path / "elsewhere").round(1).checkpoint(END).step == END


def test_configs_written_are_configs_read(run):
    assert validate(run.config).model_dump(mode="json") == run.config
    assert load("prune", []).config.pruning.rounds == 12
