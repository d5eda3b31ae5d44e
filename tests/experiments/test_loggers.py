"""Loggers get each evaluation once, over kills too, and none of their failures stops a run."""

import json

import pytest

from lth_cli.config.errors import ConfigError
from lth_cli.experiments import loggers
from lth_cli.experiments.session import SessionObserver
from lth_cli.store.runs import Run

ROUNDS = ("round_00", "round_01", "random/round_01")


@pytest.fixture(autouse=True)
def _own_places(monkeypatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")


def asked(small, *names):
    chosen = f"loggers=[{','.join(names)}]"
    return ("prune", *small, "pruning.rounds=1", "controls.kinds=[random]", "name=logged", chosen)


def expected(run, training):
    branch, _, name = training.rpartition("/")
    lines = run.round(int(name.removeprefix("round_")), branch or None).metrics()
    return sorted((line["step"], line["split"], round(line["accuracy"], 6)) for line in lines)


def tensorboard(run, training):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "loggers" / "tensorboard" / training)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.endswith("/accuracy")]
    return sorted((e.step, tag.split("/")[0], round(e.value, 6)) for tag in tags for e in events.Scalars(tag))


def mlflow(run, training):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.path.parent.resolve() / '.mlflow.db'}")
    experiment = client.get_experiment_by_name("lth")
    found = client.search_runs([experiment.experiment_id], f"tags.`lth.training` = '{training}'")
    assert len(found) == 1 and found[0].data.params["optimizer.lr"] == "0.005"
    assert found[0].info.status == "FINISHED"
    history = {
        name: client.get_metric_history(found[0].info.run_id, name)
        for name in found[0].data.metrics
        if name.endswith("/accuracy")
    }
    return sorted((m.step, name.split("/")[0], round(m.value, 6)) for name, of in history.items() for m in of)


READ = {"tensorboard": tensorboard, "mlflow": mlflow}


@pytest.mark.parametrize("name", READ)
def test_a_curve_is_whole_and_goes_on_after_a_kill(lth, small, tmp_path, monkeypatch, name) -> None:
    pytest.importorskip(name)
    made = loggers.LIBRARIES[name][1]

    def killing(run, training):
        curve = made(run, training)
        if training == "round_01":
            add = curve.add

            def dies(line):
                add(line)
                if line["step"] == 8:
                    raise KeyboardInterrupt

            curve.add = dies
        return curve

    with monkeypatch.context() as patch:
        patch.setitem(loggers.LIBRARIES, name, (name, killing))
        assert lth(*asked(small, name)).code == 130
    assert not (tmp_path / "runs/logged/round_01/summary.json").exists()  # told while it trained
    done = lth(*asked(small, name))
    assert done.code == 0 and "not used any more" not in done.err, done.err
    run = Run.open(tmp_path / "runs" / "logged")
    for training in ROUNDS:
        assert READ[name](run, training) == expected(run, training)
    # Found stored, a training has its curve all the same, of another run as well.
    again = [word if word != "name=logged" else "name=other" for word in asked(small, name)]
    assert lth(*again).code == 0
    if name == "tensorboard":
        other = Run.open(tmp_path / "runs" / "other")
        assert all(tensorboard(other, training) == expected(other, training) for training in ROUNDS)
    assert lth("verify", "logged").code == 0


def test_weights_and_biases_works_offline_and_goes_on(lth, small, tmp_path) -> None:
    pytest.importorskip("wandb")
    done = lth(*asked(small, "wandb"))
    assert done.code == 0 and "not used any more" not in done.err, done.err
    run = Run.open(tmp_path / "runs" / "logged")
    folder = run.path / "loggers"
    assert len(list((folder / "wandb").glob("offline-run-*"))) == len(ROUNDS)
    for training in ROUNDS:
        path = folder / f"wandb-{training.replace('/', '-')}.json"
        noted = json.loads(path.read_text())
        assert sorted(map(tuple, noted["sent"])) == [point[:2] for point in expected(run, training)]
        assert noted["closed"] and noted["attempt"] == 0
    # Finished, it has all of it; of what a killed process handed over nobody knows, and it is sent anew, whole.
    for closed, attempt in ((True, 0), (False, 1)):
        path.write_text(json.dumps({**noted, "closed": closed}))
        observer = loggers._Logging(["wandb"], SessionObserver())
        observer.opened(run)
        again = json.loads(path.read_text())
        assert sorted(again.pop("sent")) == sorted(noted["sent"])  # each once
        assert again == {"attempt": attempt, "closed": True}
    # Its library ends a folder of the same id and second in -1 as well.
    assert list((folder / "wandb").glob("offline-run-*-1"))


def test_a_failing_logger_is_told_once_and_stops_nothing(lth, small, monkeypatch) -> None:
    class Broken:
        def __init__(self, run, training):
            pass

        def present(self):
            return set()

        def add(self, line):
            raise OSError("no space\nsecond line")

        def close(self):
            raise OSError("again")

    monkeypatch.setitem(loggers.LIBRARIES, "tensorboard", ("json", Broken))
    done = lth(*asked(small, "tensorboard"))
    assert done.code == 0
    assert done.err.count("tensorboard is not used any more: OSError: no space\n") == 1
    assert done.err.count("not used any more") == 1


def test_a_logger_that_is_not_installed_is_told_before_the_run(lth, small, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(loggers.LIBRARIES, "mlflow", ("no_such_module", loggers._MLflow))
    done = lth(*asked(small, "mlflow"))
    assert done.code == 2 and "pip install 'lth-cli[mlflow]'" in done.err
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError):
        loggers.check_loggers(["mlflow"])
