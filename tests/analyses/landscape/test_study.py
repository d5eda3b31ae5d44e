"""`lth analyze analysis=landscape`: states where they belong, points measured once, refused planes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_helpers import Lth, answer

from lth_cli.analyses.work import Work
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.runs import Run
from lth_cli.training.engine import Interrupted

ASKED = ("analysis=landscape", "analysis.grid=3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("landscape")
    for arguments in (
        ("prune", *small, "name=one", "pruning.rounds=2"),
        *(("train", *small, f"name=seed{seed}", f"seed={seed}") for seed in (1, 2, 3)),
        # Without a rate nothing is learned: all states of the training are one point.
        ("train", *small, "name=still", "optimizer.lr=1e-30", "optimizer.weight_decay=0"),
    ):
        done = lth_in(folder, *arguments, "-q")
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def ask(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    return answer(lth_in, folder, *ASKED, *arguments)


def ends(folder: Path, *rounds: tuple[str, int]) -> list[torch.Tensor]:
    """The weights at the ends of rounds, each as one vector."""
    found = []
    for run, number in rounds:
        round_ = Run.open(folder / "runs" / run).round(number)
        weights = round_.checkpoint(round_.summary["end_step"]).weights
        found.append(torch.cat([weight.flatten() for _, weight in sorted(weights.items())]).double())
    return found


def test_three_states(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one", "analysis.margin=0")
    states, plane = found["tables"]["states"], found["tables"]["plane"]
    assert [row["state"] for row in states] == ["one:0@end", "one:1@end", "one:2@end"]
    vectors = ends(folder, ("one", 0), ("one", 1), ("one", 2))
    for first in range(3):
        metrics = Run.open(folder / "runs" / "one").round(first).summary["metrics"]
        assert states[first]["distance"] == 0.0
        for split in ("train", "test"):
            assert states[first][f"{split}_error"] == pytest.approx(1 - metrics[split]["accuracy"])
            assert states[first][f"{split}_loss"] == pytest.approx(metrics[split]["loss"], rel=1e-5)
        for second in range(first):
            one, two = states[first], states[second]
            apart = math.hypot(one["x"] - two["x"], one["y"] - two["y"])
            assert apart == pytest.approx(float((vectors[first] - vectors[second]).norm()), rel=1e-4)
    assert len({(row["x"], row["y"]) for row in plane}) == len(plane) == 9
    assert (plane[0]["x"], plane[0]["y"]) == (0.0, 0.0)
    assert plane[0]["test_error"] == states[0]["test_error"]
    assert found["summary"]["least_test_error"] == min(row["test_error"] for row in plane)
    assert (folder / found["path"] / "figure.svg").is_file()


def test_four_seeds(lth_in: Lth, folder: Path) -> None:
    """The middle of the grid over the states' projections is a combination of w0 .. w3 that can be made by hand."""
    found = ask(lth_in, folder, "one", "seed1", "seed2", "seed3", "analysis.states=[0]")
    w0, w1, w2, w3 = ends(folder, ("one", 0), ("seed1", 0), ("seed2", 0), ("seed3", 0))
    states, summary = found["tables"]["states"], found["summary"]
    assert [row["state"] for row in states] == ["one:0@end", "seed1:0@end", "seed2:0@end", "seed3:0@end"]
    across, up, middle = (w0 - w1) / 2, (w3 - w2) / 2, (w0 + w1 + w2 + w3) / 4
    assert summary["units"] == pytest.approx([float(across.norm()), float(up.norm())], rel=1e-5)
    cosine = float(across @ up / across.norm() / up.norm())
    assert summary["angle"] == pytest.approx(math.degrees(math.acos(cosine)), rel=1e-5)
    for row, own in zip(states, (w0, w1, w2, w3), strict=True):
        rest = own - middle - row["x"] * across - row["y"] * up
        assert row["distance"] == pytest.approx(float(rest.norm()), rel=1e-4)
        assert abs(float(rest @ across)) < 1e-4 * float(across.norm() * own.norm())


def test_negative_variances_beyond_the_states_are_told_of(
    lth_in: Lth, tmp_path: Path, small: tuple[str, ...]
) -> None:
    network = (
        "model=resnet20",
        "model.depth=8",
        "model.width=2",
        "dataset.subset.fraction=0.1",
        "training.length=3ep",
    )
    arguments = [word for word in small if not word.startswith("model.")]
    assert lth_in(tmp_path, "prune", *arguments, *network, "name=bn", "pruning.rounds=2", "-q").code == 0
    interpolated, recomputed = (
        ask(lth_in, tmp_path, "bn", "analysis.margin=10", f"analysis.batch_norm={how}")
        for how in ("interpolated", "recomputed")
    )
    clamped = [row["clamped_variances"] for row in interpolated["tables"]["plane"]]
    count = sum(found > 0 for found in clamped)
    assert count == interpolated["summary"]["points_with_clamped_variances"] > 0
    assert f"at {count} of 9 points" in interpolated["headline"][1]
    assert not any(row["clamped_variances"] for row in recomputed["tables"]["plane"])
    assert len(recomputed["headline"]) == 1


def test_asked_again_nothing_is_computed(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(lth_in, folder, "one")
    monkeypatch.setattr(Work, "evaluate", None)
    assert ask(lth_in, folder, "one") == first


def test_stopped_in_the_middle_of_the_grid_it_goes_on(
    lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(lth_in, folder, "one")
    shutil.rmtree(folder / whole["path"])
    evaluate, calls = Work.evaluate, []

    def counted(work: Work, *arguments: Any) -> Any:
        calls.append(work)
        if (
            len(calls) == 6 + 10
        ):  # the test split of the fifth of nine points, after three states; two splits each
            raise Interrupted("enough")
        return evaluate(work, *arguments)

    monkeypatch.setattr(Work, "evaluate", counted)
    assert lth_in(folder, "analyze", "one", *ASKED).code == 1
    assert not StoredAnalysis(folder / whole["path"]).finished
    again = ask(lth_in, folder, "one")
    assert len(calls) == 16 + 2 * 5
    assert {**again, "finished": None} == {**whole, "finished": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one", "analysis.states=[0,1]"), "these are 2: one:0@end, one:1@end"),
        (("one", "seed1", "analysis.states=[0,0@3it,0@4it]"), "these are 6"),
        (("one", "analysis.states=[0,2,last]"), "one:2@end and one:2@end are the same state"),
        (("one", "analysis.states=[0,1,7]"), "no finished round 7"),
        (("one", "analysis.grid=1"), "analysis.grid"),
        (("one", "analysis.splits=[train]"), "must name test"),
        (("one", "analysis.splits=[test,val]"), "has no val"),
    ],
)
def test_wrong_questions_write_nothing(
    lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = lth_in(folder, "analyze", *ASKED, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(folder.glob("runs/*/analysis"))


def test_states_that_make_no_plane(lth_in: Lth, folder: Path) -> None:
    asked = "analysis.states=[0@0it,0@3it,0@end]"
    done = lth_in(folder, "analyze", "still", asked, *ASKED)
    assert done.code == 2
    assert (
        "still:0@start, still:0@3it, still:0@end make no plane: the first two states are the same" in done.err
    )
    assert not StoredAnalysis.all_of(Run.open(folder / "runs" / "still"))
