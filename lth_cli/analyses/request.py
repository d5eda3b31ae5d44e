"""What `lth analyze` is asked, with the states and rounds that it names; and what a study answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.analyses.schema import Analyze
from lth_cli.analyses.work import Work
from lth_cli.config.errors import RequestError
from lth_cli.config.references import Reference, is_round
from lth_cli.config.values import Section
from lth_cli.experiments.recorded import Recorded, open_reference
from lth_cli.experiments.trust import check_trust
from lth_cli.store.analyses import Row, StoredAnalysis, identify
from lth_cli.store.runs import Run, find_run


@dataclass(frozen=True)
class NamedState:
    """A state that a person named; it is there, or can be trained."""

    recorded: Recorded
    step: int

    @property
    def label(self) -> str:
        """As a person writes it, without what goes without saying."""
        step = {self.recorded.end: "end", self.recorded.start: "start"}.get(self.step, f"{self.step}it")
        return f"{self.recorded.label}@{step}"

    @property
    def identity(self) -> list[Any]:
        """What decides its numbers: the trajectory's identity and the step."""
        return [self.recorded.trajectory.identity, self.step]


@dataclass(frozen=True)
class Request:
    """A question as typed, its config validated.

    Attributes:
        config: of `lth analyze`.
        runs: those asked about; the answer lands in the first.
        trust: whether stored configs may name code from outside lth.
    """

    config: Analyze
    runs: Sequence[Run]
    trust: bool = False

    @classmethod
    def of(cls, config: Analyze, names: Sequence[str], trust: bool = False) -> Request:
        """Find the runs. Raises RequestError: there is no such run, one is named twice, or names code of others."""
        runs = [find_run(Path(config.runs_dir), name) for name in names]
        ids = [run.info["id"] for run in runs]
        for run in runs:
            if ids.count(run.info["id"]) > 1:
                raise RequestError(f"the run {run.name} is named twice")
            if [other.name for other in runs].count(run.name) > 1:
                raise RequestError(
                    f"two runs are called {run.name}, which answers could not tell apart; rename one"
                )
        if not trust:
            for run in runs:
                check_trust(run)
        return cls(config, runs, trust)

    def round(self, text: str, run: Run | None = None) -> Recorded:
        """The round that a text names, of `run` where it names none. Raises RequestError."""
        reference = Reference.parse(f"{run.path if run else ''}:{text}" if is_round(text) else text)
        return open_reference(reference, Path(self.config.runs_dir), self.config, trust=self.trust)

    def state(self, text: str, run: Run | None = None) -> NamedState:
        """The state that a text names. Raises RequestError: neither stored nor trainable, or no such step."""
        recorded = self.round(text, run)
        reference = Reference.parse(f"run:{text}" if is_round(text) else text)
        step = recorded.step(reference.step)
        recorded.check(step)
        return NamedState(recorded, step)

    def states(self, texts: Sequence[str]) -> list[NamedState]:
        """The states that texts name; one of no run is asked of each. Raises RequestError."""
        return [
            self.state(text, run)
            for text in texts
            for run in (self.runs if is_round(text) else self.runs[:1])
        ]


@dataclass(frozen=True)
class Answer:
    """What a study found: plain values only.

    Attributes:
        tables: rows by name of the table; each becomes a CSV file.
        summary: the few numbers that answer the question, for programs.
        headline: the same in sentences, for people.
    """

    tables: dict[str, list[Row]]
    summary: dict[str, Any]
    headline: list[str]


@dataclass(frozen=True)
class Study:
    """A question, checked before any work.

    Attributes:
        name: of the analysis.
        run: where the answer lands.
        asked: plain values that decide the answer: settings, identities of states, execution, data.
        labels: what was asked, as people write it: runs, states.
        answer: does the work.
        parts: how many parts of it are told of when done.
        version: of this analysis alone, raised whenever a release changes what it computes, so that old answers are
            not taken for new ones and those of all other analyses are still found.
        not_shown: tables measured along the way, for programs and figures; too long to read.
    """

    name: str
    run: Run
    asked: dict[str, Any]
    labels: dict[str, Any]
    answer: Callable[[Work], Answer]
    parts: int = 1
    version: int = 1
    not_shown: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides the answer."""
        return identify({"analysis": self.name, "version": self.version, **self.asked})

    @property
    def stored(self) -> StoredAnalysis:
        """Where the answer lies, or will."""
        return StoredAnalysis.of(self.run, self.name, self.identity)


def settings(section: Section, *names: str) -> dict[str, Any]:
    """The settings of a question as plain values, but those (names of states) that stand in `asked` otherwise."""
    found = section.model_dump(mode="json", exclude={"name", *names})
    if found.get("batch_norm") == "recomputed":
        # They were once taken in stored order; answers with those statistics are not read for these.
        found["batch_norm"] = "recomputed, mixed order"
    return found


def circumstances(recorded: Recorded) -> dict[str, Any]:
    """What else decides the numbers of an evaluation: the examples, the arithmetic, how many at a time."""
    dense = recorded.plan.dense
    return {
        "data": dense.data.identity,
        "execution": dense.execution.identity,
        "evaluation_batch": recorded.plan.config.evaluation.batch_size,
    }


def check_shapes(states: Sequence[Recorded]) -> None:
    """Refuse to compare networks of different architectures.

    Raises:
        RequestError: naming two that differ.
    """
    first = states[0]
    for other in states[1:]:
        for name in {**first.plan.shapes, **other.plan.shapes}:
            ours, theirs = first.plan.shapes.get(name), other.plan.shapes.get(name)
            if ours != theirs:
                raise RequestError(
                    f"{first.label} and {other.label} are of different architectures: {name} has shape "
                    f"{ours} in the one and {theirs} in the other"
                )


def check_alike(states: Sequence[Recorded]) -> None:
    """Refuse to compare networks of different architectures, or on different data.

    Raises:
        RequestError: naming two that differ.
    """
    check_shapes(states)
    first = states[0]
    for other in states[1:]:
        ours, theirs = (found.plan.dense.execution.device for found in (first, other))
        if ours != theirs:
            raise RequestError(
                f"{first.label} is of device {ours} and {other.label} of {theirs}; one analysis computes on one device"
            )
        if first.plan.dense.data.identity != other.plan.dense.data.identity:
            raise RequestError(
                f"{first.label} and {other.label} were trained on different data; "
                "error can only be compared on the same examples"
            )


def check_splits(splits: Sequence[str], recorded: Recorded, key: str = "analysis.splits") -> None:
    """Refuse a split that the data of a run does not have. Raises RequestError."""
    there = recorded.plan.dense.data.sizes
    missing = [split for split in splits if split not in there]
    if missing:
        raise RequestError(
            f"{key}: the data of {recorded.run.name} has no {', '.join(missing)}; "
            f"accepted: {', '.join(there)}"
        )
