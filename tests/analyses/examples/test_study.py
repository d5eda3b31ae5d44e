"""`lth analyze analysis=examples`: scores by position in the data set, and trainings on subsets chosen by them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from analysis_helpers import Lth, answer
from torch.nn import functional

from lth_cli.analyses.examples import study
from lth_cli.analyses.work import Work
from lth_cli.config.compose import validate
from lth_cli.config.spec import Interface
from lth_cli.data.digits import digits
from lth_cli.data.source import Place
from lth_cli.experiments.plan import make_plan
from lth_cli.experiments.session import stored_config
from lth_cli.models.build import build
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.runs import Run
from lth_cli.training.engine import Interrupted
from lth_cli.training.precision import Execution

QUICK = ("device=cpu", "threads=1", "model.hidden=[30,20]", "training.length=2ep", "optimizer.lr=5e-3")
STATES = "analysis.states=[0@0,0@1ep,0@end]"
BETWEEN = "analysis.between=[0@end,two:0@end]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for arguments in (
        ("train", "name=one"),
        ("train", "name=two", "seed=1"),
        ("train", "name=part", "dataset.subset.fraction=0.3"),
    ):
        done = lth_in(folder, *arguments, *QUICK, "-q")
        assert done.code == 0, done.err
    ask(lth_in, folder, "one", "two", STATES, BETWEEN)
    ask(lth_in, folder, "part", "analysis.grand=false")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def ask(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    return answer(lth_in, folder, *arguments, "analysis=examples")


def scores_of(folder: Path, run: str) -> str:
    """The folder of a run's scores, as a person types it."""
    (stored,) = StoredAnalysis.all_of(Run.open(folder / "runs" / run))
    return str(stored.path.relative_to(folder))


def table(folder: Path, run: str) -> list[dict[str, Any]]:
    return StoredAnalysis(folder / scores_of(folder, run)).tables()["scores"]


def trained_on(folder: Path, run: str) -> list[int]:
    """Positions in the whole training set of the examples of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = make_plan(stored_config(Run.open(folder / "runs" / run)))
    positions: list[int] = plan.dense.data.positions("train").tolist()
    return positions


def chosen_by(folder: Path, score: str, count: int, run: str = "one") -> tuple[str, ...]:
    scores = scores_of(folder, run)
    return (
        f"dataset.subset.by={score}",
        f"dataset.subset.scores={scores}",
        f"dataset.subset.count={count}",
    )


def test_scores_are_those_of_the_states_by_position(lth_in: Lth, folder: Path) -> None:
    rows = table(folder, "one")
    assert [row["index"] for row in rows] == list(range(1438))
    loaded = digits(place=Place(None, folder, False, 0))
    assert [row["label"] for row in rows] == loaded.train_labels.tolist()
    inputs = (loaded.train_inputs - 0.3053) / 0.3760
    losses = []
    for name in ("one", "two"):
        run = Run.open(folder / "runs" / name)
        config = validate(run.config)
        model = build(config.model, Interface.classifier((1, 8, 8), 10), 0).eval()
        states = run.round(0).checkpoints()
        state = run.round(0).checkpoint(max(states))
        model.load_state_dict({**state.weights, **state.buffers})
        said = model(inputs).detach().double()
        losses.append(functional.cross_entropy(said, loaded.train_labels, reduction="none"))
    expected = torch.stack(losses).mean(0).tolist()
    assert [row["loss"] for row in rows] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    for row in rows:
        assert 0 <= row["el2n"] <= 2**0.5 and row["grand"] >= 0
        assert row["forgetting"] in (0, 0.5, 1, 1.5, 2, 3)
    # The starts know nothing: whatever is right at the end by both was learned at 24 or 48 steps, or by chance at 0.
    assert {row["first_learned"] for row in rows} <= {0, 12, 24, 36, 48, None}
    never = [row for row in rows if row["first_learned"] is None]
    assert 0 < len(never) < len(rows) / 2 and all(row["forgetting"] >= 1.5 for row in never)


def test_of_several_runs_the_mean(lth_in: Lth, folder: Path) -> None:
    both = table(folder, "one")
    shutil.rmtree(folder / scores_of(folder, "one"))
    ask(lth_in, folder, "one", "analysis.grand=false")
    ask(lth_in, folder, "two", "analysis.grand=false")
    for score in ("loss", "margin", "el2n"):
        each = [[row[score] for row in table(folder, run)] for run in ("one", "two")]
        assert [row[score] for row in both] == pytest.approx(
            [(a + b) / 2 for a, b in zip(*each, strict=True)]
        )
    assert "grand" not in table(folder, "two")[0]


def test_what_improved_between_two_states(lth_in: Lth, folder: Path) -> None:
    """By example, by groups of EL2N, and as a score that leaves out the most improved."""
    asked = "analysis.states=[0@1ep]", "analysis.grand=false"
    ask(lth_in, folder, "two", "one", *asked, "analysis.compared=[0@1ep,0@end]", "analysis.groups=7")
    (stored,) = StoredAnalysis.all_of(Run.open(folder / "runs" / "two"))
    rows, groups = stored.tables()["scores"], stored.tables()["groups"]
    assert sum(row["examples"] for row in groups) == 1438 and len(groups) == 7
    total = sum(row["examples"] * (row["loss"] - row["loss_compared"]) for row in groups)
    assert total == pytest.approx(sum(row["improvement"] for row in rows)) and total > 0
    assert [row["el2n"] for row in groups] == sorted(row["el2n"] for row in groups)
    kept = chosen_by(folder, "improvement", 1400, "two")
    assert lth_in(folder, "train", "name=without", *QUICK, *kept, "-q").code == 0
    worst_kept = max(rows[position]["improvement"] for position in trained_on(folder, "without"))
    assert sum(row["improvement"] > worst_kept for row in rows) == 38


def test_asked_again_and_stopped(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = ("one", "two", STATES, BETWEEN)
    examples, calls = Work.examples, []

    def counted(work: Work, *arguments: Any) -> Any:
        calls.append(work)
        if len(calls) == 6:
            raise Interrupted("enough")
        return examples(work, *arguments)

    monkeypatch.setattr(Work, "examples", counted)
    whole = ask(lth_in, folder, *question)
    assert not calls
    rows = table(folder, "one")
    shutil.rmtree(folder / whole["path"])
    assert lth_in(folder, "analyze", *question, "analysis=examples").code == 1
    assert not StoredAnalysis(folder / whole["path"]).finished
    again = ask(lth_in, folder, *question)
    # Three states and GraNd of either run, three points of a line: eleven passes, of which one was cut off.
    assert len(calls) == 6 + 6
    assert {**again, "finished": None} == {**whole, "finished": None}
    assert table(folder, "one") == rows


@pytest.mark.parametrize(
    ("score", "keep", "offset"),
    [
        ("el2n", "easiest", 0),
        ("margin", "easiest", 5),
        ("margin", "hardest", 0),
        ("forgetting", "hardest", 7),
    ],
)
def test_a_subset_is_exactly_the_examples_ranked_so(
    lth_in: Lth, folder: Path, score: str, keep: str, offset: int
) -> None:
    chosen = chosen_by(folder, score, 200)
    done = lth_in(
        folder,
        "train",
        *QUICK,
        *chosen,
        f"dataset.subset.keep={keep}",
        f"dataset.subset.offset={offset}",
        "name=n",
    )
    assert done.code == 0, done.err
    sign = -1 if (score == "margin") != (keep == "hardest") else 1
    rows = table(folder, "one")
    ranked = sorted(rows, key=lambda row: sign * row[score])[offset : offset + 200]
    trained = trained_on(folder, "n")
    if score != "forgetting":  # which of those that were forgotten as often, seeds.split decides
        assert trained == sorted(row["index"] for row in ranked)
    found = [row[score] for row in rows if row["index"] in trained]
    assert len(trained) == 200 and sorted(found) == sorted(row[score] for row in ranked)


def test_the_same_examples_are_the_same_data_wherever_the_scores_lie(lth_in: Lth, folder: Path) -> None:
    chosen = chosen_by(folder, "el2n", 300)
    assert lth_in(folder, "prune", *QUICK, *chosen, "pruning.rounds=1", "name=first", "-q").code == 0
    shutil.copytree(folder / scores_of(folder, "one"), folder / "elsewhere")
    other = [key.replace(scores_of(folder, "one"), "elsewhere") for key in chosen]
    again = lth_in(folder, "prune", *QUICK, *other, "pruning.rounds=2", "name=second", "--json", "-q")
    assert again.code == 0, again.err
    steps = [Run.open(folder / "runs" / "second").round(r).summary["steps_reused"] for r in (0, 1, 2)]
    assert steps == [10, 10, 0]
    assert lth_in(folder, "verify", "first", "second").code == 0
    # What was chosen decides the data: the hardest are another training.
    third = lth_in(folder, "train", *QUICK, *chosen, "dataset.subset.keep=hardest", "name=third", "-q")
    assert third.code == 0
    assert Run.open(folder / "runs" / "third").round(0).summary["steps_reused"] == 0


def test_a_chosen_run_goes_on_and_can_be_looked_at(
    lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = chosen_by(folder, "grand", 300)
    command = ("prune", *QUICK, *chosen, "pruning.rounds=1", "name=cut", "-q")
    whole = lth_in(folder, *command[:-2], "name=whole", "-q")
    assert whole.code == 0, whole.err
    shutil.rmtree(folder / "runs" / ".store")
    from lth_cli.training.loop import Trainer

    run, calls = Trainer.run, []

    def cut(trainer: Trainer, *arguments: Any) -> None:
        calls.append(trainer)
        if len(calls) == 3:
            raise Interrupted("enough")
        run(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", cut)
        assert lth_in(folder, *command).code == 1
    assert lth_in(folder, *command).code == 0
    ends = [Run.open(folder / "runs" / name).round(1) for name in ("whole", "cut")]
    assert ends[0].summary["metrics"] == ends[1].summary["metrics"]
    assert ends[0].summary["trajectory"] == ends[1].summary["trajectory"]
    found = lth_in(folder, "analyze", "cut", "analysis.points=3", "analysis=connectivity", "--json")
    assert found.code == 0, found.err
    assert lth_in(folder, "rewind", "cut", "rewind.to=3it", "-q").code == 0


def test_a_chosen_run_needs_no_other_run(lth_in: Lth, folder: Path) -> None:
    """The run that measured the scores is deleted, with all that was shared."""
    chosen = chosen_by(folder, "el2n", 300)
    diet = ("prune", *QUICK, *chosen, "pruning.rounds=1", "name=diet", "-q")
    assert lth_in(folder, *diet).code == 0
    data = trained_on(folder, "diet")
    for path in ("one", "two", "part", ".store"):
        shutil.rmtree(folder / "runs" / path)
    assert "is finished already" in lth_in(folder, *diet).err
    assert lth_in(folder, "verify", "diet").code == 0
    # Looked at, retrained, and gone on with, alone or in a sweep.
    found = lth_in(folder, "analyze", "diet", "analysis=instability", "analysis.points=3", "--json", "-q")
    assert found.code == 0, found.err
    done = lth_in(folder, "rewind", "diet", "rewind.to=3it", "name=again", "-q")
    assert done.code == 0, done.err
    shutil.rmtree(folder / "runs" / "diet" / "round_01")
    assert lth_in(folder, "rewind", "again", "rewind.to=4it", "-q").code == 0
    shutil.move(folder / "runs" / "diet", folder / "runs" / "moved")
    info = Run.open(folder / "runs" / "moved")
    info.update(state="interrupted")
    moved = lth_in(folder, *diet[:-2], "name=moved", "-q")
    assert moved.code == 0, moved.err
    shutil.rmtree(folder / "runs" / "moved" / "round_01")
    info.update(state="interrupted")
    swept = lth_in(folder, *diet[:-2], "-m", "name=moved", "seed=0", "-q")
    assert swept.code == 0, swept.err
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = make_plan(stored_config(Run.open(folder / "runs" / "moved")))
    assert plan.dense.data.positions("train").tolist() == data


def test_pretraining_on_the_easiest(lth_in: Lth, folder: Path) -> None:
    scores = scores_of(folder, "one")
    subset = f"pretrain.subset={{by: el2n, scores: {scores}, count: 120}}"
    done = lth_in(folder, "train", *QUICK, "pretrain.length=3it", subset, "name=diet", "-q")
    assert done.code == 0, done.err
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = make_plan(stored_config(Run.open(folder / "runs" / "diet")))
    origin = plan.dense.origin
    assert origin is not None and origin.step == 3
    ranked = sorted(table(folder, "one"), key=lambda row: (row["el2n"], row["index"]))
    expected = sorted(row["index"] for row in ranked[:120])
    assert origin.parent.data.positions("train").tolist() == expected  # type: ignore[union-attr]
    assert plan.dense.data.sizes["train"] == 1438


def test_scores_of_a_part_serve_that_part(lth_in: Lth, folder: Path) -> None:
    chosen = chosen_by(folder, "el2n", 50, run="part")
    done = lth_in(folder, "train", *QUICK, *chosen, "name=n")
    assert (done.code, done.out) == (2, "")
    assert "dataset.subset.scores: it has no score of 1007 of the 1438 training examples" in done.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("scores=nowhere",), "dataset.subset.scores: nowhere is no finished answer"),
        (("scores=runs/one",), "dataset.subset.scores: runs/one is no finished answer"),
        (("by=el3n",), "dataset.subset.by"),
        (("count=9999",), "dataset.subset.count: 9999 is more than the 1438 training examples"),
        (("count=null",), "takes by, scores and count"),
        (("by=null", "scores=null", "count=null", "keep=hardest"), "keep and offset choose by a score"),
        (("fraction=0.5",), "not both"),
        (("by=null", "scores=null", "count=null", "class_balanced=true"), "class_balanced takes a count"),
    ],
)
def test_wrong_subsets_write_nothing(
    lth_in: Lth, folder: Path, changes: tuple[str, ...], message: str
) -> None:
    before = sorted((folder / "runs").iterdir())
    changed = tuple(f"dataset.subset.{change}" for change in changes)
    done = lth_in(folder, "train", *QUICK, *chosen_by(folder, "el2n", 20), *changed, "name=n")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.strip().splitlines()) <= 2
    assert sorted((folder / "runs").iterdir()) == before


def test_scores_of_other_data_and_damaged_ones_are_refused(lth_in: Lth, folder: Path) -> None:
    chosen = chosen_by(folder, "el2n", 20)
    mnist1d = lth_in(folder, "train", *QUICK, "dataset=mnist1d", *chosen, "name=n")
    assert mnist1d.code == 2
    assert "holds scores of another training set" in mnist1d.err
    part = chosen_by(folder, "grand", 20, run="part")
    assert "has no grand; it has loss, margin, el2n" in lth_in(folder, "train", *QUICK, *part, "name=n").err
    other = ask_connectivity(lth_in, folder)
    wrong = lth_in(folder, "train", *QUICK, *chosen, f"dataset.subset.scores={other}", "name=n")
    assert "answers analysis=connectivity" in wrong.err
    path = folder / scores_of(folder, "part") / "scores.csv"
    path.write_text(path.read_text().replace("0", "1", 1))
    damaged = lth_in(folder, "train", *QUICK, *chosen_by(folder, "el2n", 20, run="part"), "name=n")
    assert damaged.code == 2
    assert "is damaged" in damaged.err


def ask_connectivity(lth_in: Lth, folder: Path) -> str:
    done = lth_in(
        folder, "analyze", "two", "analysis.states=[0@0,0@end]", "analysis.points=3", "--json", "-q"
    )
    assert done.code == 0, done.err
    path: str = json.loads(done.out)["path"]
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one", "analysis.states=[0@end,0@1ep]"), "write rising steps of one training"),
        (("one", "analysis.states=[0@end,0@end]"), "write rising steps of one training"),
        (("one", "analysis.states=[two:0@end]"), "names a run"),
        (("one", "analysis.states=[0@99ep]"), "outside its training"),
        (("one", "analysis.between=[0@end]"), "two states, or none"),
        (("one", "analysis.between=[0@end,one:0@end]"), "are one state"),
        (("one", "analysis.compared=[0@end,one:0@end]"), "analysis.compared"),
        (("one", "part"), "different data"),
        (("one", "analysis.between=[0@end,part:0@end]"), "different data"),
    ],
)
def test_wrong_questions(lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    before = sorted((folder / "runs").rglob("*"))
    done = lth_in(folder, "analyze", "analysis=examples", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert sorted((folder / "runs").rglob("*")) == before


def test_grand_computes_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a tf32 run too; afterwards the process is back in the run's arithmetic."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    seen: list[tuple[bool, bool]] = []

    class Net(torch.nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append((matmul.allow_tf32, cudnn.allow_tf32))
            return super().forward(inputs)

    batch = {"inputs": torch.ones(2, 3), "labels": torch.tensor([0, 1])}
    execution = Execution(torch.device("cpu"), torch.get_num_threads(), "tf32", False)
    plan = SimpleNamespace(dense=SimpleNamespace(execution=execution))
    recorded = SimpleNamespace(plan=plan, masks_of=lambda state: {})
    work = SimpleNamespace(examples=lambda *_: iter([batch]))
    monkeypatch.setattr(study, "_take_up", lambda *_: None)
    execution.activate()
    try:
        study._grand(cast(Any, work), Net(3, 2), cast(Any, SimpleNamespace(recorded=recorded)))
        assert set(seen) == {(False, False)}
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (True, True)
    finally:
        dataclasses.replace(execution, dtype="fp32").activate()
