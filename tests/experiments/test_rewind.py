"""`lth rewind`: the masks of a run retrained, from any point, and no step trained twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lth_cli.store.holder import Holder
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state
from lth_cli.store.verify import verify_run

EPOCH, STEPS = 8, 16  # of the conftest's `small`
Lth = Callable[..., Any]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    """A folder with a finished run of two rounds, `src`; tests copy it."""
    folder = tmp_path_factory.mktemp("room")
    done = lth_in(folder, "prune", *small, "name=src", "pruning.rounds=2", "-q")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def there(room: Path, tmp_path: Path) -> Path:
    """The runs folder of a copy of that, hard links kept."""
    subprocess.run(["cp", "-a", str(room / "runs"), str(tmp_path / "runs")], check=True)
    return tmp_path / "runs"


def rewind(lth: Lth, *arguments: str) -> dict[str, Any]:
    done = lth("rewind", "src", "--json", "-q", *arguments)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def run_of(result: dict[str, Any], there: Path) -> Run:
    return Run.open(there.parent / result["path"])


def test_same_point_trains_nothing(lth: Lth, there: Path) -> None:
    result = rewind(lth)
    assert (result["steps_trained"], result["steps_reused"]) == (0, 2 * STEPS)
    source, copy = Run.open(there / "src"), run_of(result, there)
    assert copy.info["source"]["id"] == source.info["id"]
    for number in (1, 2):
        assert copy.round(number).summary["trajectory"] == source.round(number).summary["trajectory"]
        assert copy.round(number).mask_path.read_bytes() == source.round(number).mask_path.read_bytes()
        for step, path in copy.round(number).checkpoints().items():
            assert path.samefile(source.round(number).checkpoints()[step])  # disk is not paid twice
    assert verify_run(copy) == []
    assert (copy.path / "figures" / "accuracy.png").is_file()


def test_replay_equals_stored_bytes(lth: Lth, there: Path, small: tuple[str, ...]) -> None:
    steps = sorted(random.Random(0).sample(range(1, STEPS), 6))
    for step in steps:
        rewind(lth, f"rewind.to={step}it", "rounds=2", f"name=at_{step}")
    keep = ",".join(f"{step}it" for step in steps)
    shutil.rmtree(there / ".store")
    assert lth("train", *small, "name=stored", f"checkpoint.keep=[{keep}]", "-q").code == 0
    stored = Run.open(there / "stored").round(0).checkpoints()
    for step in steps:
        replayed = Run.open(there / f"at_{step}").origin(0).checkpoints()[step]
        assert replayed.read_bytes() == stored[step].read_bytes()
        assert not replayed.samefile(stored[step])


def test_later_point_and_longer_horizon_train_the_missing_part(lth: Lth, there: Path) -> None:
    first = rewind(lth, "rewind.to=4it", "rounds=2")
    assert first["origins"][0]["steps_trained"] == 4
    assert first["steps_trained"] == 4 + STEPS - 4
    later = rewind(lth, "rewind.to=7it", "rounds=2")
    assert (later["origins"][0]["steps_trained"], later["origins"][0]["steps_reused"]) == (3, 4)
    longer = rewind(lth, "training.length=3ep", "rounds=2")
    assert (longer["steps_trained"], longer["steps_reused"]) == (EPOCH, STEPS)


def test_sweep_replays_the_dense_training_once(lth: Lth, there: Path) -> None:
    done = lth("rewind", "src", "-m", "rewind.to=1ep,3it,0", "rounds=1-2", "--json")
    assert done.code == 0, done.err
    runs = json.loads(done.out)
    assert [run["origins"][0]["steps_trained"] for run in runs] == [EPOCH, 0, 0]
    assert sum(run["steps_trained"] for run in runs) == EPOCH + 2 * (STEPS - EPOCH) + 2 * (STEPS - 3)


def test_kept_points_are_free(lth: Lth, small: tuple[str, ...]) -> None:
    done = lth("prune", *small, "name=src", "pruning.rounds=1", "checkpoint.keep=[3it,1ep]", "-q")
    assert done.code == 0, done.err
    assert rewind(lth, "rewind.to=3it")["steps_trained"] == STEPS - 3
    assert rewind(lth, "rewind.to=1ep")["steps_trained"] == STEPS - EPOCH


def test_rounds(lth: Lth, there: Path) -> None:
    result = rewind(lth, "rounds=0,2", "rewind.to=2it")
    assert [row["round"] for row in result["results"]] == [0, 2]
    done = lth("rewind", "src", "rounds=1,2-2", "name=listed", "-q")
    assert done.code == 0, done.err
    assert [r.number for r in Run.open(there / "listed").rounds()] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rounds=",), "rounds: '' is not a range of rounds"),
        (("rounds=5",), "no finished round 5"),
        (("rewind.to=3ep",), "rewind.to: 3ep is step 24"),
        (("-m", "rewind.to=0,3ep"), "rewind.to: 3ep is step 24"),
        (("rewind.to=1ep", "rewind.length=2ep"), "rewind.length"),
        (("model.hidden=[30,10]",), "the masks of src do not fit"),
        (("model=conv2",), "the masks of src do not fit"),
        (("rewind.tow=1it",), "unknown key"),
        (("experiment=demo",), "experiment"),
        (("pruning.rounds=3",), "no effect on lth rewind"),
        (("control=nonsense",), "there is no option"),
        (("checkpoint.keep=[9ep]",), "checkpoint.keep"),
    ],
)
def test_wrong_requests_leave_nothing(lth: Lth, there: Path, arguments: tuple[str, ...], told: str) -> None:
    before = sorted(path.name for path in there.iterdir())
    done = lth("rewind", "src", *arguments)
    assert done.code == 2
    assert told in done.err
    assert sorted(path.name for path in there.iterdir()) == before


def test_weights_of_other_shapes_are_told_before_any_work(lth: Lth, small: tuple[str, ...]) -> None:
    # The masks fit, as the output layer has none.
    done = lth("prune", *small, "name=src", "pruning.rounds=1", "pruning.output_layer=keep", "-q")
    assert done.code == 0, done.err
    done = lth("rewind", "src", "dataset.subset.classes=[0,1]")
    assert done.code == 2 and "the weights of src do not fit" in done.err
    assert lth("rewind", "src", "dataset.subset.classes=[0,1]", "control=reinit", "-q").code == 0


def test_unknown_and_unfinished_sources(lth: Lth, there: Path, small: tuple[str, ...]) -> None:
    assert "no run 'nobody'" in lth("rewind", "nobody").err
    assert lth("train", *small, "name=dense", "-q").code == 0
    assert "no pruned round" in lth("rewind", "dense").err
    Run.open(there / "src").update(state="interrupted")
    assert "not finished" in lth("rewind", "src").err
    assert lth("rewind", "src", "rounds=1", "-q").code == 0


def test_stored_values_stay_and_typed_ones_win(lth: Lth, there: Path) -> None:
    # 1.2e-3 is the default of the group, but not what the source was trained with.
    config = run_of(rewind(lth, "optimizer.lr=1.2e-3", "rounds=1"), there).config
    assert config["optimizer"]["lr"] == 1.2e-3
    assert config["model"]["hidden"] == [30, 20]
    sgd = run_of(rewind(lth, "optimizer=sgd", "rounds=1"), there).config["optimizer"]
    assert sgd["_target_"] == "torch.optim.SGD"
    assert sgd["lr"] == 0.1 and "betas" not in sgd


def test_interpolations_in_a_stored_config_are_text(
    lth: Lth, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lth_cli.config.compose import load_over

    monkeypatch.setenv("LTH_SECRET", "hidden")
    stored = Run.open(there / "src").config
    stored["model"]["activation"] = "${oc.env:LTH_SECRET}"
    assert load_over("rewind", stored, []).values["model"]["activation"] == "${oc.env:LTH_SECRET}"


def test_code_from_outside_needs_trust(lth: Lth, there: Path) -> None:
    from lth_cli.store.yamls import write_yaml

    source = Run.open(there / "src")
    config = source.config
    config["model"]["_target_"] = "os.system"
    write_yaml(source.path / "config.yaml", config)
    done = lth("rewind", "src")
    assert done.code == 2
    assert "model._target_=os.system" in done.err and "--trust" in done.err
    assert "--trust" not in lth("rewind", "src", "--trust").err


def test_another_order_starts_from_the_same_point(lth: Lth, there: Path) -> None:
    ours = run_of(rewind(lth, "rewind.to=5it", "rounds=2"), there)
    other = run_of(rewind(lth, "rewind.to=5it", "rounds=2", "seeds.order=7"), there)
    starts = [load_state(run.round(2).checkpoints()[5]) for run in (ours, other)]
    ends = [load_state(run.round(2).checkpoints()[STEPS]) for run in (ours, other)]
    assert all(torch.equal(weight, starts[1].weights[name]) for name, weight in starts[0].weights.items())
    assert not all(torch.equal(weight, ends[1].weights[name]) for name, weight in ends[0].weights.items())


def test_other_hyperparameters_and_data(lth: Lth, there: Path) -> None:
    source = Run.open(there / "src")
    for overrides in (("dataset.label_noise=0.5",), ("training.batch_size=30", "rewind.to=1ep")):
        run = run_of(rewind(lth, "rounds=1", *overrides), there)
        assert run.round(1).summary["trajectory"] != source.round(1).summary["trajectory"]
        assert run.round(1).mask_path.read_bytes() == source.round(1).mask_path.read_bytes()
        assert verify_run(run) == []
    # Epochs are those of each training: the weights of step 8 there, the schedule from step 15 here.
    assert run.round(1).summary["start"]["step"] == EPOCH
    assert run.round(1).summary["start_step"] == 15


def test_nothing_harms_others(lth: Lth, lth_in: Lth, there: Path, tmp_path: Path) -> None:
    result = rewind(lth, "rewind.to=5it")
    copy = run_of(result, there)
    shutil.rmtree(there / ".store")
    assert verify_run(copy) == [] and verify_run(Run.open(there / "src")) == []
    # The deleted store comes back from what the run keeps: only what no run keeps is trained again.
    again = rewind(lth, "rewind.to=5it", "name=again")
    assert again["steps_trained"] == 5 + 2 * (STEPS - 5)
    shutil.rmtree(there / "src")
    assert verify_run(copy) == []
    further = lth("rewind", copy.name, "rewind.to=8it", "rounds=2", "--json")
    assert further.code == 0, further.err
    origin = json.loads(further.out)["origins"][0]
    assert (origin["steps_trained"], origin["steps_reused"]) == (3, 5)
    # Elsewhere, without any store and without links.
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(copy.path, elsewhere / "copied")
    assert lth_in(elsewhere, "show", "copied").code == 0
    assert verify_run(Run.open(elsewhere / "copied")) == []
    moved = lth_in(elsewhere, "rewind", "copied", "rewind.to=6it", "rounds=1", "--json")
    assert moved.code == 0, moved.err
    origin = json.loads(moved.out)["origins"][0]
    assert (origin["steps_trained"], origin["steps_reused"]) == (1, 5)
    assert origin["trajectory"] == Run.open(elsewhere / "copied").origin(0).summary["trajectory"]


def test_copied_source_gives_its_states(lth_in: Lth, there: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = lth_in(elsewhere, "rewind", str(there / "src"), "rewind=fine_tune", "rounds=2", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["steps_trained"], result["steps_reused"]) == (STEPS, 0)


def test_a_training_that_cannot_be_repeated(lth: Lth, there: Path) -> None:
    # As after a release that changes numerics: the recorded identity is not what this release makes of the config.
    source = Run.open(there / "src")
    summary = source.round(0).summary
    source.round(0).write_summary({**summary, "trajectory": "f" * 64})
    done = lth("rewind", "src", "rewind.to=5it")
    assert done.code == 2
    assert "cannot be repeated bit for bit here" in done.err


def test_identity_excludes_what_changes_no_number(lth: Lth, there: Path) -> None:
    source = Run.open(there / "src").round(1).summary["trajectory"]
    same = ("evaluation.every=3it", "checkpoint.every=2it", "evaluation.batch_size=50", "name=other")
    for override in same:
        run = run_of(rewind(lth, override, "rounds=1", *([] if "name" in override else ["name=n"])), there)
        assert run.round(1).summary["trajectory"] == source
        shutil.rmtree(run.path)
    changes = (
        "seeds.order=1",
        "optimizer.lr=1e-3",
        "training.batch_size=61",
        "rewind.to=1it",
        "precision=bf16",
        "threads=2",
    )
    seen = {source}
    for override in changes:
        run = run_of(rewind(lth, override, "rounds=1"), there)
        seen.add(run.round(1).summary["trajectory"])
    assert len(seen) == 1 + len(changes)


def several(there: Path, count: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """The same `lth rewind src` in several processes, as runs p0, p1, ..."""
    code = "import sys; sys.argv = ['lth', *sys.argv[1:]]; from lth_cli.cli.main import main; main()"
    command = [sys.executable, "-c", code, "rewind", "src", "--json", "-q", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LTH_RUNS_DIR": "runs"}
    return [
        subprocess.Popen(
            [*command, f"name=p{i}"], cwd=there.parent, stdout=subprocess.PIPE, text=True, env=environment
        )
        for i in range(count)
    ]


def test_three_processes_share_one_training(there: Path) -> None:
    together = several(there, 3, "rewind.to=6it")
    results = [json.loads(process.communicate(timeout=120)[0]) for process in together]
    assert sum(result["steps_trained"] for result in results) == 6 + 2 * (STEPS - 6)
    assert len({result["results"][-1]["test_accuracy"] for result in results}) == 1
    ends = [Run.open(there / f"p{i}").round(2).checkpoints()[STEPS] for i in range(3)]
    assert all(end.samefile(ends[0]) for end in ends)
    assert not list((there / ".store").glob("*.lock"))


def test_killed_trainer_and_waiter_leave_nothing_stuck(there: Path) -> None:
    together = several(there, 4, "training.length=200ep", "rounds=1", "evaluation.every=50ep")
    by_pid = {process.pid: process for process in together}
    trainer = None
    while trainer is None:
        assert all(process.poll() is None for process in together)
        holders = (Holder.read(path) for path in (there / ".store").glob("*.lock"))
        trainer = next((by_pid[holder.pid] for holder in holders if holder and holder.pid in by_pid), None)
    waiter = next(process for process in together if process is not trainer)
    for process in (trainer, waiter):
        process.kill()
        process.wait()
    rest = [process for process in together if process not in (trainer, waiter)]
    results = [json.loads(process.communicate(timeout=120)[0]) for process in rest]
    assert sorted(result["steps_trained"] for result in results) == [0, 200 * EPOCH - STEPS]
    ends = [
        Run.open(there / f"p{together.index(process)}").round(1).checkpoints()[200 * EPOCH]
        for process in rest
    ]
    assert all(end.samefile(ends[0]) for end in ends)
    assert not list((there / ".store").glob("*.lock"))
