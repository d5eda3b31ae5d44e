"""`lth analyze analysis=rounds`: barriers between successive rounds, and which rounds match."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from analysis_helpers import Lth, answer

from lth_cli.analyses.work import Work
from lth_cli.store.runs import Run
from lth_cli.training.engine import Interrupted

ASKED = ("analysis=rounds", "analysis.points=3", "analysis.splits=[test]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("rounds")
    rounds = ("pruning.rounds=3", "pruning.fraction=0.6", "controls.kinds=[random]", "controls.rounds=2-3")
    for arguments in (
        (*rounds, "name=one"),
        (*rounds, "name=twin"),
        (*rounds, "name=two", "seed=1"),
        ("pruning.rounds=1", "name=short", "seed=2"),
        ("pruning.rounds=1", "name=wide", "model.hidden=[31,20]"),
        ("pruning.rounds=0", "name=dense", "seed=3"),
    ):
        done = lth_in(folder, "prune", *small, *arguments, "-q")
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def ask(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    return answer(lth_in, folder, *arguments, *ASKED)


def accuracy(folder: Path, run: str, number: int) -> float:
    return float(Run.open(folder / "runs" / run).round(number).summary["metrics"]["test"]["accuracy"])


def test_matching_is_within_one_deviation_of_the_dense_mean(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one", "two")
    dense = [accuracy(folder, run, 0) for run in ("one", "two")]
    least = statistics.fmean(dense) - statistics.stdev(dense)
    assert found["summary"]["tolerance"] == pytest.approx(statistics.stdev(dense))
    rows = found["tables"]["rounds"]
    assert [(row["run"], row["round"]) for row in rows] == [
        (r, str(n)) for r in ("one", "two") for n in range(4)
    ]
    for row in rows:
        assert row["test_accuracy"] == accuracy(folder, row["run"], int(row["round"]))
        assert row["matching"] == (row["test_accuracy"] >= least)
    for number, row in enumerate(found["tables"]["by_round"]):
        values = [accuracy(folder, run, number) for run in ("one", "two")]
        assert row["test_accuracy"] == pytest.approx(statistics.fmean(values))
        assert row["test_accuracy_std"] == pytest.approx(statistics.stdev(values))
        assert row["matching"] == (statistics.fmean(values) >= least)
        if number:
            both = [r["test_barrier_to_previous"] for r in rows if r["round"] == str(number)]
            assert row["test_barrier_to_previous"] == pytest.approx(statistics.fmean(both))
            assert row["connected_to_previous"] == (statistics.fmean(both) < 0.02)
    assert found["tables"]["by_round"][0]["matching"] is True
    assert (folder / found["path"] / "figure.svg").is_file()


def test_barriers_are_those_of_connectivity(lth_in: Lth, folder: Path) -> None:
    rows = ask(lth_in, folder, "one", "analysis.tolerance=0.05")["tables"]["rounds"]
    pairs = ("one", "analysis.pairs=[[0,1],[1,2],[2,3],[0,2],[0,3]]", "analysis.points=3")
    done = lth_in(folder, "analyze", *pairs, "--json", "-q")
    barriers = [row["test_barrier"] for row in json.loads(done.out)["tables"]["barriers"]]
    assert [row["test_barrier_to_previous"] for row in rows] == [None, *barriers[:3]]
    assert [row["test_barrier_to_dense"] for row in rows] == [None, barriers[0], *barriers[3:]]
    assert rows[0]["connected_to_dense"] is None


def test_counts_of_agreement(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one", "two", "analysis.rounds=[3,1,random/2,random/3,1]")
    rows = found["tables"]["rounds"]
    assert [row["round"] for row in rows[:5]] == ["0", "1", "3", "random/2", "random/3"]
    previous = {row["round"]: row["test_barrier_to_previous"] for row in rows[:5]}
    assert previous["random/2"] is None  # the ticket's rounds are none of its own
    assert previous["random/3"] is not None
    lines = {(row["first"], row["second"]) for row in found["tables"]["curves"]}
    dense = {("0", other) for other in ("1", "3", "random/2", "random/3")}
    assert lines == {*dense, ("1", "3"), ("random/2", "random/3")}
    for counts in found["tables"]["agreement"]:
        table = rows if counts["over"] == "runs" else found["tables"]["by_round"]
        tickets = [row for row in table if row["round"] in ("1", "3")]
        both = [(row["matching"], row[f"connected_to_{counts['compared_with']}"]) for row in tickets]
        assert counts["rounds"] == len(both) == (4 if counts["over"] == "runs" else 2)
        assert counts["matching_connected"] == both.count((True, True))
        assert counts["matching_not_connected"] == both.count((True, False))
        assert counts["not_matching_connected"] == both.count((False, True))
        assert counts["neither"] == both.count((False, False))
        assert counts["agreeing"] == sum(matches == connected for matches, connected in both)
    assert found["summary"]["agreement"] == found["tables"]["agreement"]


def test_asked_again_nothing_is_computed(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(lth_in, folder, "one", "analysis.tolerance=0.05")
    monkeypatch.setattr(Work, "evaluate", None)
    assert ask(lth_in, folder, "one", "analysis.tolerance=0.05") == first
    assert first["steps_trained"] == first["steps_reused"] == 0


def test_stopped_in_the_middle_it_goes_on(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = ("one", "two")
    whole = ask(lth_in, folder, *question)
    shutil.rmtree(folder / whole["path"])
    evaluate, calls = Work.evaluate, []

    def counted(work: Work, *arguments: Any) -> Any:
        calls.append(work)
        if len(calls) == 8:  # in the third of ten lines of 3 points
            raise Interrupted("enough")
        return evaluate(work, *arguments)

    monkeypatch.setattr(Work, "evaluate", counted)
    assert lth_in(folder, "analyze", *question, *ASKED, "-q").code == 1
    again = ask(lth_in, folder, *question)
    assert len(calls) == 8 + 8 * 3
    assert {**again, "finished": None} == {**whole, "finished": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one",), "analysis.tolerance: its default"),
        (("one", "twin"), "are one training"),
        (("one", "short"), "short has 0, 1; name rounds that all have"),
        (("short", "wide", "analysis.tolerance=0.1"), "different architectures"),
        (("dense", "analysis.tolerance=0.1"), "nothing to compare"),
        (("one", "two", "analysis.rounds=[7]"), "no finished round 7"),
        (("one", "two", "analysis.rounds=[1@start]"), "is no round"),
        (("one", "two", "analysis.rounds=some"), "analysis.rounds"),
        (("one", "two", "analysis.tolerance=-1"), "analysis.tolerance"),
        (("one", "two", "analysis.splits=[test,val]"), "has no val"),
    ],
)
def test_wrong_questions_write_nothing(
    lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = lth_in(folder, "analyze", "analysis=rounds", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(folder.glob("runs/*/analysis"))
