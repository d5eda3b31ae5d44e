"""`lth sequence`: each run learns from those before it, beside the same runs without teachers."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from lth_cli.store.runs import Run

SWEPT = "optimizer.lr=1e-3,2e-3,4e-3"


def taught_by(runs, name):
    noted = Run.open(runs / name).round(0).summary["description"]["objective"].get("distillation")
    return [] if noted is None else [(teacher["trajectory"], noted["every"]) for teacher in noted["teachers"]]


def trajectory(runs, name):
    return Run.open(runs / name).round(0).summary["trajectory"]


def test_each_learns_from_the_one_before(lth, small, tmp_path):
    command = ("sequence", *small, SWEPT, "name=lrs", "distillation.every=4", "-q")
    done = lth(*command)
    assert done.code == 0, done.err
    runs = tmp_path / "runs"
    plain = [f"lrs-lr_{rate}-plain" for rate in ("0.001", "0.002", "0.004")]
    first, second, third = plain[0], "lrs-lr_0.002", "lrs-lr_0.004"
    assert {path.name for path in runs.iterdir() if (path / "run.json").exists()} == {*plain, second, third}
    assert all(taught_by(runs, name) == [] for name in plain)
    assert taught_by(runs, second) == [(trajectory(runs, first), 4)]
    assert taught_by(runs, third) == [(trajectory(runs, second), 4)]

    rows = list(csv.DictReader((runs / ".sequences" / "lrs" / "sequence.csv").open()))
    assert [row["run"] for row in rows] == [first, second, third]
    assert [row["plain_run"] for row in rows] == plain
    own = [float(row["seconds"]) for row in rows]
    assert float(rows[2]["total_free"]) == pytest.approx(sum(own))
    assert float(rows[2]["total_amortised"]) == pytest.approx(sum(own) + own[0] + own[1])
    assert float(rows[2]["total_plain"]) == pytest.approx(sum(float(row["plain_seconds"]) for row in rows))
    for row in rows:
        assert float(row["accuracy"]) == Run.open(runs / row["run"]).results()[-1]["test_accuracy"]
    assert (runs / ".sequences" / "lrs" / "accuracy.svg").exists()

    # A second time nothing is trained; a lost run is.
    before = {name: trajectory(runs, name) for name in (second, third)}
    shutil.rmtree(runs / third)
    again = lth(*command)
    assert again.code == 0, again.err
    assert {name: trajectory(runs, name) for name in (second, third)} == before
    assert "16 steps were read from the store" in again.out
    rows = list(csv.DictReader((runs / ".sequences" / "lrs" / "sequence.csv").open()))
    assert float(rows[2]["seconds"]) > 0


def test_all_before_it_teach_and_costs_are_shared(lth, small, tmp_path):
    more = ("--from", "all", "--no-baseline", "distillation.sample=2", "--json")
    done = lth("sequence", *small, "seed=0,1,2", "name=s", *more)
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    runs = tmp_path / "runs"
    names = [row["run"] for row in rows]
    assert rows[2]["teachers"].split() == names[:2]
    assert [identity for identity, _ in taught_by(runs, names[2])] == [
        trajectory(runs, name) for name in names[:2]
    ]
    own = [row["seconds"] for row in rows]
    assert rows[2]["total_amortised"] == pytest.approx(sum(own) + own[0] + own[1])
    assert rows[2]["plain_run"] is None
    assert not (runs / "s-seed_2-plain").exists()


def test_tickets_teach_tickets(lth, small, tmp_path):
    done = lth("sequence", *small, "seed=0,1", "name=p", "--prune", "pruning.rounds=1", "-q")
    assert done.code == 0, done.err
    (last,) = taught_by(tmp_path / "runs", "p-seed_1")
    assert last[0] == Run.open(tmp_path / "runs" / "p-seed_0-plain").round(1).summary["trajectory"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seed=0",), "two runs at least"),
        (("seed=0,1", "distillation.teachers=[a]"), "each run learns from those before it"),
        (("seed=0,1", "++distillation.teachers=[a]"), "each run learns from those before it"),
        (("seed=0,1", "distillation=none"), "each run learns from those before it"),
        (("seed=0,1", "pruning.rounds=1,2"), "has no effect on lth train"),
        (("seed=0,1", "runs_dir=a,b"), "must be the same for every point"),
        (("seed=0,1", "distillation.every=0"), "distillation.every"),
        (("seed=0,1", "optimizer.lr=-1"), "optimizer.lr"),
        (("seed=0,1", "--from", "none"), "none"),
    ],
)
def test_what_is_refused(lth, small, tmp_path, arguments, message):
    done = lth("sequence", *small, *arguments)
    assert done.code == 2
    assert message in done.err
    assert not Path(tmp_path / "runs").exists()
