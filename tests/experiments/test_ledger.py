"""What rounds cost, worked out by hand for a network of 64-30-20-10: 2,720 weights, 200 of them not pruned."""

import json

import pytest

from lth_cli.config.compose import load, validate
from lth_cli.experiments.ledger import ledger
from lth_cli.experiments.plan import make_plan
from lth_cli.pruning.mask import everything
from lth_cli.store.results import COST_COLUMNS
from lth_cli.store.runs import Run

DENSE, PRUNED = 64 * 30 + 30 * 20 + 20 * 10, 504  # a fifth of 2,520
BIASES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lth_in, small):
    folder = tmp_path_factory.mktemp("ledger")
    words = ("prune", *small, "pruning.rounds=1", "rewind.to=3it", "controls.kinds=[reinit]")
    for name in ("first", "again"):
        done = lth_in(folder, *words, f"name={name}")
        assert done.code == 0, done.err
    done = lth_in(folder, "train", *small, "training.length=3ep", "name=longer")
    assert done.code == 0, done.err
    return folder


def costs(run, branch=None):
    return [[row[column] for column in COST_COLUMNS] for row in run.results(branch)]


def examples(run, first, end):
    """Training examples of the steps, by the definition of an epoch."""
    plan = make_plan(validate(run.config))
    size, batch = plan.dense.data.sizes["train"], plan.config.training.batch_size
    each = [batch] * (size // batch) + [size % batch]
    return sum((each * 3)[first:end])


def test_rounds_and_controls(folder):
    run = Run.open(folder / "runs" / "first")
    whole, rest = examples(run, 0, 16), examples(run, 3, 16)
    left = DENSE - PRUNED
    pruned = [left + BIASES, DENSE + BIASES, left, DENSE, 3 * left * rest, 0]
    assert costs(run) == [[DENSE + BIASES] * 2 + [DENSE] * 2 + [3 * DENSE * whole, 0], pruned]
    assert costs(run, "reinit") == [pruned]
    header = (run.path / "results.csv").read_text().splitlines()[0]
    assert header.endswith("," + ",".join(COST_COLUMNS))


def test_what_another_run_trained_is_reused(folder):
    first, again, longer = (Run.open(folder / "runs" / name) for name in ("first", "again", "longer"))
    for mine, theirs in zip(costs(again), costs(first), strict=True):
        assert mine == [*theirs[:4], 0, theirs[4]]
    ((*_, trained, reused),) = costs(longer)
    assert (trained, reused) == (
        3 * DENSE * examples(longer, 16, 24),
        3 * DENSE * examples(longer, 0, 16),
    )


def test_it_is_shown(folder, lth_in):
    told = lth_in(folder, "show", "first").out
    assert "2,780 -> 2,276 parameters, 2,720 -> 2,216 multiply-adds a forward pass" in told
    shown = json.loads(lth_in(folder, "show", "again", "--json").out)
    run = Run.open(folder / "runs" / "first")
    everywhere = sum(row["training_madds"] for branch in (None, "reinit") for row in run.results(branch))
    assert (shown["training_madds"], shown["reused_madds"]) == (0, everywhere)


def test_trainings_that_rounds_start_from_count(folder, lth_in):
    done = lth_in(folder, "rewind", "first", "rewind.to=5it", "rounds=1", "name=rewound")
    assert done.code == 0, done.err
    run = Run.open(folder / "runs" / "rewound")
    origin = run.origins()[0].summary["cost"]
    assert origin["training_madds"] + origin["reused_madds"] == 3 * DENSE * examples(run, 0, 5)
    shown = json.loads(lth_in(folder, "show", "rewound", "--json").out)
    assert shown["origins"][0]["cost"] == origin
    mine = run.results()[0]["training_madds"]
    assert mine == 3 * (DENSE - PRUNED) * examples(run, 5, 16)
    assert shown["training_madds"] == mine + origin["training_madds"]


def planned(small, *words):
    return make_plan(load("train", [*small, "training.drop_last=true", *words]).config)


def test_gradual_pruning_counts_the_share_of_each_step(small):
    """Steps 0-3 dense; 30 % from step 4 on: s = 0.8 (1 - (1 - 1/2)^3) = 0.7; from step 8 on the masks of the end."""
    words = ("sparse_training=gradual", "sparse_training.density=0.2", "sparse_training.every=4it")
    plan = planned(small, *words, "sparse_training.end=8it")
    masks = {name: mask.clone() for name, mask in everything(plan.prunable_shapes).items()}
    for mask, kept in zip(masks.values(), (500, 4), strict=True):
        mask.view(-1)[kept:] = False
    end = plan.dense.horizon
    found = ledger(plan.dense, masks, end, [(0, 5), (5, end)])
    each = 4 * DENSE + 4 * (576 + 180 + 200) + (end - 8) * (500 + 4 + 200)
    assert found["training_madds"] == 3 * plan.config.training.batch_size * each
    assert (found["madds"], found["reused_madds"]) == (704, 0)


def test_straight_through_gradients_are_dense_in_every_step(small):
    plan = planned(small, "sparse_training=straight_through", "sparse_training.density=0.2")
    masks = {name: mask.clone() for name, mask in everything(plan.prunable_shapes).items()}
    for mask in masks.values():
        mask.view(-1)[len(mask.view(-1)) // 5 :] = False
    found = ledger(plan.dense, masks, 3, [(0, 3)])
    assert found["madds"] == 504 + 200
    assert found["training_madds"] == 3 * plan.config.training.batch_size * (2 * 704 + DENSE)


def test_rigl_counts_dense_gradients_where_masks_change(small):
    words = ("sparse_training=rigl", "sparse_training.density=0.2", "sparse_training.every=4it")
    plan = planned(small, *words, "sparse_training.end=10it")
    end = plan.dense.horizon
    found = ledger(plan.dense, plan.dense.masks, end, [(4, 5)])
    sparse = found["madds"]
    assert sparse == 504 + 200
    batch = plan.config.training.batch_size
    assert found["training_madds"] == batch * (2 * sparse + DENSE)
    assert found["reused_madds"] == batch * ((end - 2) * 3 * sparse + 2 * sparse + DENSE)


def test_two_passes_of_sam(small):
    plan = planned(small, "update=sam")
    found = ledger(plan.dense, everything(plan.prunable_shapes), 2, [(0, 1)])
    each = 2 * 3 * DENSE * plan.config.training.batch_size
    assert (found["training_madds"], found["reused_madds"]) == (each, each)
