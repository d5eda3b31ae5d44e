"""`lth analyze`: answers are stored once, checked, found again, and wrong questions write nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from analysis_helpers import Lth, answer

from lth_cli.analyses.schema import sections
from lth_cli.analyses.work import Work
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.collect import find_garbage
from lth_cli.store.runs import Run
from lth_cli.training.engine import Interrupted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("analyses")
    for arguments in (
        ("prune", *small, "name=one", "pruning.rounds=2", "controls.kinds=[random]"),
        ("prune", *small, "name=two", "seed=1", "pruning.rounds=1"),
        ("train", *small, "name=wide", "model.hidden=[31,20]"),
        ("train", *small, "name=other", "dataset.subset.fraction=0.4"),
    ):
        done = lth_in(folder, *arguments, "-q")
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def ask(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    return answer(lth_in, folder, *arguments)


def test_a_state_is_connected_with_itself(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one", "analysis.pairs=[[1,1]]", "analysis.points=5")
    (row,) = found["tables"]["barriers"]
    assert row["test_barrier"] == row["train_barrier"] == 0.0
    assert row["connected"] is True
    recorded = Run.open(folder / "runs" / "one").round(1).summary["metrics"]["test"]
    assert row["first_test_error"] == pytest.approx(1 - recorded["accuracy"])
    assert len(found["tables"]["curves"]) == 5


def test_ends_of_the_line_are_the_states_that_were_measured_in_training(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one", "two", "analysis.points=3", "analysis.states=[0,last]")
    assert [row["first"] for row in found["tables"]["barriers"]] == ["one:0@end", "two:0@end"]
    for row, run, last in zip(found["tables"]["barriers"], ("one", "two"), (2, 1), strict=True):
        summary = Run.open(folder / "runs" / run).round(last).summary
        assert row["second_test_error"] == pytest.approx(1 - summary["metrics"]["test"]["accuracy"])
        line = [point for point in found["tables"]["curves"] if point["first"] == row["first"]]
        errors = [point["test_error"] for point in line]
        assert row["test_barrier"] == max(errors) - (errors[0] + errors[-1]) / 2


def test_asked_again_nothing_is_computed(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(lth_in, folder, "one", "analysis.points=3")
    monkeypatch.setattr(Work, "evaluate", None)
    assert ask(lth_in, folder, "one", "analysis.points=3") == first
    assert StoredAnalysis(folder / first["path"]).tables() == first["tables"]


def test_stopped_in_the_middle_it_goes_on(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = ("one", "analysis.points=3", "analysis.states=[0,1,2]")
    whole = ask(lth_in, folder, *question)
    shutil.rmtree(folder / whole["path"])
    evaluate, calls = Work.evaluate, []

    def counted(work: Work, *arguments: Any) -> Any:
        calls.append(work)
        if len(calls) == 8:  # in the second of three pairs of 3 points x 2 splits
            raise Interrupted("enough")
        return evaluate(work, *arguments)

    monkeypatch.setattr(Work, "evaluate", counted)
    assert lth_in(folder, "analyze", *question).code == 1
    assert not StoredAnalysis(folder / whole["path"]).finished
    # What it needs is safe meanwhile, even if no run kept it.
    shutil.rmtree(folder / "runs" / "one" / "round_00" / "checkpoints")
    dense = Run.open(folder / "runs" / "one").round(0).summary["trajectory"]
    assert dense not in {garbage.identity for garbage in find_garbage(folder / "runs")}
    again = ask(lth_in, folder, *question)
    assert len(calls) == 8 + 12
    assert {**again, "finished": None} == {**whole, "finished": None}
    assert {path.name for path in (folder / whole["path"]).iterdir()} == {
        "barriers.csv",
        "curves.csv",
        "figure.png",
        "figure.svg",
        "result.json",
    }


def test_damage_is_found_and_made_good(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one", "analysis.points=3")
    path = folder / found["path"] / "barriers.csv"
    path.write_text(path.read_text().replace("0", "1"))
    verified = lth_in(folder, "verify", "one")
    assert verified.code == 1
    assert "barriers.csv: its checksum" in verified.out
    assert ask(lth_in, folder, "one", "analysis.points=3")["tables"] == found["tables"]
    assert lth_in(folder, "verify", "one").code == 0
    assert "1 pair connected" in lth_in(folder, "show", "one").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a run"),
        (("onne",), "no run 'onne'"),
        (("one", "one"), "the run one is named twice"),
        (("one", "analysis.states=[0,7]"), "no finished round 7"),
        (("one", "analysis.states=[0,0@99it]"), "outside its training"),
        (("one", "analysis.states=[0@end]"), "name two states at least"),
        (("one", "analysis.states=[]"), "name two states at least"),
        (("one", "analysis.pionts=4"), "close to it: analysis.points"),
        (("one", "analysis.points=2", "analysis.threshold=3"), "analysis.threshold"),
        (("one", "analysis.pairs=[[0,wide:0]]"), "different architectures"),
        (("one", "analysis.pairs=[[0,other:0]]"), "different data"),
        (("one", "analysis.splits=[test,val]"), "has no val"),
        (("one", "-m", "analysis.points=3,5", "analysis.states=[0,7]"), "no finished round 7"),
    ],
)
def test_wrong_questions_write_nothing(
    lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = lth_in(folder, "analyze", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(folder.glob("runs/*/analysis"))


def test_sweeps_and_list(lth_in: Lth, folder: Path) -> None:
    done = lth_in(folder, "analyze", "one", "-m", "analysis.points=3,5", "-q")
    assert done.code == 0, done.err
    assert len(StoredAnalysis.all_of(Run.open(folder / "runs" / "one"))) == 2
    assert "analysis.points=5" in done.out
    listed = lth_in(folder, "analyze", "analysis=list").out.splitlines()
    assert [line.split()[0] for line in listed] == sorted(sections())
