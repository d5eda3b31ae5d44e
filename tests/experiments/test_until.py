"""Runs that end at a goal, from end to end."""

import pytest

from lth_cli.store.results import status
from lth_cli.store.runs import Run

SGD = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "dataset.validation=0.2")


def test_complete_incomplete_and_infeasible_are_recorded_and_told(tmp_path, lth_in, small):
    known = {}
    for name, rate, goal in (("good", 0.1, 0.5), ("slow", 1e-5, 0.5), ("wild", 1e18, 0.5)):
        done = lth_in(
            tmp_path,
            "train",
            *small,
            *SGD,
            "training.length=4ep",
            "evaluation.every=4it",
            f"optimizer.lr={rate}",
            f"until=val_accuracy:{goal}",
            f"name={name}",
        )
        assert done.code == 0, done.err
        run = Run.open(tmp_path / "runs" / name)
        (row,) = run.results()
        known[name] = status(row), row, run.round(0)
    good, slow, wild = (known[name] for name in ("good", "slow", "wild"))
    assert [one[0] for one in (good, slow, wild)] == ["complete", "incomplete", "infeasible"]
    steps = good[1]["steps_to_goal"]
    assert steps == good[2].summary["end_step"] == max(good[2].checkpoints())
    assert steps % 4 == 0
    assert good[1]["val_accuracy"] >= 0.5
    assert slow[1]["steps_to_goal"] is None
    assert wild[1]["diverged_at"] > wild[2].summary["end_step"]
    listed = lth_in(tmp_path, "ls").out
    assert f"val accuracy 0.5: complete after {steps} steps" in listed
    assert "incomplete" in listed
    assert "infeasible" in lth_in(tmp_path, "show", "wild").out
    assert lth_in(tmp_path, "verify").code == 0
    # Another goal is another run, of the same training.
    again = lth_in(tmp_path, "train", *small, *SGD, "name=good", "until=val_accuracy:0.6")
    assert again.code == 2
    assert "until" in again.err


def test_a_ticket_of_the_initial_weights_trains_to_the_goal(tmp_path, lth_in, small):
    snip = ("pruning=snip", "pruning.density=0.3", "optimizer.lr=0.1", "until=val_accuracy:0.5")
    done = lth_in(tmp_path, "prune", *small, *SGD, *snip, "training.length=6ep", "name=a")
    assert done.code == 0, done.err
    dense, ticket = Run.open(tmp_path / "runs" / "a").results()
    assert (status(dense), status(ticket)) == (None, "complete")
    assert ticket["val_accuracy"] >= 0.5


@pytest.mark.parametrize(
    ("command", "said", "why"),
    [
        ("train", "until=val_accuracy:0.5", "there are none; write dataset.validation"),
        ("train", "until=test_error:0.5", "accepted: test_accuracy, test_loss"),
        ("train", "until=train_loss:0.1", "SPLIT_METRIC:VALUE"),
        ("prune", "until=test_accuracy:0.5", "pruning.at=null scores the end of another"),
    ],
)
def test_what_cannot_be_a_goal_is_refused(command, said, why, tmp_path, lth_in, small):
    done = lth_in(tmp_path, command, *small, said)
    assert done.code == 2
    assert why in done.err.replace("\n", " ")
    assert not (tmp_path / "runs").exists()
