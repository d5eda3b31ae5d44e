"""Every round of a run can be opened as the training it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lth_cli.config.compose import compose, validate
from lth_cli.config.errors import RequestError
from lth_cli.config.references import Reference
from lth_cli.experiments.recorded import Recorded, open_reference
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.engine import Engine
from lth_cli.training.trajectory import Known, Trajectory

Lth = Callable[..., Any]
HEAD = (
    "pretrain.length=3it",
    "pretrain.subset={classes: [4,2]}",
    "training.freeze=[fc_layers.0.weight]",
    "optimizer=decoupled_sgd",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    """Runs of every kind: with controls, pre-trained, also on other classes, fine-tuned, with signs kept."""
    folder = tmp_path_factory.mktemp("recorded")
    for arguments in (
        ("prune", *small, "name=imp", "pruning.rounds=2", "controls.kinds=[random,reinit,keep_signs]"),
        ("prune", *small, "name=pre", "pruning.rounds=1", "pretrain.length=3it"),
        ("prune", *small, "name=head", "pruning.rounds=1", *HEAD),
        ("rewind", "imp", "name=tuned", "rewind=fine_tune"),
        ("rewind", "imp", "name=late", "rewind.to=5it", "control=keep_signs"),
    ):
        done = lth_in(folder, *arguments, "-q")
        assert done.code == 0, done.err
    return folder / "runs"


def opened(runs: Path, text: str) -> Recorded:
    place = validate(compose("prune", [f"runs_dir={runs}"], None))
    return open_reference(Reference.parse(text), runs, place, trust=False)


@pytest.mark.parametrize(
    "text",
    [
        "imp:0",
        "imp:1",
        "imp:2",
        "imp:random/2",
        "imp:reinit/1",
        "imp:keep_signs/2",
        "pre:0",
        "pre:1",
        "head:0",
        "head:1",
        "tuned:1",
        "late:2",
    ],
)
def test_training_is_rebuilt(runs: Path, text: str, tmp_path: Path) -> None:
    found = opened(runs, text)
    assert isinstance(found.trajectory, Trajectory)
    assert found.trajectory.identity == found.round.summary["trajectory"]
    # A step that nobody stored is trained from what the round keeps, in a store that has nothing.
    engine = Engine(TrajectoryStore(tmp_path / ".store"), "test", found.plan.config.evaluation, "60s")
    kept = load_state(found.round.checkpoints()[found.end])
    between = found.state(found.end - 1, engine)
    assert between.step == found.end - 1
    engine.store.discard(found.trajectory.identity, found.end)
    again = engine.state(found.trajectory, found.end)
    assert all(torch.equal(again.weights[name], kept.weights[name]) for name in kept.weights)


def test_last_and_best(runs: Path) -> None:
    assert opened(runs, "imp").round.number == 2
    accuracies = [round_.summary["metrics"]["test"]["accuracy"] for round_ in Run.open(runs / "imp").rounds()]
    assert opened(runs, "imp:best").round.number == accuracies.index(max(accuracies))


def test_steps(runs: Path) -> None:
    late = opened(runs, "late:1")
    assert (late.step("start"), late.step("end"), late.step(Reference.parse("x@1ep").step)) == (5, 16, 8)
    with pytest.raises(RequestError, match="goes from step 5 to 16"):
        late.step(Reference.parse("x@4it").step)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imp:7", "no finished round 7; it has 0, 1, 2"),
        ("imp:inverted/1", "no finished round 1 of inverted; it has none"),
        ("imp:inverted/last", "no finished round of inverted"),
        ("ipm", "there are: imp"),
    ],
)
def test_what_is_not_there(runs: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        opened(runs, text)


def test_training_that_cannot_be_repeated(runs: Path, tmp_path: Path) -> None:
    """A run of another release: what it keeps can be read, nothing can be trained."""
    shutil.copytree(runs / "imp", tmp_path / "imp")
    run = Run.open(tmp_path / "imp")
    round_ = run.round(1)
    summary = {**round_.summary, "trajectory": "0" * 64}
    round_.write_summary({key: value for key, value in summary.items() if key != "files"})
    found = opened(tmp_path, "imp:1")
    assert isinstance(found.trajectory, Known)
    found.check(found.end)
    with pytest.raises(RequestError, match="cannot be repeated bit for bit"):
        found.check(3)
