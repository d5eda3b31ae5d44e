"""Checking and running the plan of a study: each step is a sweep, or questions asked of its runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.analyses.catalogue import prepare
from lth_cli.analyses.request import Request
from lth_cli.analyses.schema import Analyze, known_keys
from lth_cli.cli import following
from lth_cli.cli.analyze import answered
from lth_cli.cli.launch import refuse_swept_places, refuse_unused
from lth_cli.cli.point import make_task
from lth_cli.cli.signals import Signals
from lth_cli.cli.sweep import Checker, run_sweep
from lth_cli.config import compose
from lth_cli.config.errors import ConfigError, LthError, RequestError
from lth_cli.config.launching import Launcher
from lth_cli.config.points import load_all
from lth_cli.config.schema import Config
from lth_cli.config.steps import parse_rounds
from lth_cli.experiments.plan import make_plan
from lth_cli.experiments.session import find_existing, stored_config
from lth_cli.experiments.space import needed
from lth_cli.store.files import make_folder
from lth_cli.store.locks import Lock
from lth_cli.store.runs import Run, check_name, list_runs
from lth_cli.studies import report
from lth_cli.studies.finding import function
from lth_cli.studies.plan import ANSWER, PlannedStep, Point, StudyPlan, branch
from lth_cli.studies.tables import Pivot, Record, of_run, pivot
from lth_cli.training.engine import Interrupted

FOLDER = "studies"


@dataclass(frozen=True)
class Checked:
    """A point composed and validated.

    Attributes:
        point: of the plan.
        composed: for the sweep engine; None of a question.
        question: of `lth analyze`; None of a training.
        run: the one that is there.
    """

    point: Point
    composed: compose.Point | None
    question: Analyze | None
    run: Run | None

    @property
    def finished(self) -> bool:
        """Whether its run is finished."""
        return self.run is not None and self.run.effective_state == "finished"


@dataclass(frozen=True)
class Estimate:
    """What a step still takes, as far as anybody can say before it runs.

    Attributes:
        points: of the step.
        done: points that are there.
        trainings: rounds and controls that are left, at most.
        steps: steps of training that are left, at most.
        seconds: about; None where nothing of its kind was trained here.
        bytes: of what is left.
        open: whether more points come by what is found.
    """

    points: int
    done: int
    trainings: int
    steps: int
    seconds: float | None
    bytes: int
    open: bool


class Runner:
    """A study being checked, run or reported.

    Args:
        plan: of the study.
        config_dir: the person's own config folder.
        quiet: print no progress.
    """

    def __init__(self, plan: StudyPlan, config_dir: Path | None, quiet: bool = False) -> None:
        self.plan, self._config_dir, self._quiet = plan, config_dir, quiet
        self._configs: dict[str, Config] = {}
        self._checkers: dict[str, Checker] = {}
        places = [text for text in plan.typed if text.startswith("runs_dir=")]
        self.runs_dir = Path(str(compose.compose("train", places, config_dir)["runs_dir"]))
        self._sweeps: dict[str, Launcher] = {}
        self._answers: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}

    @property
    def folder(self) -> Path:
        """Of the study's report."""
        return self.runs_dir / FOLDER / check_name(self.plan.found.name) / check_name(self.plan.folder)

    # Checking

    def check(self) -> dict[str, list[Checked]]:
        """Compose and validate every point, and try each against its data and model; nothing is written.

        Raises:
            ConfigError: with the mistakes of all steps, each naming its step.
        """
        found: dict[str, list[Checked]] = {}
        problems: list[tuple[str, str]] = []
        for step in self.plan.steps:
            try:
                points = [next(self._branches(step, point, {}), point) for point in step.points]
                found[step.name] = self._checked(step, points)
                self._try(step, found[step.name])
            except ConfigError as error:
                problems += [(f"steps.{step.name}: {where}", what) for where, what in error.problems]
            except RequestError as error:
                problems.append((f"steps.{step.name}", str(error)))
            if problems:
                break  # what builds on it would only repeat them
        if problems:
            raise ConfigError(*problems)
        return found

    def _checked(self, step: PlannedStep, points: Sequence[Point]) -> list[Checked]:
        if step.command == "analyze":
            return [Checked(point, None, self._question(point), None) for point in points]
        typed = [self._typed(step.command, point) for point in points]
        if step.command == "rewind":
            return [self._retraining(point, one) for point, one in zip(points, typed, strict=True)]
        loaded = load_all(step.command, typed, self._config_dir)
        return [
            self._known(step.command, point, one, None) for point, one in zip(points, loaded, strict=True)
        ]

    def _question(self, point: Point) -> Analyze:
        keys = [key for key, _ in known_keys()]
        values = compose.compose("analyze", point.overrides, self._config_dir, keys)
        return compose.validate_as(Analyze, values, keys)

    def _typed(self, command: str, point: Point) -> tuple[str, ...]:
        typed = compose.quote_rounds([*self._answered(point.overrides), f"name={point.name}"])
        refuse_unused(command, typed)
        return tuple(typed)

    def _retraining(self, point: Point, typed: tuple[str, ...]) -> Checked:
        source = self._source(point)
        config = self._configs[point.sources[0]] if source is None else stored_config(source)
        (loaded,) = load_all("rewind", [typed], self._config_dir, config.model_dump(mode="json"))
        return self._known("rewind", point, loaded, source)

    def _known(
        self, command: str, point: Point, loaded: compose.Point | ConfigError, source: Run | None
    ) -> Checked:
        """A training with the run that is there of it; `source` is that of `lth rewind`, once it is finished."""
        if isinstance(loaded, ConfigError):
            raise loaded
        self._configs[point.name] = loaded.config
        run = None
        if command != "rewind" or source is not None:
            run = find_existing(
                loaded.config, command, point.name, None if source is None else source.info["id"]
            )
        return Checked(point, loaded, None, run)

    def _answered(self, overrides: Sequence[str]) -> list[str]:
        """Overrides with the folders of answers and runs that they name.

        As long as one is not there, its override is left out, and whatever is set within it: the plan is checked and
        counted without.
        """
        found: list[str] = []
        left_out: list[str] = []
        for text in overrides:
            key = text.partition("=")[0]
            if any(key.startswith(f"{other}.") for other in left_out):
                continue
            places = {name: self._place(name) for name in ANSWER.findall(text)}
            if None in places.values():
                left_out.append(key)
            else:
                found.append(ANSWER.sub(lambda match, places=places: str(places[match[1]]), text))  # type: ignore[misc]
        return found

    def _place(self, name: str) -> Path | None:
        """The folder of an answer or a run, where it is there."""
        for step in self.plan.steps:
            for point in step.points:
                if point.name == name:
                    (one,) = self._checked(step, [point])
                    if one.question is None:
                        return self.runs_dir / name if one.finished else None
                    stored = self._stored(one)
                    return None if stored is None else stored.path
        raise AssertionError(name)

    def _source(self, point: Point) -> Run | None:
        """The run whose masks are retrained, once it is finished."""
        path = self.runs_dir / point.sources[0]
        if not (path / "run.json").is_file():
            return None
        run = Run.open(path)
        return run if run.effective_state == "finished" else None

    def _try(self, step: PlannedStep, points: Sequence[Checked]) -> None:
        """Make plans of trainings, as far as what they build on is there."""
        for one in points:
            if one.composed is None or one.finished:
                continue
            if step.command == "rewind" or one.point.refers:
                make_plan(one.composed.config)
                continue
            launcher = one.composed.config.launcher
            checker = self._checkers.setdefault(step.command, Checker(step.command, launcher, None))
            checker.trainings(one.composed.config, one.run)

    def estimates(self, checked: dict[str, list[Checked]]) -> dict[str, Estimate]:
        """What each step still takes."""
        speeds = _speeds(self.runs_dir)
        return {
            step.name: self._estimate(step, checked[step.name], speeds)
            for step in self.plan.steps
            if step.name in checked
        }

    def _estimate(
        self, step: PlannedStep, points: Sequence[Checked], speeds: dict[tuple[Any, ...], float]
    ) -> Estimate:
        if step.command == "analyze":
            done = sum(self._stored(one) is not None for one in points)
            return Estimate(len(points), done, 0, 0, None, 0, step.next is not None)
        left = [one for one in points if not one.finished]
        trainings = steps = size = 0
        seconds: float | None = 0.0
        for one in left:
            assert one.composed is not None
            config = one.composed.config
            if step.command == "rewind" or one.point.refers:
                plan, count = make_plan(config), _rounds(config, step.command)
            else:
                task = make_task(step.command, config, None, one.run)
                plan, count = task.plan, task.trainings
            done = 0 if one.run is None else _recorded(one.run)
            remaining = max(0, count - done)
            retraining = plan.end - plan.first_step
            dense = plan.dense.end - plan.dense.first_step
            here = remaining * retraining
            if step.command != "rewind" and done == 0 and remaining:
                here += dense - retraining
            speed = speeds.get(_kind(config.model_dump(mode="json")))
            seconds = None if seconds is None or speed is None else seconds + here * speed
            trainings, steps, size = trainings + remaining, steps + here, size + needed(plan, remaining)
        return Estimate(
            len(points), len(points) - len(left), trainings, steps, seconds, size, step.next is not None
        )

    # Running

    def run(self, checked: dict[str, list[Checked]], again: bool = True) -> bool:
        """Run what is missing, step by step; False where points run on without this process.

        Args:
            checked: what `check` found.
            again: submit points, too, whose jobs on a cluster have ended without finishing them.

        Raises:
            LthError: a step failed; the steps that do not build on it have been run.
        """
        make_folder(self.folder)
        failed: list[str] = []
        missing: set[str] = set()
        with Lock(self.folder / ".lock", f"study {self.plan.found.name}").acquire():
            for number, step in enumerate(self.plan.steps, 1):
                wanted = {name for point in step.points for name in (*point.sources, *point.refers)}
                if wanted & missing:
                    self.say(f"{step.name}: waits for what it builds on")
                    missing |= {point.name for point in step.points}
                    continue
                self.say(f"step {number} of {len(self.plan.steps)}, {step.name}: lth {step.command}")
                try:
                    missing |= self._run(step, again)
                except (RequestError, Interrupted):
                    raise
                except LthError as error:
                    failed.append(f"step {step.name}: {error}")
                    missing |= {point.name for point in step.points}
        if failed:
            raise LthError("\n".join(failed))
        return not missing

    def go_on_later(self, command: Sequence[str]) -> str:
        """Submit a job that runs a command once the jobs that this process submitted have ended; returns its number.

        Raises:
            LthError: the cluster refuses it.
        """
        return following.submit(self.folder, self.plan.found.name, self.runs_dir, self._sweeps, command)

    def _run(self, step: PlannedStep, again: bool) -> set[str]:
        """Run a step; names of runs that are not finished, as they run on a cluster."""
        if step.next is None:
            return self._run_points(step, step.points, again)
        for point in step.points:
            found: dict[str, list[Record]] = {}
            for one in self._branches(step, point, found):
                if self._run_points(step, [one], again):
                    return {one.name}
                found[one.name] = self._records(step, self._checked(step, [one])[0]) or []
        return set()

    def _run_points(self, step: PlannedStep, points: Sequence[Point], again: bool) -> set[str]:
        checked = self._checked(step, points)
        if step.command == "analyze":
            for one in checked:
                self._answer(one)
            return set()
        left = [one for one in checked if not one.finished]
        if not left:
            self.say(f"{step.name}: all {len(checked)} are there")
            return set()
        groups: dict[tuple[str, ...], list[Checked]] = {}
        for one in left:
            groups.setdefault(one.point.sources if step.command == "rewind" else (), []).append(one)
        for sources, members in groups.items():
            source = Run.open(self.runs_dir / sources[0]) if sources else None
            composed = [one.composed for one in members if one.composed is not None]
            refuse_swept_places(composed)
            name = f"{self.plan.found.name}-{self.plan.folder}-{step.name}"
            if sources:
                name = members[0].point.name
            if not again:
                following.refuse_ended(self.runs_dir, name, {one.point.name for one in members})
            launcher = composed[0].config.launcher
            if launcher.kind == "slurm":
                self._sweeps[name] = launcher
            run_sweep(
                step.command,
                name,
                composed,
                [one.point.name for one in members],
                source,
                quiet=self._quiet,
                as_json=False,
                shown=False,
            )
        return {one.point.name for one in self._checked(step, points) if not one.finished}

    def _answer(self, one: Checked) -> None:
        assert one.question is not None
        study = prepare(Request.of(one.question, one.point.sources, trust=True))
        if study.stored.finished and study.stored.tidy:
            return
        with Signals() as signals:
            answered(study, one.question, signals, self._quiet)
        if signals.received:
            sys.exit(signals.exit_code)

    def _branches(self, step: PlannedStep, point: Point, found: dict[str, list[Record]]) -> Iterator[Point]:
        """The points of a step in order; of one that branches, as long as those before are in `found`."""
        if step.next is None:
            yield point
            return
        says: Callable[..., Any] = function(self.plan.found, step.next.function)
        settings = {key: value for key, value in step.next.settings.items() if key != "answers"}
        told: list[tuple[tuple[str, ...], list[Record]]] = []
        while True:
            more = says(told, **settings)
            if more is None:
                return
            one = branch(point, more)
            yield one
            if one.name not in found:
                return
            told.append((one.overrides, found[one.name]))

    # Reading

    def _stored(self, one: Checked) -> Any:
        """The answer to a question, where it is there; it is looked for until it is, as that plans its runs."""
        assert one.question is not None
        key = (one.point.overrides, one.point.sources)
        if key in self._answers:
            return self._answers[key]
        runs = [self.runs_dir / name for name in one.point.sources]
        if not all((path / "run.json").is_file() for path in runs):
            return None
        if any(Run.open(path).effective_state != "finished" for path in runs):
            return None
        stored = prepare(Request.of(one.question, one.point.sources, trust=True)).stored
        if not stored.finished:
            return None
        self._answers[key] = stored
        return stored

    def _records(self, step: PlannedStep, one: Checked, answers: str | None = None) -> list[Record] | None:
        """What a point found; None where it is not there."""
        labels = dict(one.point.labels)
        if step.command != "analyze":
            return None if not one.finished or one.run is None else of_run(one.run, step.name, labels)
        stored = self._stored(one)
        if stored is None:
            return None
        table = answers or (step.next.settings.get("answers") if step.next else None)
        tables = stored.tables()
        if table not in tables:
            raise RequestError(
                f"study {self.plan.found.name}: {step.name} has no table {table!r}; there are: {', '.join(tables)}"
            )
        about = {"step_of_study": step.name, "runs": len(one.point.sources)}
        return [{**labels, **row, **about} for row in tables[table]]

    def tables(self) -> tuple[dict[str, Pivot], int, int]:
        """Every table of what is there, with how many points are and how many there would be."""
        known: dict[str, list[tuple[PlannedStep, Checked]]] = {}
        there = total = 0
        for step in self.plan.steps:
            points = known.setdefault(step.name, [])
            for base in step.points:
                found: dict[str, list[Record]] = {}
                for point in self._branches(step, base, found):
                    one = self._checked(step, [point])[0]
                    records = self._any_records(step, one)
                    total += 1
                    if records is None:
                        break
                    there += 1
                    points.append((step, one))
                    found[point.name] = records
        tables = {}
        for name, spec in self.plan.found.study.tables.items():
            records = [
                record
                for step_name in spec.of
                for step, one in known.get(step_name, [])
                for record in self._records(step, one, spec.answers) or []
            ]
            tables[name] = pivot(name, spec, records, self.plan.profile)
        return tables, there, total

    def _any_records(self, step: PlannedStep, one: Checked) -> list[Record] | None:
        """Records for whatever comes next; of a plain question only whether it is answered."""
        if step.command == "analyze" and step.next is None:
            return None if self._stored(one) is None else []
        return self._records(step, one)

    def write_report(self) -> tuple[Path, list[report.Verdict], int, int]:
        """Write the report of what is there. Raises WriteFailed."""
        tables, there, total = self.tables()
        verdicts = report.judge(self.plan, tables)
        path = report.write(self.plan, tables, verdicts, self.seeds(), self.folder)
        return path, verdicts, there, total

    def seeds(self) -> str:
        """Seeds of the study in words: of all steps that train, or of each where they differ."""
        found: dict[str, list[str]] = {}
        for step in self.plan.steps:
            if step.command != "analyze":
                found.setdefault(self._seeds_of(step), []).append(step.name)
        if len(found) == 1:
            return next(iter(found))
        return "; ".join(f"{', '.join(steps)}: {seeds}" for seeds, steps in found.items())

    def _seeds_of(self, step: PlannedStep) -> str:
        """`0, 1, 2`, or `0, seeds.order 1, 2` where that is swept."""
        seeds: dict[str, None] = {}
        alone: dict[str, dict[str, None]] = {}
        for point in step.points:
            config = self._configs.get(point.name)
            seeds[point.labels.get("seed", "0") if config is None else str(config.seed)] = None
            for key, value in point.labels.items():
                if key.startswith("seeds."):
                    alone.setdefault(key, {})[value] = None
        return ", ".join([*seeds, *(f"{key} {', '.join(values)}" for key, values in alone.items())])

    def say(self, text: str) -> None:
        """A line for a person."""
        if not self._quiet:
            sys.stderr.write(f"study: {text}\n")


def _recorded(run: Run) -> int:
    return len(run.results()) + sum(len(run.results(kind)) for kind in run.branches())


def _rounds(config: Config, command: str) -> int:
    """Trainings of a run whose plan cannot be made whole before what it builds on is there, at most."""
    if command == "train":
        return 1
    rounds = config.pruning.rounds
    if command == "rewind":
        return sum(number > 0 for number in parse_rounds(config.rounds, rounds))
    return 1 + rounds * (1 + len(config.controls.kinds))


def _kind(config: dict[str, Any]) -> tuple[Any, ...]:
    """What two trainings share that take about as long a step."""
    return (
        str(config["model"]),
        str(config["dataset"].get("_target_")),
        config["training"]["batch_size"],
        str(config["update"]),
        config["precision"]["dtype"],
    )


def _speeds(runs_dir: Path) -> dict[tuple[Any, ...], float]:
    """Seconds a step of what was trained here, by kind."""
    spent: dict[tuple[Any, ...], tuple[float, int]] = {}
    for run in list_runs(runs_dir)[0] if runs_dir.is_dir() else []:
        try:
            kind = _kind(run.config)
            for row in run.results():
                seconds, steps = spent.get(kind, (0.0, 0))
                spent[kind] = (seconds + float(row["seconds"] or 0), steps + int(row["steps_trained"] or 0))
        except (LthError, KeyError, TypeError):
            continue
    return {kind: seconds / steps for kind, (seconds, steps) in spent.items() if steps}
