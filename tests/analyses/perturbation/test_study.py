"""`lth analyze analysis=perturbation`: trainings from moved starts, and whether they end connected."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_helpers import Lth, answer
from torch import Tensor

from lth_cli.analyses.work import Work
from lth_cli.store.collect import find_garbage
from lth_cli.store.runs import Run
from lth_cli.store.states import State
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.engine import Interrupted

STEPS = 16  # of the conftest's `small`
ASKED = ("analysis=perturbation", "analysis.points=3", "analysis.splits=[test]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("perturbation")
    controls = ("controls.kinds=[random,reinit]", "controls.rounds=1-2")
    for arguments in (
        ("name=one", "pruning.rounds=2", *controls),
        ("name=two", "pruning.rounds=2", "seed=1"),
        ("name=late", "pruning.rounds=1", "rewind.to=5it", "optimizer=sgd"),
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


def trained_from_moved(folder: Path) -> list[tuple[dict[str, Any], str]]:
    """Description and identity of every training from a moved start."""
    store = TrajectoryStore(folder / "runs" / ".store")
    described = [(store.description(identity), identity) for identity in store.identities()]
    return [(found, identity) for found, identity in described if found and "moved_by" in found["start"]]


def state(folder: Path, identity: str, step: int) -> State:
    found = TrajectoryStore(folder / "runs" / ".store").load(identity, step)
    assert found is not None
    return found


def length(parts: Mapping[str, Tensor]) -> float:
    return float(torch.cat([part.flatten() for part in parts.values()]).double().norm())


def test_projection_zeroes_what_the_next_round_prunes(lth_in: Lth, folder: Path) -> None:
    asked = ("one", "analysis.rounds=[1]", "analysis.directions=[projection]")
    found = ask(lth_in, folder, *asked)
    assert found["steps_trained"] == STEPS
    run = Run.open(folder / "runs" / "one")
    now, after = run.round(1), run.round(2).masks()
    start = now.checkpoint(0).weights
    ((description, identity),) = trained_from_moved(folder)
    assert {**description, "start": None} == {**now.summary["description"], "start": None}
    assert description["start"]["trajectory"] == now.summary["trajectory"]
    moved = state(folder, identity, 0).weights
    for name, weight in start.items():
        assert torch.equal(moved[name], torch.where(after[name], weight, 0.0) if name in after else weight)
    ends = now.checkpoint(STEPS).weights, state(folder, identity, STEPS).weights
    (row,) = found["tables"]["moves"]
    assert row["norm"] == pytest.approx(length({name: start[name] - moved[name] for name in start}))
    assert row["distance"] == pytest.approx(length({name: ends[0][name] - ends[1][name] for name in start}))
    assert row["unmoved_test_error"] == pytest.approx(1 - now.summary["metrics"]["test"]["accuracy"])
    assert row["connected"] == (row["test_barrier"] < 0.02)
    # It is the end of another training, within the mask of this round and not the next one's.
    masks = now.masks()
    assert not any(ends[1][name][~mask].any() for name, mask in masks.items())
    assert any(ends[1][name][masks[name] & ~mask].any() for name, mask in after.items())


def test_random_moves_have_the_norms_asked_for_within_the_mask(lth_in: Lth, folder: Path) -> None:
    asked = ("one", "two", "analysis.rounds=[1]", "analysis.norms=[1,0.5]", "analysis.absolute_norms=[2]")
    found = ask(lth_in, folder, *asked, "analysis.draws=2")
    rows = found["tables"]["moves"]
    assert len(rows) == 2 * 3 * (1 + 2)  # runs, norms, one projection and two draws
    by_run = {row["run"]: row["norm"] for row in rows if row["multiple"] == 1.0}
    wanted = sorted(norm for one in by_run.values() for norm in (one, one / 2, 2.0) for _ in range(3))
    assert sorted(row["norm"] for row in rows) == pytest.approx(wanted)
    starts = {run: Run.open(folder / "runs" / run).round(1) for run in ("one", "two")}
    owner = {round_.summary["trajectory"]: round_ for round_ in starts.values()}
    norms, moves = [], []
    for description, identity in trained_from_moved(folder):
        round_ = owner[description["start"]["trajectory"]]
        start, moved = round_.checkpoint(0).weights, state(folder, identity, 0).weights
        move = {name: moved[name] - start[name] for name in start}
        assert all(not part.any() for name, part in move.items() if name not in round_.masks())
        assert all(not move[name][~mask].any() for name, mask in round_.masks().items())
        norms.append(length(move))
        moves.append(torch.cat([move[name].flatten() for name in sorted(move)]) / norms[-1])
    assert sorted(norms) == pytest.approx(wanted, rel=1e-4)
    # A direction is the same at every norm; two draws, two runs and the projection have nothing in common.
    alike = (torch.stack(moves) @ torch.stack(moves).T > 0.99).sum(1)
    assert alike.tolist() == [3] * 18
    summed = found["tables"]["robustness"]
    assert [(row["direction"], row["multiple"], row["moves"]) for row in summed] == [
        ("projection", 1.0, 2),
        ("projection", 0.5, 2),
        ("projection", None, 2),
        ("random", 1.0, 4),
        ("random", 0.5, 4),
        ("random", None, 4),
    ]
    barriers = [row["test_barrier"] for row in rows if (row["direction"], row["multiple"]) == ("random", 1.0)]
    assert summed[3]["test_barrier"] == pytest.approx(statistics.fmean(barriers))
    assert summed[3]["test_barrier_std"] == pytest.approx(statistics.stdev(barriers))
    assert summed[3]["connected"] == (statistics.fmean(barriers) < 0.02)
    assert found["summary"]["robustness"] == summed
    assert (folder / found["path"] / "figure.svg").is_file()


def test_the_dense_start_is_where_later_rounds_rewind_to(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "late", "analysis.directions=[projection]")
    (row,) = found["tables"]["moves"]
    assert row["step"] == 5
    # With momentum, a fresh optimizer at step 5 is another training, so the unmoved one is trained as well.
    assert found["steps_trained"] == 2 * (STEPS - 5)
    ((description, identity),) = trained_from_moved(folder)
    run = Run.open(folder / "runs" / "late")
    assert description["start"]["step"] == description["first_step"] == 5
    ticket = run.round(1).checkpoint(5).weights
    moved = state(folder, identity, 5).weights
    assert all(torch.equal(moved[name], ticket[name]) for name in ticket)
    assert description["mask"] is None


def test_further_questions_train_only_what_is_missing(
    lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("one", "analysis.rounds=[reinit/1]", "analysis.draws=1")
    first = ask(lth_in, folder, *asked)
    assert first["steps_trained"] == 2 * STEPS
    more = ask(lth_in, folder, "one", "analysis.rounds=[reinit/1]", "analysis.draws=2")
    assert (more["steps_trained"], more["steps_reused"]) == (STEPS, 2 * STEPS)
    monkeypatch.setattr(Work, "evaluate", None)
    assert ask(lth_in, folder, *asked) == first


def test_stopped_in_the_middle_it_goes_on(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = ("two", "analysis.draws=2")
    evaluate, calls = Work.evaluate, []

    def counted(work: Work, *arguments: Any) -> Any:
        calls.append(work)
        if len(calls) == 5:  # in the second of three lines of 3 points
            raise Interrupted("enough")
        return evaluate(work, *arguments)

    monkeypatch.setattr(Work, "evaluate", counted)
    assert lth_in(folder, "analyze", *question, *ASKED, "-q").code == 1
    begun = {identity for _, identity in trained_from_moved(folder)}
    assert len(begun) == 2
    assert not begun & {garbage.identity for garbage in find_garbage(folder / "runs")}
    again = ask(lth_in, folder, *question)
    assert len(calls) == 5 + 2 * 3
    assert begun < {identity for _, identity in trained_from_moved(folder)}
    assert (again["steps_trained"], again["steps_reused"]) == (3 * STEPS, 0)
    # Done, nobody needs them any more.
    assert begun < {garbage.identity for garbage in find_garbage(folder / "runs")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("analysis.rounds=[2]",), "one:2 has no finished round 3 after it"),
        (("analysis.rounds=[last]",), "one:2 has no finished round 3 after it"),
        (("analysis.rounds=[random/1]",), "keeps weights that one:random/1 has not"),
        (("analysis.rounds=[7]",), "no finished round 7"),
        (("analysis.norms=[]",), "name one"),
        (("analysis.norms=[0]",), "analysis.norms.0"),
        (("analysis.norms=[1,1.0]",), "norms names one twice"),
        (("analysis.directions=[up]",), "analysis.directions.0"),
        (("analysis.draws=0",), "analysis.draws"),
        (("analysis.splits=[test,val]",), "has no val"),
    ],
)
def test_wrong_questions_write_nothing(
    lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted((folder / "runs").rglob("*"))
    done = lth_in(folder, "analyze", "one", "analysis=perturbation", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert sorted((folder / "runs").rglob("*")) == before
