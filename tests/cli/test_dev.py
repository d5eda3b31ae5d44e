"""`evaluation.subset` looks at some examples and says so; `--dev` goes through everything and keeps nothing."""

import csv
import io
import json

import pytest

from lth_cli.cli.progress import _Bars


def _row(tmp_path, name):
    return next(csv.DictReader(io.StringIO((tmp_path / "runs" / name / "results.csv").read_text())))


def test_results_of_a_subset_say_so_and_are_never_taken_for_all(lth, small, tmp_path) -> None:
    for name, subset in (("some", 50), ("all", "null"), ("again", 50)):
        assert lth("train", *small, f"name={name}", f"evaluation.subset={subset}").code == 0
    some, full, again = (_row(tmp_path, name) for name in ("some", "all", "again"))
    assert some["evaluation_subset"] == "50" and "evaluation_subset" not in full
    assert round(float(some["test_accuracy"]) * 50, 6).is_integer()
    assert some["test_accuracy"] != full["test_accuracy"]
    assert (again["test_accuracy"], again["steps_trained"]) == (some["test_accuracy"], "0")
    shown = [json.loads(lth("show", name, "--json").out) for name in ("some", "all")]
    identities = [
        json.loads((tmp_path / "runs" / name / "round_00" / "summary.json").read_text())["trajectory"]
        for name in ("some", "all")
    ]
    assert identities[0] == identities[1]
    assert shown[0]["results"][0]["evaluation_subset"] == 50
    assert "on 50 examples of each split" in lth("show", "some").out
    assert "evaluated on" not in lth("show", "all").out


@pytest.mark.parametrize(
    "asked",
    [
        ("schedule=multi_step", "rewind.to=5ep", "controls.kinds=[random]", "pruning.rounds=9"),
        ("schedule=cosine", "schedule.warmup=3ep", "pretrain.length=2ep", "checkpoint.keep=[4ep]"),
        ("distillation=kd", "distillation.teachers=[other]", "pruning.rounds=1"),
    ],
)
def test_dev_exercises_everything_and_keeps_nothing(lth, small, tmp_path, asked) -> None:
    assert lth("train", *small, "name=other").code == 0
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    texts = {path: path.read_bytes() for path in before}
    done = lth("prune", "--dev", *small, "training.length=200ep", *asked)
    assert done.code == 0, done.err
    assert "Nothing was kept" in done.out
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert texts == {path: path.read_bytes() for path in before}


def test_dev_finds_the_mistake(lth, small) -> None:
    done = lth("train", "--dev", *small, "training.batch_size=100000", "training.drop_last=true")
    assert done.code == 2 and "training examples" in done.err
    assert lth("train", "--dev", "-m", *small, "seed=0,1").code == 2


def test_the_accuracy_of_the_start_is_not_shown_while_it_trains() -> None:
    bars = _Bars("run", 1)
    notes = []
    for step in (100, 200):
        bars.evaluated({"split": "test", "accuracy": 0.1, "step": step}, "its training")
        bars.training(step + 50, 100, 300, 1.0)
        notes.append(bars._progress.tasks[1].fields["note"])
    assert notes == ["loss 1.0000", "loss 1.0000  test 10.00 % at step 200"]
