"""Wrong requests: one message with the config path, exit 2, nothing left behind."""

import pytest


def everything_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


WRONG = {
    "unknown key": (["trainin.length=1ep"], "trainin.length: unknown key; close to it: training.length"),
    "unknown nested key": (
        ["+training.lenght=1ep"],
        "training.lenght: unknown key; close to it: training.length",
    ),
    "unknown option": (
        ["optimizer=adm"],
        "optimizer: there is no option 'adm' (did you mean optimizer=adam",
    ),
    "another spelling": (
        ["dataset=MNIST"],
        "dataset: there is no option 'MNIST' (did you mean dataset=mnist?)",
    ),
    "a key without its section": (["lr=0.1"], "lr: unknown key; write optimizer.lr;"),
    "a sweep without -m": (["seed=0,1"], "seed: 0,1 are several values; add -m, which makes a run of each"),
    "no name of a run": (["name=a/b"], "name: may have letters, digits and . _ , + -"),
    "unknown experiment": (["experiment=typo"], "experiment: there is no option 'typo'; accepted: "),
    "wrong value": (
        ["pruning.allocation=local"],
        "pruning.allocation: Input should be 'global', 'global_normalized', 'layerwise', 'uniform' or 'erk'",
    ),
    "no override": (["roundz"], "'roundz': is not an override; write KEY=VALUE"),
    "out of range": (["pruning.fraction=1.5"], "pruning.fraction: Input should be less than 1, got 1.5"),
    "not a number": (["optimizer.lr=nan"], "optimizer.lr: Input should be a finite number"),
    "negative": (
        ["training.batch_size=-1"],
        "training.batch_size: Input should be greater than or equal to 1",
    ),
    "plain steps": (
        ["training.length=500"],
        "training.length: 500 is not a number of steps; write steps as 500it",
    ),
    "beyond the horizon": (["rewind.to=40ep"], "rewind.to: 40ep is step 960; it must lie between 0 and 959"),
    "scored too late": (
        ["pruning.at=961it"],
        "pruning.at: 961it is step 961; it must lie between 0 and 960",
    ),
    "unknown argument": (
        ["+optimizer.momentum=0.9"],
        "optimizer.momentum: unknown key; accepted: lr, betas, eps",
    ),
    "wrong argument": (["model.hidden=[a]"], "model.hidden.0: Input should be a valid integer"),
    "bad optimizer setting": (["optimizer.betas=[0.9,2.0]"], "optimizer: Invalid beta parameter"),
    "not an optimizer": (
        ["optimizer._target_=torch.optim.SGDD"],
        "optimizer._target_: 'torch.optim' has no 'SGDD'; close to it: SGD",
    ),
    "missing module": (["model._target_=nowhere.Net"], "model._target_: cannot import 'nowhere'"),
    "unknown score": (["pruning.score=size"], "pruning.score: "),
    "argument of no score": (
        ["pruning=snip", "pruning.arguments.batches=some"],
        "pruning.arguments.batches: ",
    ),
    "score of classes": (["experiment=siren_image", "pruning=grasp"], "pruning.score: grasp is of classes"),
    "missing data set": (["dataset=mnist", "data.root=empty"], "data.root: "),
    "no data root": (["dataset=cifar10"], "data.root: "),
    "missing images": (["dataset=image_folder", "dataset.path=nowhere"], "dataset.path: "),
    "value missing": (["dataset=image_folder"], "dataset.path: needs a value"),
    "class that is not there": (
        ["dataset.subset.classes=[1,77]"],
        "dataset.subset.classes.1: there is no class 77",
    ),
    "model that does not fit": (["model=resnet20", "dataset=mnist1d"], "model: "),
    "images too small": (["model=vgg16"], "model: "),
    "no whole batch": (["training.batch_size=5000", "training.drop_last=true"], "training.batch_size: "),
    "missing GPU": (
        ["device=cuda:63"],
        "device: there is no cuda:63 on this machine; accepted here: auto, cpu",
    ),
    "name that is no folder": (["name=../x"], "name: "),
    "unwritable folder": (
        ["runs_dir=a_file/runs"],
        "runs_dir: cannot make the folder 'a_file/runs': Not a directory",
    ),
    "folder of the system": (["runs_dir=/proc/runs"], "runs_dir: cannot make the folder '/proc/runs'"),
    "missing config folder": (["--config-dir", "nowhere"], "--config-dir: there is no folder 'nowhere'"),
    "round that is not there": (
        ["controls.kinds=[reinit]", "controls.rounds=13"],
        "controls.rounds: round 13",
    ),
    "unknown control": (["controls.kinds=[lucky]"], "controls.kinds.0: "),
    "one bad point of a sweep": (["-m", "optimizer.lr=0.1,-1", "training.length=1it"], "optimizer.lr: "),
    "endless sweep": (["-m", "seed=range(100000)"], "the sweep has more than 10000 points"),
    "points that are one": (["-m", "checkpoint.every=1it,2it"], "several points would be the run"),
    "unknown flag": (["--rounds"], "No such option: --rounds"),
    "unknown --cfg": (["--cfg", "jobs"], "'jobs'; accepted: job, hydra, all"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests(case, lth, tmp_path):
    arguments, message = WRONG[case]
    (tmp_path / "a_file").write_text("")
    (tmp_path / "empty").mkdir()
    done = lth("prune", "threads=1", *arguments)
    assert done.code == 2, done.err
    assert message in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert all(line.startswith("lth: ") for line in done.err.splitlines()), done.err
    assert everything_in(tmp_path) == ["a_file", "empty"]


def test_every_mistake_is_told_at_once(lth):
    done = lth("prune", "training.batch_size=0", "optimizer.lr=-1", "pruning.rounds=x")
    assert done.code == 2
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == [
        "optimizer.lr",
        "training.batch_size",
        "pruning.rounds",
    ]


@pytest.mark.parametrize(
    "override", ["pruning.rounds=3", "rewind.to=1ep", "controls.kinds=[reinit]", "pruning=random"]
)
def test_train_refuses_what_only_prune_uses(lth, override, tmp_path):
    done = lth("train", override)
    assert done.code == 2
    assert f"{override}: has no effect on lth train; lth prune uses it" in done.err
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nothing"], "no run 'nothing' in runs"),
        (["show"], "Missing argument"),
        (["diff", "nothing", "more"], "no run 'nothing' in runs"),
        (["rm", "nothing", "--yes"], "no run 'nothing' in runs"),
        (["mv", "nothing", "more"], "no run 'nothing' in runs"),
        (["tag", "nothing", "--add", "x"], "no run 'nothing' in runs"),
        (["nonsense"], "No such command 'nonsense'"),
        (["ls", "extra"], "extra"),
    ],
)
def test_other_commands(lth, arguments, message, tmp_path):
    done = lth(*arguments)
    assert done.code == 2
    assert message in done.err
    assert everything_in(tmp_path) == []


def test_a_traceback_only_with_debug(lth):
    plain, debug = lth("prune", "seed=x"), lth("prune", "seed=x", "--debug")
    assert plain.code == debug.code == 2
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert plain.err.splitlines()[-1] in debug.err


def test_a_failure_is_exit_1_and_says_what_it_is(lth, small, tmp_path):
    done = lth("train", *small, "optimizer=sgd", "optimizer.lr=1e18", "name=x")
    assert done.code == 1
    assert "training diverged" in done.err
    assert "Traceback" not in done.err
    shown = lth("show", "x")
    assert shown.code == 0
    assert "failed: training diverged" in shown.out


def test_the_other_points_of_a_sweep_go_on_when_one_fails(lth, small):
    done = lth("train", "-m", *small, "optimizer=sgd", "optimizer.lr=1e18,0.05", "name=s")
    assert done.code == 1
    assert "1 of 2 points failed" in done.err
    assert lth("show", "s-lr_0.05").code == 0
