"""`lth analyze analysis=jacobian`: against each example's Jacobian, stored, resumed, refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_helpers import Lth, answer

from lth_cli.analyses.jacobian import study
from lth_cli.analyses.work import Work
from lth_cli.store.runs import Run

LINEAR = ("model=mlp7", "model.activation=linear", "model.hidden=[12,12]", "dataset.subset.fraction=0.1")
ASKED = ("analysis=jacobian", "analysis.examples=30", "analysis.dtype=float64", "analysis.batch_size=20")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("jacobian")
    arguments = (*small, *LINEAR, "pruning.rounds=1", "pruning.fraction=0.7", "controls.kinds=[random]", "-q")
    for name, isometry in (("plain", 0), ("isometric", 800)):
        done = lth_in(folder, "prune", *arguments, f"name={name}", f"rewind.isometry={isometry}")
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def product(folder: Path, name: str, number: int, step: int) -> list[float]:
    """Singular values of the product of the layers, which is the Jacobian of a linear network everywhere."""
    weights = Run.open(folder / "runs" / name).round(number).checkpoint(step).weights
    first, second, last = (
        weights[layer].double() for layer in ("fc_layers.0.weight", "fc_layers.1.weight", "fc.weight")
    )
    found: list[float] = torch.linalg.svdvals(last @ second @ first).tolist()
    return found


def test_rows_are_the_singular_values_of_each_state(lth_in: Lth, folder: Path) -> None:
    states = "analysis.states=[0@start,1@start,1@end,random/1@start]"
    found = answer(lth_in, folder, "plain", "isometric", *ASKED, states)
    rows = {row["state"]: row for row in found["tables"]["states"]}
    assert len(rows) == 8
    for name in ("plain", "isometric"):
        end = Run.open(folder / "runs" / name).round(1).summary["end_step"]
        for label, number, step in (("0@start", 0, 0), ("1@start", 1, 0), ("1@end", 1, end)):
            row, values = rows[f"{name}:{label}"], torch.tensor(product(folder, name, number, step))
            expected = [values.mean(), values.std(correction=0), values.min(), values.max()]
            assert [row[mark] for mark in ("mean", "std", "min", "max")] == pytest.approx(
                [float(value) for value in expected], rel=1e-4, abs=1e-7
            )
            assert row["density"] == pytest.approx(0.3 if number else 1.0, abs=0.01)
            assert (row["run"], row["round"], row["moment"]) == (name, *label.split("@"))
    # Orthogonal weights are isometric, pruning half of them is not, and isometry makes up for it.
    assert rows["plain:0@start"]["mean"] == pytest.approx(1.0, abs=1e-5)
    plain, isometric = (rows[f"{name}:1@start"]["mean"] for name in ("plain", "isometric"))
    assert plain < 0.85 and abs(isometric - 1) < 0.5 * (1 - plain)
    assert (folder / found["path"] / "figure.svg").is_file()


def test_asked_again_nothing_is_computed_and_stopped_it_goes_on(
    lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(lth_in, folder, "plain", *ASKED)
    with monkeypatch.context() as patch:
        patch.setattr(Work, "state", None)
        assert answer(lth_in, folder, "plain", *ASKED) == first
    shutil.rmtree(folder / first["path"])
    measured: list[str] = []
    measure = study._measure

    def counted(work: Work, state: Any, asked: Any) -> Any:
        measured.append(state.label)
        return measure(work, state, asked)

    monkeypatch.setattr(study, "_measure", counted)
    with monkeypatch.context() as stopping:
        stopping.setattr(Work, "should_stop", lambda work: len(measured) == 2)
        stopped = lth_in(folder, "analyze", "plain", *ASKED)
    assert stopped.code == 1 and "goes on with what is missing" in stopped.err
    again = answer(lth_in, folder, "plain", *ASKED)
    assert measured == ["plain:0@start", "plain:1@start", "plain:1@start", "plain:1@end"]
    assert {**again, "finished": None} == {**first, "finished": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("analysis.states=[4]",), "no finished round 4"),
        (("analysis.examples=5000",), "training examples, not 5000"),
        (("analysis.dtype=float16",), "analysis.dtype"),
    ],
)
def test_wrong_questions_write_nothing(
    lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = lth_in(folder, "analyze", "plain", *ASKED, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(folder.glob("runs/*/analysis"))


def test_inputs_that_are_no_real_numbers_are_refused(lth_in: Lth, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog sat on the log " * 20)
    text = ("dataset=characters", f"dataset.path={tmp_path / 'text.txt'}", "dataset.length=8")
    gpt = ("model=gpt", "model.width=8", "model.depth=1", "model.heads=1", "objective=next_token")
    done = lth_in(
        tmp_path, "train", *text, *gpt, "training.length=1it", "device=cpu", "threads=1", "name=text", "-q"
    )
    assert done.code == 0, done.err
    refused = lth_in(tmp_path, "analyze", "text", "analysis=jacobian", "analysis.states=[0@end]")
    assert refused.code == 2 and "its inputs are int64" in refused.err
