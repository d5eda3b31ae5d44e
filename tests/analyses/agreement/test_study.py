"""`lth analyze analysis=agreement`: networks that differ by seed, dense beside tickets."""

from __future__ import annotations

import csv
import shutil
import statistics
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from analysis_helpers import Lth, answer

from lth_cli.analyses.work import Work
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.runs import Run
from lth_cli.training.engine import Interrupted

RUNS = ("one", "two", "three")
ASKED = (*RUNS, "analysis=agreement")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("agreement")
    for seed, name in enumerate(RUNS):
        done = lth_in(folder, "prune", *small, f"name={name}", f"seed={seed}", "pruning.rounds=1", "-q")
        assert done.code == 0, done.err
    twin = lth_in(folder, "prune", *small, "name=twin", "seeds.augment=7", "pruning.rounds=1", "-q")
    assert twin.code == 0, twin.err
    other = lth_in(folder, "train", *small, "name=other", "dataset.subset.fraction=0.4", "-q")
    assert other.code == 0, other.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def ask(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    return answer(lth_in, folder, *arguments)


def test_dense_and_tickets_side_by_side(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, *ASKED)
    stored = StoredAnalysis(folder / found["path"])
    tables = stored.tables()
    assert [row["round"] for row in tables["accuracy"]] == ["0", "last"]
    for row, said, number in zip(tables["accuracy"], tables["agreement"], (0, 1), strict=True):
        ends = [Run.open(folder / "runs" / run).round(number).summary for run in RUNS]
        recorded = [summary["metrics"]["test"]["accuracy"] for summary in ends]
        assert row["mean"] == pytest.approx(statistics.fmean(recorded))
        assert row["spread"] == pytest.approx(statistics.stdev(recorded))
        assert row["median"] == pytest.approx(statistics.median(recorded))
        assert row["density"] == pytest.approx(0.8**number, rel=1e-2)
        examples = [e for e in tables["examples"] if e["round"] == row["round"]]
        # The mean disagreement of examples is the mean churn of pairs; accuracy the mean share of correct networks.
        churn = [pair["churn"] for pair in tables["churn"] if pair["round"] == row["round"]]
        assert len(churn) == len(list(combinations(RUNS, 2)))
        assert said["disagreement"] == pytest.approx(statistics.fmean(churn))
        assert 0 < said["churn_least"] <= said["churn_most"] == max(churn)
        assert statistics.fmean(e["correct"] for e in examples) == pytest.approx(row["mean"])
        assert said["ambiguous"] == pytest.approx(statistics.fmean(e["disagreement"] > 0 for e in examples))
        # With three networks: all agree, two do, or none.
        pairs = {(round(e["modal_share"], 6), round(e["disagreement"], 6)) for e in examples}
        assert pairs <= {(1.0, 0.0), (0.666667, 0.666667), (0.333333, 1.0)} and len(pairs) > 1
    classes = [row for row in tables["classes"] if row["round"] == "0"]
    counts = [sum(e["label"] == c for e in tables["examples"] if e["round"] == "0") for c in range(10)]
    weighted = sum(row["mean"] * count for row, count in zip(classes, counts, strict=True)) / sum(counts)
    assert weighted == pytest.approx(tables["accuracy"][0]["mean"])
    assert (stored.path / "figure.svg").is_file()
    assert "two of them differ on" in found["headline"][1]


def test_asked_again_nothing_is_computed(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(lth_in, folder, *ASKED)
    monkeypatch.setattr(Work, "examples", None)
    assert ask(lth_in, folder, *ASKED) == first


def test_stopped_it_goes_on_with_the_missing_networks(
    lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(lth_in, folder, *ASKED)
    shutil.rmtree(folder / whole["path"])
    examples, calls = Work.examples, []

    def counted(work: Work, *arguments: Any) -> Any:
        calls.append(work)
        if len(calls) == 4:
            raise Interrupted("enough")
        return examples(work, *arguments)

    monkeypatch.setattr(Work, "examples", counted)
    assert lth_in(folder, "analyze", *ASKED).code == 1
    again = ask(lth_in, folder, *ASKED)
    assert len(calls) == 4 + 3
    assert {**again, "finished": None} == {**whole, "finished": None}


def test_examples_of_a_split_by_their_place_in_the_data_set(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, *ASKED, "analysis.split=train", "analysis.rounds=[0]")
    with (folder / found["path"] / "examples.csv").open() as file:
        index = [int(row["index"]) for row in csv.DictReader(file)]
    assert index == sorted(set(index))
    assert index[-1] >= 0.9 * len(index) / 0.3  # spread over the whole set, not the first 30 % of it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one",), "two RUNs or more"),
        (("one", "twin"), "are the same training"),
        (("one", "other"), "different data"),
        (("one", "two", "analysis.rounds=[5]"), "no finished round 5"),
        (("one", "two", "analysis.split=val"), "analysis.split: the data of one has no val"),
        (("one", "two", "analysis.split=all"), "analysis.split"),
        (("one", "two", "analysis.rounds=[0@3it]"), "is no round"),
    ],
)
def test_wrong_questions_write_nothing(
    lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = lth_in(folder, "analyze", "analysis=agreement", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(folder.glob("runs/*/analysis"))
