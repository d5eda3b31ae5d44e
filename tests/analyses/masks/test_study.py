"""`lth analyze analysis=masks`: overlap of masks against chance, and what retraining does to small weights."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_helpers import Lth, answer

from lth_cli.analyses.work import Work
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.runs import Run
from lth_cli.training.engine import Interrupted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    for arguments in (
        ("prune", *small, "name=one", "pruning.rounds=3", "controls.kinds=[random]", "controls.rounds=2"),
        ("prune", *small, "name=two", "seed=1", "pruning.rounds=2", "pruning.allocation=layerwise"),
        ("prune", *small, "name=chance", "pruning.rounds=2", "pruning.score=random"),
        ("prune", *small, "name=output", "pruning.rounds=1", "pruning.output_layer=prune"),
        ("prune", *small, "name=wide", "pruning.rounds=1", "model.hidden=[31,20]"),
        ("train", *small, "name=dense"),
    ):
        done = lth_in(folder, *arguments, "-q")
        assert done.code == 0, done.err
    done = lth_in(folder, "rewind", "one", "name=again", "rewind.to=3it", "rounds=2-3", "-q")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def ask(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    return answer(lth_in, folder, *arguments, "analysis=masks")


def flat(tensors: dict[str, torch.Tensor], names: list[str]) -> torch.Tensor:
    return torch.cat([tensors[name].flatten() for name in names])


def test_overlap_of_rounds_runs_and_controls(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one", "two", "analysis.rounds=[2,1]")
    control = ask(lth_in, folder, "one", "analysis.rounds=[2,random/2]")["tables"]
    rows = {(row["first"], row["second"]): row for row in found["tables"]["overlap"]}
    assert len(rows) == 6
    # Rounds of one run are nested: the sparser mask is in the other.
    assert rows["one:2", "one:1"]["shared_fraction"] == 1.0
    assert rows["one:2", "one:1"]["deviations"] > 3
    first, second = (Run.open(folder / "runs" / run).round(2).masks() for run in ("one", "two"))
    names = sorted(first)
    a, b = flat(first, names), flat(second, names)
    row = rows["one:2", "two:2"]
    assert row["shared"] == int((a & b).sum())
    assert row["iou"] == pytest.approx(float((a & b).sum() / (a | b).sum()))
    by_layer = sum(float(first[n].sum()) * float(second[n].sum()) / first[n].numel() for n in names)
    assert row["chance_fraction"] == pytest.approx(by_layer / min(int(a.sum()), int(b.sum())))
    assert row["chance_whole_network"] == pytest.approx(max(int(a.sum()), int(b.sum())) / len(a))
    layers = [r for r in found["tables"]["layers"] if (r["first"], r["second"]) == ("one:2", "two:2")]
    assert sum(r["shared"] for r in layers) == row["shared"]
    across = found["summary"]["between_runs"]
    assert across["2"] == {
        "pairs": 1,
        "shared_fraction": row["shared_fraction"],
        "chance_fraction": row["chance_fraction"],
    }
    # A random mask shares with the ticket what chance says, at the same layer densities.
    (shuffled,) = control["overlap"]
    assert shuffled["second"] == "one:random/2"
    assert abs(shuffled["deviations"]) < 5
    densities = {(r["mask"], r["layer"]): r["density"] for r in control["density"]}
    assert len({layer for _, layer in densities}) == 2
    for (mask, layer), density in densities.items():
        assert density == pytest.approx(float(first[layer].float().mean())), mask


def test_weights_that_retraining_made_small(lth_in: Lth, folder: Path) -> None:
    found = ask(lth_in, folder, "one")
    rows = found["tables"]["magnitudes"]
    assert [row["mask"] for row in rows] == ["one:1", "one:2", "one:3"]
    run = Run.open(folder / "runs" / "one")
    for number, row in zip((1, 2), rows, strict=False):
        masks, after = (run.round(n).masks() for n in (number, number + 1))
        names = sorted(masks)
        before = run.round(number - 1)
        ends = [max(round_.checkpoints()) for round_ in (before, run.round(number))]
        projection = flat(before.checkpoint(ends[0]).weights, names).abs()
        kept, gone = flat(masks, names), flat(masks, names) & ~flat(after, names)
        assert row["pruned_next"] == int(gone.sum())
        cut = projection[kept].sort().values[int(gone.sum()) - 1]
        small = kept & (projection <= cut)
        assert row["small_at_projection"] == int((small & gone).sum())
        assert row["made_small"] == pytest.approx(1 - int((small & gone).sum()) / int(gone.sum()))
        bins = [b for b in found["tables"]["histogram"] if b["mask"] == row["mask"]]
        assert len(bins) == 50
        assert sum(b["projection"] for b in bins) == sum(b["retrained"] for b in bins) == int(kept.sum())
        retrained = flat(run.round(number).checkpoint(ends[1]).weights, names)[kept].abs()
        top = bins[-1]
        assert top["retrained"] == int((retrained.double().log10() >= top["log10_from"] - 1e-12).sum())
    assert rows[2]["made_small"] is None and rows[2]["kept"] > 0
    shares = [row["made_small"] for row in rows[:2]]
    assert min(shares) > 0 and found["summary"]["made_small"] == pytest.approx(statistics.fmean(shares))
    assert (folder / found["path"] / "figure.svg").is_file()


def test_layers_are_ranked_as_the_run_pruned_them(lth_in: Lth, folder: Path) -> None:
    (row, _) = ask(lth_in, folder, "two")["tables"]["magnitudes"]
    run = Run.open(folder / "runs" / "two")
    masks, after = (run.round(n).masks() for n in (1, 2))
    dense = run.round(0)
    projection = dense.checkpoint(max(dense.checkpoints())).weights
    both = 0
    for name, mask in masks.items():
        gone = mask & ~after[name]
        sizes = projection[name].abs()
        small = mask & (sizes <= sizes[mask].sort().values[int(gone.sum()) - 1])
        both += int((small & gone).sum())
    assert row["small_at_projection"] == both


def test_magnitudes_only_where_they_decided(lth_in: Lth, folder: Path) -> None:
    """Random scores make nothing small; a rewound run takes its masks from elsewhere, a control its own."""
    chance = ask(lth_in, folder, "chance")["tables"]["magnitudes"]
    assert [row["made_small"] for row in chance] == [None, None]
    again = ask(lth_in, folder, "again")
    assert [row["mask"] for row in again["tables"]["density"]][::2] == ["again:2", "again:3"]
    assert not again["tables"]["magnitudes"]
    assert not ask(lth_in, folder, "one", "analysis.rounds=[0,random/2]")["tables"]["magnitudes"]


def test_asked_again_and_stopped(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask(lth_in, folder, "one", "two")
    state, calls = Work.state, []

    def counted(work: Work, *arguments: Any) -> Any:
        calls.append(work)
        if len(calls) == 4:
            raise Interrupted("enough")
        return state(work, *arguments)

    monkeypatch.setattr(Work, "state", counted)
    assert ask(lth_in, folder, "one", "two") == whole
    assert not calls
    shutil.rmtree(folder / whole["path"])
    assert lth_in(folder, "analyze", "one", "two", "analysis=masks").code == 1
    assert not StoredAnalysis(folder / whole["path"]).finished
    again = ask(lth_in, folder, "one", "two")
    assert len(calls) == 4 + 2 * 4  # of five rounds the first was done
    assert {**again, "finished": None} == {**whole, "finished": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dense",), "dense has no pruned round"),
        (("one", "wide"), "different architectures"),
        (("one", "output"), "do not prune the same tensors: fc.weight"),
        (("one", "analysis.rounds=[7]"), "no finished round 7"),
        (("one", "analysis.rounds=[1@end]"), "is no round"),
        (("one", "analysis.bins=1"), "analysis.bins"),
    ],
)
def test_wrong_questions(lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = lth_in(folder, "analyze", "analysis=masks", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(folder.glob("runs/*/analysis"))
