"""What is measured while a run is at work, sent on to TensorBoard, Weights & Biases and MLflow by their own libraries.

A logger gets one curve a training (a round of the run or of its controls): every evaluation at its step. It is asked
first what it has of one, so that a run that goes on after a kill, or finds a training done, completes its curve and
doubles no point. What fails in a logger is told once and ends that logger, never the run. Libraries are imported when a
logger is asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from lth_cli.config.errors import ConfigError
from lth_cli.config.named import flat
from lth_cli.experiments.session import SessionObserver
from lth_cli.store.files import read_json, write_json
from lth_cli.store.runs import LOGGERS, Run

Point = tuple[int, str]
"""Step and split of an evaluation."""
_ABOUT = ("step", "split", "epoch", "seconds", "subset", "own")


class Curve(Protocol):
    """The curve of one training at one logger."""

    def present(self) -> set[Point]:
        """The evaluations that it has already."""

    def add(self, line: Mapping[str, Any]) -> None:
        """One more: a line of metrics.jsonl."""

    def close(self) -> None:
        """No more come from this process."""


class _TensorBoard:
    """Event files in the run's folder, written through after each point."""

    def __init__(self, run: Run, training: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.path / LOGGERS / "tensorboard" / training
        self._present = self._read()
        self._writer = SummaryWriter(str(self._folder))

    def _read(self) -> set[Point]:
        if not self._folder.is_dir():
            return set()
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

        events = EventAccumulator(str(self._folder), size_guidance={SCALARS: 0}).Reload()
        return {
            (int(event.step), tag.partition("/")[0])
            for tag in events.Tags()["scalars"]
            for event in events.Scalars(tag)
        }

    def present(self) -> set[Point]:
        return self._present

    def add(self, line: Mapping[str, Any]) -> None:
        for name, value in _values(line).items():
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    """A run of MLflow's a training, found again by its tags; in MLFLOW_TRACKING_URI, else in SQLite beside the runs."""

    def __init__(self, run: Run, training: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        place = (
            os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.path.parent.resolve() / '.mlflow.db'}"
        )
        self._client, self._metric = MlflowClient(tracking_uri=place), Metric
        experiment = self._experiment()
        tags = {"lth.id": str(run.info["id"]), "lth.training": training}
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([experiment], wanted, max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._client.create_run(
                experiment, tags={**tags, "lth.run": run.name}, run_name=f"{run.name}/{training}"
            ).info.run_id
            named = [Param(key, str(value)[:500]) for key, value in flat(run.config).items()]
            for first in range(0, len(named), 100):  # the most of one batch
                self._client.log_batch(self._id, params=named[first : first + 100])

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "lth"
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def present(self) -> set[Point]:
        return {
            (int(metric.step), name.partition("/")[0])
            for name in self._client.get_run(self._id).data.metrics
            for metric in self._client.get_metric_history(self._id, name)
        }

    def add(self, line: Mapping[str, Any]) -> None:
        import time

        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, line["step"]) for name, value in _values(line).items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._id)


class _WeightsAndBiases:
    """A run of W&B's a training, in one group a run of lth; offline without a key, or where WANDB_MODE says so.

    Its library cannot say what an offline run has, so a file beside it does. That is right once the run of W&B's was
    finished; what a killed process had handed over may never have been written, so the curve begins anew then, whole,
    as a run of another id.
    """

    def __init__(self, run: Run, training: str) -> None:
        import wandb

        folder = run.path / LOGGERS
        label = training.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"wandb-{label}.json"
        noted: dict[str, Any] = (
            read_json(self._path) if self._path.is_file() else {"attempt": 0, "closed": True, "sent": []}
        )
        if not noted["closed"]:
            noted = {"attempt": noted["attempt"] + 1, "sent": []}
        self._noted: dict[str, Any] = {**noted, "closed": False}
        write_json(self._path, self._noted)
        again = f"-{self._noted['attempt']}" if self._noted["attempt"] else ""
        offline = "WANDB_MODE" not in os.environ and not wandb.login(
            prompt=False
        )  # a question would wait for ever
        self._run = wandb.init(
            dir=os.environ.get("WANDB_DIR") or str(folder),
            project=os.environ.get("WANDB_PROJECT") or "lth",
            id=f"{run.info['id']}-{label}{again}",
            name=f"{run.name}/{training}{again}",
            group=run.name,
            config=flat(run.config),
            resume="allow",
            reinit="create_new",
            mode="offline" if offline else None,
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )
        self._run.define_metric("*", step_metric="step")

    def present(self) -> set[Point]:
        return {(int(step), str(split)) for step, split in self._noted["sent"]}

    def add(self, line: Mapping[str, Any]) -> None:
        # Its own count of rows only ever grows, and goes on where an earlier process ended.
        self._run.log({"step": line["step"], **_values(line)}, step=len(self._noted["sent"]), commit=True)
        self._noted["sent"].append([line["step"], line["split"]])
        write_json(self._path, self._noted)

    def close(self) -> None:
        self._run.finish()
        write_json(self._path, {**self._noted, "closed": True})


LIBRARIES: dict[str, tuple[str, Callable[[Run, str], Curve]]] = {
    "tensorboard": ("tensorboard", _TensorBoard),
    "wandb": ("wandb", _WeightsAndBiases),
    "mlflow": ("mlflow", _MLflow),
}
"""By name: the module that must be installed, and what makes a curve."""


def check_loggers(names: Iterable[str]) -> None:
    """Refuse loggers whose library is not installed. Raises ConfigError."""
    missing = [name for name in names if importlib.util.find_spec(LIBRARIES[name][0]) is None]
    if missing:
        raise ConfigError(("loggers", f"{missing[0]} is not installed: pip install 'lth-cli[{missing[0]}]'"))


@contextmanager
def with_loggers(names: Iterable[str], shown: SessionObserver) -> Iterator[SessionObserver]:
    """An observer that tells another, and the loggers; without any it is that other."""
    chosen = list(dict.fromkeys(names))
    if not chosen:
        yield shown
        return
    observer = _Logging(chosen, shown)
    try:
        yield observer
    finally:
        observer.close()


class _Logging(SessionObserver):
    """Passes everything on, and evaluations of a round to the loggers.

    Args:
        names: of the loggers.
        shown: the observer that a person sees.
    """

    def __init__(self, names: list[str], shown: SessionObserver) -> None:
        self._names, self._shown = names, shown
        self._run: Run | None = None
        self._identity = ""
        self._curves: dict[str, tuple[Curve, set[Point]]] = {}
        for told in ("measured_by", "part_started", "part_finished", "training", "message"):
            setattr(self, told, getattr(shown, told))

    def opened(self, run: Run) -> None:
        self._shown.opened(run)
        self._run = run
        for branch in (None, *run.branches()):
            for round_ in run.rounds(branch):
                if (
                    round_.finished
                ):  # by an earlier process, which may have been killed before it had told all
                    self._complete(branch, round_.number)

    def round_started(self, branch: str | None, number: int, density: float, identity: str) -> None:
        self._shown.round_started(branch, number, density, identity)
        self._begin(branch, number)
        self._identity = identity

    def evaluated(self, line: dict[str, Any], identity: str) -> None:
        self._shown.evaluated(line, identity)
        if identity == self._identity:  # not of a training that this one starts from
            self._add([line])

    def round_finished(self, branch: str | None, row: dict[str, Any]) -> None:
        self._shown.round_finished(branch, row)
        self._complete(branch, int(row["round"]))

    def close(self) -> None:
        """End what is open."""
        for name in list(self._curves):
            with self._guarded(name):
                self._curves.pop(name)[0].close()
        self._identity = ""

    def _begin(self, branch: str | None, number: int) -> None:
        training = f"round_{number:02d}" if branch is None else f"{branch}/round_{number:02d}"
        self.close()
        for name in list(self._names):
            with self._guarded(name):
                assert self._run is not None
                curve = LIBRARIES[name][1](self._run, training)
                self._curves[name] = (curve, curve.present())

    def _complete(self, branch: str | None, number: int) -> None:
        """Give each logger what it lacks of a recorded round: what was found stored, nobody evaluated."""
        assert self._run is not None
        if not self._identity:
            self._begin(branch, number)
        self._add(self._run.round(number, branch).metrics())
        self.close()

    def _add(self, lines: Iterable[dict[str, Any]]) -> None:
        for line in lines:
            for name in list(self._curves):
                with self._guarded(name):
                    curve, present = self._curves[name]
                    point = (line["step"], line["split"])
                    if point not in present:
                        curve.add(line)
                        present.add(point)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Whatever fails in a logger ends that logger alone."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - another library's; the run goes on
            first = (str(error).splitlines() or [""])[0]
            self._shown.message(f"{name} is not used any more: {type(error).__name__}: {first}")
            with contextlib.suppress(ValueError):
                self._names.remove(name)
            self._curves.pop(name, None)


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    """What was measured, by `split/metric`; the rate stands beside it."""
    return {
        f"{line['split']}/{name}": float(value)
        for name, value in line.items()
        if name not in _ABOUT and isinstance(value, int | float)
    }
