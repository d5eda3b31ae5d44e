"""Teachers by name, from the command line: found, kept with the run, part of what it is; and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from lth_cli.config.compose import compose, load, validate
from lth_cli.config.references import Reference
from lth_cli.experiments.plan import make_plan
from lth_cli.experiments.recorded import open_reference
from lth_cli.store.files import write_sealed
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state
from lth_cli.training.trajectory import FromState, Trajectory

Lth = Callable[..., Any]
KD = "distillation=kd"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    """A folder with runs to learn from."""
    folder = tmp_path_factory.mktemp("teachers")
    for arguments in (
        ("prune", *small, "name=imp", "pruning.rounds=2"),
        ("train", *small, "name=wide", "model.hidden=[40]", "seed=3"),
        ("train", *small, "name=two_classes", "dataset.subset.classes=[0,1]", "dataset.subset.fraction=1.0"),
        ("train", *small, "name=shifted", "dataset.subset.classes=[9,8,7,6,5,4,3,2,1,0]"),
    ):
        done = lth_in(folder, *arguments, "-q")
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, lth_in: Lth, small: tuple[str, ...]) -> Callable[..., Any]:
    """`lth COMMAND` with small trainings in a folder of its own that has those runs."""
    shutil.copytree(made / "runs", tmp_path / "runs")

    def call(command: str, *arguments: str) -> Any:
        settings = () if command == "rewind" else small
        first = arguments[:1] if command == "rewind" else ()
        return lth_in(tmp_path, command, *first, *settings, *arguments[len(first) :], "-q")

    return call


def ended(runs: Path, name: str, number: int = 0) -> dict[str, torch.Tensor]:
    """Weights at the end of a round."""
    round_ = Run.open(runs / name).round(number)
    return load_state(round_.checkpoints()[round_.summary["end_step"]]).weights


def identity(runs: Path, name: str, number: int = 0) -> str:
    return str(Run.open(runs / name).round(number).summary["trajectory"])


def noted(runs: Path, name: str, number: int = 0) -> Any:
    return Run.open(runs / name).round(number).summary["description"]["objective"].get("distillation")


def test_student_of_another_architecture(here: Lth, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert here("train", "name=plain", "seed=1").code == 0
    done = here("train", "name=student", "seed=1", KD, "distillation.teachers=[wide]")
    assert done.code == 0, done.err
    assert noted(runs, "student")["teachers"][0]["trajectory"] == identity(runs, "wide")
    weights = ended(runs, "student"), ended(runs, "plain")
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_run_keeps_its_teachers(here: Lth, lth_in: Lth, tmp_path: Path) -> None:
    """The run can be repeated from what it keeps, when the teacher and the store are gone."""
    runs = tmp_path / "runs"
    command = ("train", "name=student", KD, "distillation.teachers=[imp:1@9it,wide]")  # 9it: nowhere stored
    assert here(*command).code == 0
    expected = ended(runs, "student")
    teachers = Run.open(runs / "student").teachers()
    assert [list(folder.checkpoints()) for folder in teachers] == [[9], [16]]
    assert lth_in(tmp_path, "verify", "student").code == 0
    assert "taught by  imp:1@9it, wide:0@16it" in lth_in(tmp_path, "show", "student").out
    for gone in (runs / "imp", runs / "wide", runs / ".store"):
        shutil.rmtree(gone)
    shutil.rmtree(runs / "student" / "round_00")
    Run.open(runs / "student").update(state="interrupted")
    done = here(*command)
    assert done.code == 0, done.err
    assert all(torch.equal(value, expected[name]) for name, value in ended(runs, "student").items())


def test_damaged_teacher_is_found(here: Lth, lth_in: Lth, tmp_path: Path) -> None:
    assert here("train", "name=student", KD, "distillation.teachers=[wide]").code == 0
    (path,) = Run.open(tmp_path / "runs" / "student").teacher(0).checkpoints().values()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # a hard link
    path.write_bytes(content)
    done = lth_in(tmp_path, "verify", "student")
    assert done.code == 1
    assert "teachers/round_00" in done.out + done.err


def test_a_name_keeps_its_meaning_within_a_run(here: Lth, tmp_path: Path) -> None:
    """`latest` is another run by the time the command is given again."""
    runs = tmp_path / "runs"
    command = ("train", "name=student", "seed=1", KD, "distillation.teachers=[latest]")
    first = here(*command)
    assert first.code == 0, first.err
    before = identity(runs, "student"), noted(runs, "student")["teachers"][0]["trajectory"]
    assert before[1] == identity(runs, "wide")  # not two_classes, shifted: other classes
    assert here("train", "name=newer", "seed=5").code == 0
    shutil.rmtree(runs / "student" / "round_00")
    Run.open(runs / "student").update(state="interrupted")
    assert here(*command).code == 0
    assert (identity(runs, "student"), noted(runs, "student")["teachers"][0]["trajectory"]) == before
    other = here("train", "name=other", "seed=1", KD, "distillation.teachers=[latest]")
    assert other.code == 0
    assert noted(runs, "other")["teachers"][0]["trajectory"] == identity(runs, "student")


def test_kept_halfway_for_another_meaning_of_the_name(here: Lth, lth_in: Lth, tmp_path: Path) -> None:
    """A process died before the run noted its teachers, and `latest` is another run since."""
    runs = tmp_path / "runs"
    command = ("train", "name=student", "seed=1", KD, "distillation.teachers=[latest]")
    assert here(*command).code == 0
    info = {key: value for key, value in Run.open(runs / "student").info.items() if key != "teachers"}
    shutil.rmtree(runs / "student" / "round_00")
    write_sealed(runs / "student" / "run.json", {**info, "state": "interrupted"})
    assert here("train", "name=newer", "seed=5", "training.length=12it").code == 0
    assert here(*command).code == 0
    assert noted(runs, "student")["teachers"][0]["trajectory"] == identity(runs, "newer")
    assert list(Run.open(runs / "student").teacher(0).checkpoints()) == [12]
    assert lth_in(tmp_path, "verify", "student").code == 0


def test_best(here: Lth, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = here("train", "name=student", "seed=1", KD, "distillation.teachers=[best]")
    assert done.code == 0, done.err
    accuracies = {
        round_.summary["trajectory"]: round_.summary["metrics"]["test"]["accuracy"]
        for name in ("imp", "wide")
        for round_ in Run.open(runs / name).rounds()
    }
    taught_by = noted(runs, "student")["teachers"][0]["trajectory"]
    assert accuracies[taught_by] == max(accuracies.values())


def test_every_finished_run_of_a_sweep(
    here: Lth, lth_in: Lth, small: tuple[str, ...], tmp_path: Path
) -> None:
    assert lth_in(tmp_path, "train", *small, "name=pool", "-m", "seed=0,1,2", "-q").code == 0
    done = here(
        "train", "name=student", "seed=7", KD, "distillation.teachers=['sweep:pool']", "distillation.sample=1"
    )
    assert done.code == 0, done.err
    runs = tmp_path / "runs"
    pool = {identity(runs, path.name) for path in runs.glob("pool-seed_*")}
    assert {teacher["trajectory"] for teacher in noted(runs, "student")["teachers"]} == pool
    assert len(pool) == 3
    wrong = here("train", "name=more", KD, "distillation.teachers=['sweep:pool']", "distillation.sample=4")
    assert wrong.code == 2
    assert "4 cannot be drawn from 3 teachers" in wrong.err


def test_rounds_learn_from_the_dense_network_and_the_round_before(
    here: Lth, lth_in: Lth, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    done = here(
        "prune",
        "name=chain",
        "pruning.rounds=2",
        "controls.kinds=[random]",
        "controls.rounds=2",
        KD,
        "distillation.teachers=[dense,previous]",
    )
    assert done.code == 0, done.err
    dense, first = identity(runs, "chain"), identity(runs, "chain", 1)
    assert noted(runs, "chain") is None
    assert dense == identity(runs, "imp")  # what a plain run trains: it was read, not trained again
    assert [teacher["trajectory"] for teacher in noted(runs, "chain", 2)["teachers"]] == [dense, first]
    control = Run.open(runs / "chain").round(2, "random").summary["description"]["objective"]["distillation"]
    assert [teacher["trajectory"] for teacher in control["teachers"]] == [dense, first]
    again = here("rewind", "chain", "name=again", "rewind.to=5it")
    assert again.code == 0, again.err
    assert [teacher["trajectory"] for teacher in noted(runs, "again", 2)["teachers"]] == [dense, first]
    assert noted(runs, "again", 2)["begins"] == 5
    plain = here("rewind", "chain", "name=plain", "distillation=none")
    assert plain.code == 0, plain.err
    assert noted(runs, "plain", 1) is None
    assert lth_in(tmp_path, "verify", "chain", "again").code == 0


def test_dense_network_learns_from_its_ticket(here: Lth, tmp_path: Path) -> None:
    done = here("train", "name=student", "seed=0", KD, "distillation.teachers=[imp:last]")
    assert done.code == 0, done.err
    runs = tmp_path / "runs"
    assert noted(runs, "student")["teachers"][0]["trajectory"] == identity(runs, "imp", 2)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weight_files(here: Lth, tmp_path: Path, suffix: str) -> None:
    """A state dict written by any program, of another architecture than the student's."""
    runs, path = tmp_path / "runs", tmp_path / f"teacher.{suffix}"
    weights = ended(runs, "wide")
    if suffix == "pt":
        torch.save(weights, path)
    else:
        safetensors.torch.save_file(weights, path)
    settings = (KD, "+model@distillation.model=mlp", "distillation.model.hidden=[40]")
    done = here("train", "name=student", *settings, f"distillation.teachers=[{path}]")
    assert done.code == 0, done.err
    same = here("train", "name=twin", KD, "distillation.teachers=[wide]")
    assert same.code == 0, same.err
    expected = ended(runs, "twin")
    assert all(torch.equal(value, expected[name]) for name, value in ended(runs, "student").items())
    path.unlink()
    shutil.rmtree(runs / "student" / "round_00")
    Run.open(runs / "student").update(state="interrupted")
    assert here("train", "name=student", *settings, f"distillation.teachers=[{path}]").code == 0
    own = next(iter(Run.open(runs / "imp").round(1).checkpoints().values()))
    assert here("train", "name=of_checkpoint", KD, f"distillation.teachers=['{own}']").code == 0


def test_pretrained_torchvision_models(
    made: Path, tmp_path: Path, lth_in: Lth, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that lie in torch's folder of downloads; their 1,000 classes are not those of the digits."""
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / Path(weights.url).name)
    name = "distillation.teachers=['torchvision:squeezenet1_1']"
    refused = lth_in(tmp_path, "train", *small, KD, name)
    assert refused.code == 2
    assert "tells 1000 classes apart, the student 10" in refused.err
    monkeypatch.setitem(weights.meta, "categories", weights.meta["categories"][:10])
    torch.save(torchvision.models.squeezenet1_1(num_classes=10).state_dict(), folder / Path(weights.url).name)
    few = ("dataset.subset.fraction=0.02", "training.length=1it", "evaluation.train=false")
    done = lth_in(tmp_path, "train", *small, *few, KD, name, "name=student", "-q")
    assert done.code == 0, done.err
    (teacher,) = noted(tmp_path / "runs", "student")["teachers"]
    assert teacher["input_shape"] == [3, 224, 224]
    assert len(teacher["scale"]) == 3


def test_training_with_teachers_is_rebuilt(here: Lth, tmp_path: Path) -> None:
    """Analyses and later students can train steps of it that nobody stored."""
    assert here("train", "name=student", KD, "distillation.teachers=[wide]", "distillation.every=3").code == 0
    runs = tmp_path / "runs"
    place = validate(compose("train", [f"runs_dir={runs}"], None))
    found = open_reference(Reference.parse("student:0"), runs, place, trust=False)
    assert isinstance(found.trajectory, Trajectory)
    assert here("train", "name=grandchild", KD, "distillation.teachers=[student:0@7it]").code == 0


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        ("[nobody]", "no run 'nobody'"),
        ("[imp:7]", "no finished round 7"),
        ("[imp:0@99it]", "99"),
        ("[two_classes]", "was trained on other classes: dataset.subset.classes [0, 1] there, None here"),
        ("[shifted]", "distillation.same_classes=true"),
        ("[dense]", "dense is for the rounds of lth prune and lth rewind"),
        ("['sweep:none']", "none"),
        ("['torchvision:resnet7']", "torchvision has no weights 'resnet7'"),
        ("[nowhere.safetensors]", "cannot be read: No such file"),
        ("[notes.pt]", "holds no weights that can be read"),
    ],
)
def test_what_is_refused(here: Lth, tmp_path: Path, teachers: str, message: str) -> None:
    (tmp_path / "notes.pt").write_text("no weights")
    before = sorted(path.name for path in (tmp_path / "runs").iterdir())
    done = here("train", "name=student", KD, f"distillation.teachers={teachers}")
    assert done.code == 2
    assert message in done.err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == before


def test_ones_word_for_the_same_classes(here: Lth) -> None:
    taken = here("train", "name=a", KD, "distillation.teachers=[shifted]", "distillation.same_classes=true")
    assert taken.code == 0, taken.err
    count = here(
        "train", "name=b", KD, "distillation.teachers=[two_classes]", "distillation.same_classes=true"
    )
    assert count.code == 2
    assert "tells 2 classes apart, the student 10" in count.err


def test_without_teachers_nothing_is_noted(here: Lth, tmp_path: Path) -> None:
    assert here("train", "name=plain", "seed=4").code == 0
    run = Run.open(tmp_path / "runs" / "plain")
    assert not run.teachers()
    assert "teachers" not in run.info


def test_rewound_on_other_data_the_dense_teacher_is_as_strange_as_any(here: Lth, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    own = (KD, "rounds=1", "distillation.teachers=[dense]")
    refused = here("rewind", "imp", *own, "name=a", "dataset.subset.classes=[9,8,7,6,5,4,3,2,1,0]")
    assert refused.code == 2
    assert "was trained on other classes" in refused.err
    other = ("dataset.normalize.mean=[0.0]", "dataset.normalize.std=[0.05]")
    for name, teacher in (("b", "dense"), ("c", "imp:0")):
        done = here(
            "rewind", "imp", KD, "rounds=1", f"distillation.teachers=[{teacher}]", f"name={name}", *other
        )
        assert done.code == 0, done.err
    assert noted(runs, "b", 1)["teachers"] == noted(runs, "c", 1)["teachers"]
    assert noted(runs, "b", 1)["teachers"][0]["scale"] != [1.0]
    assert identity(runs, "b", 1) == identity(runs, "c", 1)


def test_batches_in_which_answers_are_rounded_are_part_of_the_identity(here: Lth, tmp_path: Path) -> None:
    cached = (KD, "distillation.teachers=[wide]", "distillation.cache=true")
    for size in (1000, 7):
        done = here("train", f"name=by_{size}", *cached, f"evaluation.batch_size={size}")
        assert done.code == 0, done.err
    assert identity(tmp_path / "runs", "by_1000") != identity(tmp_path / "runs", "by_7")


def test_steps_nobody_stored_are_trained_without_the_store(here: Lth, lth_in: Lth, tmp_path: Path) -> None:
    """What teaches them is kept in the run: by name, its dense network, the round before."""
    assert (
        here("prune", "name=own", "pruning.rounds=2", KD, "distillation.teachers=[wide,dense,previous]").code
        == 0
    )
    shutil.rmtree(tmp_path / "runs" / ".store")
    shutil.rmtree(tmp_path / "runs" / "wide")
    asked = ("analysis=connectivity", "analysis.states=[0@5it,2@5it]", "analysis.points=3")
    done = lth_in(tmp_path, "analyze", "own", *asked, "-q")
    assert done.code == 0, done.err
    again = here("rewind", "own", "name=again", "distillation=none", "rewind.to=7it")
    assert again.code == 0, again.err


def test_code_of_others_that_a_teacher_names_is_not_run(here: Lth, lth_in: Lth, tmp_path: Path) -> None:
    (tmp_path / "mymod.py").write_text(
        "from lth_cli.models.mlp import MLP\n\ndef net(*, input_shape, classes):\n"
        "    return MLP(input_shape=input_shape, classes=classes, hidden=[7])\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        model = ("~model.hidden", "model._target_=mymod.net")
        foreign = lth_in(tmp_path, "train", "training.length=2it", "threads=1", *model, "name=foreign", "-q")
        assert foreign.code == 0, foreign.err
        command = (
            "train",
            "name=student",
            "dataset.subset.fraction=1.0",
            KD,
            "distillation.teachers=[foreign]",
        )
        (tmp_path / "state" / "lth" / "own_code").unlink()  # as if somebody else had made the run
        refused = here(*command)
        assert refused.code == 2
        assert "distillation.trust=true" in refused.err
        done = here(*command, "distillation.trust=true")
        assert done.code == 0, done.err
        ask = (
            "analyze",
            "student",
            "analysis=connectivity",
            "analysis.states=[0@start,0@3it]",
            "analysis.points=3",
        )
        (tmp_path / "state" / "lth" / "own_code").unlink()
        refused = lth_in(tmp_path, *ask)
        assert refused.code == 2
        assert "say so with --trust" in refused.err
        assert lth_in(tmp_path, *ask, "--trust", "-q").code == 0


def test_lost_teachers_are_found(here: Lth, lth_in: Lth, tmp_path: Path) -> None:
    assert here("train", "name=student", KD, "distillation.teachers=[wide]").code == 0
    shutil.rmtree(tmp_path / "runs" / "student" / "teachers")
    done = lth_in(tmp_path, "verify", "student")
    assert done.code == 1
    assert "teachers/round_00/summary.json" in done.out + done.err


def test_a_window_without_steps_is_refused(here: Lth) -> None:
    done = here(
        "train", KD, "distillation.teachers=[wide]", "distillation.start=0.51", "distillation.end=0.52"
    )
    assert done.code == 2
    assert "lies no step that distils" in done.err
    unknown = here("train", "distillation.temperature=2.0")
    assert unknown.code == 2
    assert "distillation=OPTION chooses another" in unknown.err


def test_shares_of_a_training_are_the_decimals_that_were_typed(small: tuple[str, ...]) -> None:
    """0.07 x 100 and 0.56 x 100 are 7.000000000000001 and 56.00000000000001 in doubles."""
    shares = ("distillation.start=0.07", "distillation.end=0.56", "training.length=100it")
    plan = make_plan(load("prune", [*small, KD, "distillation.teachers=[dense]", *shares]).config)
    distilled = plan.distilled(plan.dense, {"dense": plan.own_teacher(FromState(plan.dense, 0))}).distilled
    assert distilled is not None
    assert (distilled.begins, distilled.ends) == (7, 56)
