"""`lth analyze analysis=instability`: copies that differ in data order alone, and how far apart they end."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_helpers import Lth, answer

from lth_cli.store.runs import Run
from lth_cli.store.trajectories import TrajectoryStore

STEPS = 16  # of the conftest's `small`
ASKED = ("analysis=instability", "analysis.points=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("instability")
    for arguments in (
        ("prune", *small, "name=one", "pruning.rounds=1", "controls.kinds=[random]"),
        ("prune", *small, "name=two", "seed=1", "pruning.rounds=1", "controls.kinds=[random]"),
    ):
        done = lth_in(folder, *arguments, "-q")
        assert done.code == 0, done.err
    return folder


def ask(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    return answer(lth_in, folder, *arguments, *ASKED)


def test_copies_share_the_start_and_differ_in_order(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one", "analysis.at=[5it]", "analysis.rounds=[1]")
    assert found["steps_trained"] == 2 * (STEPS - 5)
    store = TrajectoryStore(folder / "runs" / ".store")
    ((first, second),) = found["asked"]["copies_of"]
    starts, ends = ([store.load(copy, step) for copy in (first, second)] for step in (5, STEPS))
    assert all(torch.equal(starts[0].weights[name], starts[1].weights[name]) for name in starts[0].weights)
    apart = torch.cat([(ends[0].weights[n] - ends[1].weights[n]).flatten() for n in ends[0].weights]).norm()
    (row,) = found["tables"]["pairs"]
    assert row["distance"] == pytest.approx(float(apart), rel=1e-6)
    assert apart > 0
    # The masks of the ticket hold for its copies.
    masks = Run.open(folder / "runs" / "one").round(1).masks()
    assert all(not end.weights[name][~mask].any() for end in ends for name, mask in masks.items())
    descriptions = [store.description(copy) for copy in (first, second)]
    differing = {key for key in descriptions[0] if descriptions[0][key] != descriptions[1][key]}
    assert differing == {"batches"}


def test_mean_over_pairs_and_runs_at_every_step(lth_in: Lth, folder: Path) -> None:
    found = ask(
        lth_in,
        folder,
        "one",
        "two",
        "analysis.at=[start,1ep]",
        "analysis.rounds=[0,random/1]",
        "analysis.copies=3",
    )
    pairs, stability = found["tables"]["pairs"], found["tables"]["stability"]
    assert len(pairs) == 2 * 2 * 2 * 3  # rounds, steps, runs, pairs of three copies
    assert [(row["round"], row["step"], row["pairs"]) for row in stability] == [
        ("0", 0, 6),
        ("0", 8, 6),
        ("random/1", 0, 6),
        ("random/1", 8, 6),
    ]
    for row in stability:
        barriers = [
            p["test_barrier"] for p in pairs if (p["round"], p["step"]) == (row["round"], row["step"])
        ]
        assert row["test_barrier"] == pytest.approx(statistics.fmean(barriers))
        assert row["test_barrier_std"] == pytest.approx(statistics.stdev(barriers))
        assert row["stable"] == (row["test_barrier"] < 0.02)
        assert 0 < row["differing_test_answers"] < 1
    stable = [row["step"] for row in stability if row["round"] == "0" and row["stable"]]
    assert found["summary"]["earliest_stable_step"]["0"] == (min(stable) if stable else None)
    assert (folder / found["path"] / "figure.svg").is_file()


def test_the_whole_schedule_from_a_step_on(lth_in: Lth, folder: Path) -> None:
    """The control of Frankle et al. 2020: as many steps and rates as a training from initialisation has."""
    found = ask(lth_in, folder, "one", "analysis.at=[16it]", "analysis.schedule=restarted")
    assert found["steps_trained"] == 2 * STEPS
    store = TrajectoryStore(folder / "runs" / ".store")
    ((first, _),) = found["asked"]["copies_of"]
    told = store.description(first)
    assert (told["start"]["step"], told["first_step"]) == (16, 0)
    end = store.load(told["start"]["trajectory"], 16)
    start = store.load(first, 0)
    assert all(torch.equal(start.weights[name], end.weights[name]) for name in end.weights)


def test_teachers_of_the_whole_schedule_teach_the_same_shares_of_it(
    lth_in: Lth, folder: Path, small: tuple[str, ...]
) -> None:
    taught = (
        "distillation=kd",
        "distillation.teachers=[one]",
        "distillation.start=0.25",
        "distillation.end=0.5",
    )
    done = lth_in(folder, "prune", *small, *taught, "name=taught", "rewind.to=8it", "pruning.rounds=1", "-q")
    assert done.code == 0, done.err
    store = TrajectoryStore(folder / "runs" / ".store")
    windows = []
    for schedule in ("resumed", "restarted"):
        asked = ("analysis.rounds=[1]", "analysis.at=[8it]", f"analysis.schedule={schedule}")
        ((first, _),) = ask(lth_in, folder, "taught", *asked)["asked"]["copies_of"]
        told = store.description(first)["objective"]["distillation"]
        windows.append((told["begins"], told["ends"]))
    assert windows == [(10, 12), (4, 8)]


def test_no_noise_no_question(lth_in: Lth, folder: Path, small: tuple[str, ...]) -> None:
    done = lth_in(folder, "train", *small, "name=still", "training.shuffle=false", "-q")
    assert done.code == 0, done.err
    asked = lth_in(folder, "analyze", "still", *ASKED)
    assert (asked.code, "copies of still:0 would all be the same training" in asked.err) == (2, True)


def test_more_copies_and_steps_train_only_what_is_missing(lth_in: Lth, folder: Path) -> None:
    ask(lth_in, folder, "two", "analysis.at=[3it]")
    more = ask(lth_in, folder, "two", "analysis.at=[3it]", "analysis.copies=3")
    assert (more["steps_trained"], more["steps_reused"]) == (STEPS - 3, 2 * (STEPS - 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("analysis.at=[16it]",), "is the end of one:0"),
        (("analysis.at=[99it]",), "outside its training"),
        (("analysis.at=[half]",), "or start"),
        (("analysis.rounds=[4]",), "no finished round 4"),
        (("analysis.rounds=[0@3it]",), "is no round"),
        (("analysis.copies=1",), "analysis.copies"),
    ],
)
def test_wrong_questions(lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    before = sorted((folder / "runs").rglob("*"))
    done = lth_in(folder, "analyze", "one", *ASKED, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert sorted((folder / "runs").rglob("*")) == before
