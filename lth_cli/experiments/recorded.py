"""Rounds of finished runs, as trainings: their states can be read, and trained again where they are not stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lth_cli.config import schema
from lth_cli.config.errors import RequestError
from lth_cli.config.references import Reference
from lth_cli.config.steps import Duration
from lth_cli.experiments.plan import Machine, Plan, plan_of_stored
from lth_cli.experiments.session import stored_config
from lth_cli.experiments.trust import TRUST, check_trust
from lth_cli.pruning.mask import Masks
from lth_cli.store.own_code import check_own_code
from lth_cli.store.rounds import Round
from lth_cli.store.runs import Run, find_run
from lth_cli.store.states import State
from lth_cli.training.engine import Engine
from lth_cli.training.trajectory import (
    NOT_HERE,
    Carried,
    Distilled,
    FromState,
    Initial,
    Isometric,
    Joined,
    KeptSigns,
    Known,
    Permuted,
    Start,
    Trajectory,
)


class Here(Machine, Protocol):
    """What a config says of this machine, and of where things lie on it."""

    @property
    def runs_dir(self) -> str:
        """Folder of runs."""

    @property
    def data(self) -> schema.DataPlace:
        """Where data lies; a root of None is that of the run."""


@dataclass(frozen=True)
class Recorded:
    """A finished round of a run.

    Attributes:
        run: where it lies.
        round: its folder.
        branch: kind of control; None is the run itself.
        plan: the run's config, checked on this machine.
        trajectory: its training; known by identity alone where it cannot be repeated here bit for bit.
        masks: True = kept, in the order of the model's parameters; of the end, where they change within the training.
    """

    run: Run
    round: Round
    branch: str | None
    plan: Plan
    trajectory: Trajectory | Known
    masks: Masks

    @property
    def label(self) -> str:
        """The run and the round, as a person writes it."""
        branch = f"{self.branch}/" if self.branch else ""
        return f"{self.run.name}:{branch}{self.round.number}"

    @property
    def start(self) -> int:
        """The step counter at which its training begins."""
        return int(self.round.summary["start_step"])

    @property
    def end(self) -> int:
        """The step counter at which its training ends."""
        return int(self.round.summary["end_step"])

    def step(self, wanted: Duration | str) -> int:
        """A step of its training.

        Raises:
            RequestError: it lies before the start or beyond the end.
        """
        if isinstance(wanted, str):
            return self.start if wanted == "start" else self.end
        step = wanted.steps(self.plan.dense.steps_per_epoch)
        if not self.start <= step <= self.end:
            raise RequestError(
                f"{self.label}@{wanted}: step {step} lies outside its training, which goes from step "
                f"{self.start} to {self.end}"
            )
        return step

    def check(self, step: int) -> None:
        """Refuse a state that can neither be read nor trained again here.

        Raises:
            RequestError: naming the states that the round keeps.
        """
        kept = self.round.checkpoints()
        if isinstance(self.trajectory, Known) and step not in kept:
            raise RequestError(
                f"{self.label}@{step}it is not stored, and its training {NOT_HERE}; "
                f"stored: {', '.join(map(str, kept)) or 'none'}"
            )

    def state(self, step: int, engine: Engine) -> State:
        """The state at a step: read where the run or the store has it, trained where not.

        Raises:
            LthError: it can be neither read nor trained.
        """
        self.adopt(engine)
        return engine.state(self.trajectory, step)

    def masks_of(self, state: State) -> Masks:
        """The masks of a state of its training, which may change them; in the order of the model's parameters."""
        return self.plan.ordered(state.masks) or self.masks

    def adopt(self, engine: Engine) -> None:
        """Let the engine's store have the states that the round keeps, and those of its teachers that the run keeps."""
        summary = self.round.summary
        self._adopt(self.round, summary, engine)
        taught = noted_teachers(summary["description"])
        wanted = set() if taught is None else {teacher.of.parent.identity for teacher in taught.teachers}
        if wanted:
            for other in (*self.run.teachers(), *self.run.origins(), *self.run.rounds()):
                if other.finished and (told := other.summary)["trajectory"] in wanted:
                    self._adopt(other, told, engine)

    def _adopt(self, round_: Round, summary: Mapping[str, Any], engine: Engine) -> None:
        engine.uses(summary["trajectory"])
        for path in round_.checkpoints().values():
            engine.adopt(summary["trajectory"], path, summary["description"])


def open_reference(
    reference: Reference, runs_dir: Path, place: Here, *, trust: bool, remedy: str = TRUST
) -> Recorded:
    """The round that a reference names.

    Args:
        reference: its step is not looked at.
        runs_dir: where runs are looked for by name.
        place: whose `data`, `device` and `threads` say what this machine has.
        trust: whether the stored config may name code from outside lth.
        remedy: what a person types to allow it.

    Raises:
        RequestError: no such run or round, or code of others.
    """
    run = find_run(runs_dir, reference.run)
    if not trust:
        check_trust(run, remedy)
    return open_round(run, _number(run, reference), place, branch=reference.branch)


def open_round(run: Run, number: int, place: Here, *, branch: str | None = None) -> Recorded:
    """A finished round of a run whose config is trusted.

    Raises:
        RequestError: there is no such round, its config is none of this release, or own code has changed since.
    """
    round_ = run.round(number, branch)
    if not round_.finished:
        there = [str(other.number) for other in run.rounds(branch) if other.finished]
        what = f" of {branch}" if branch else ""
        raise RequestError(
            f"{run.name} has no finished round {number}{what}; it has {', '.join(there) or 'none'}"
        )
    former = "Its weights belong to the former code: put that back (run.json has it)"
    check_own_code(run, former, measuring=False)
    plan = _plan(run, place)
    masks = plan.ordered(round_.masks())
    return Recorded(run, round_, branch, plan, _trajectory(plan, round_, masks), masks)


def _number(run: Run, reference: Reference) -> int:
    if isinstance(reference.round, int):
        return reference.round
    finished = [round_ for round_ in run.rounds(reference.branch) if round_.finished]
    if not finished:
        what = f" of {reference.branch}" if reference.branch else ""
        raise RequestError(f"{run.name} has no finished round{what} yet")
    if reference.round == "last":
        return finished[-1].number
    return max(finished, key=lambda round_: (score(run, round_), -round_.number)).number


def score(run: Run, round_: Round) -> float:
    """How good a finished round is, higher is better: by the run's headline metric, validation before test."""
    metrics, headline = round_.summary["metrics"], run.headline
    return headline.rank((metrics.get("val") or metrics.get("test") or {}).get(headline.name))


def _plan(run: Run, place: Here) -> Plan:
    """The run's plan: on its own device where this machine has that, else on the one asked for."""
    stored = stored_config(run)
    data = place.data.model_copy(update={"root": place.data.root or stored.data.root})
    # Metrics of a person's own decide no weight, and their code may be gone.
    evaluation = stored.evaluation.model_copy(update={"metrics": []})
    stored = stored.model_copy(update={"data": data, "runs_dir": place.runs_dir, "evaluation": evaluation})
    return plan_of_stored(stored, place)


def _trajectory(plan: Plan, round_: Round, masks: Masks) -> Trajectory | Known:
    """The training behind a round, rebuilt from what the round notes; its identity says whether that went well."""
    summary = round_.summary
    description: Mapping[str, Any] = summary["description"]
    if "imported" in description:  # trained by another program
        return Known(str(summary["trajectory"]))
    rebuilt = dataclasses.replace(
        plan.dense,
        start=_start(description["start"]),
        # The round has those of its end; where they change, the plan knows those that its training starts with.
        masks=plan.dense.masks or (masks if description["mask"] is not None else {}),
        first_step=int(summary["start_step"]),
        distilled=noted_teachers(description),
        rate_held_from=description.get("rate_held_from"),
        ends_at=int(summary["end_step"]),
    )
    same = rebuilt.identity == summary["trajectory"]
    return rebuilt if same else Known(str(summary["trajectory"]))


def noted_teachers(description: Mapping[str, Any]) -> Distilled | None:
    """How a training learned from teachers, from its description; None where it did not."""
    noted = description.get("objective", {}).get("distillation")
    return None if noted is None else Distilled.noted(noted)


def _start(noted: Mapping[str, Any]) -> Start:
    """A start as a trajectory's description notes it; what it starts from is stored with the round."""
    if "isometry_of" in noted:
        before = _start(noted["isometry_of"])
        assert isinstance(before, Initial | FromState | KeptSigns)
        return Isometric(before, int(noted["iterations"]), float(noted["rate"]))
    if "signs_of" in noted:
        return KeptSigns(_state(noted["signs_of"]), int(noted["init_seed"]))
    if "carried" in noted:
        return Carried(_state(noted["onto"]), tuple(noted["carried"]), _state(noted["from"]))
    if "permuted_of" in noted:
        of = _state(noted["permuted_of"])
        return Permuted(of, tuple(noted["permuted"]), int(noted["permuted_seed"]))
    if "init_seed" in noted:
        return Initial(int(noted["init_seed"]))
    state = _state(noted)
    return Joined(state, tuple(noted["fresh"]), int(noted["fresh_seed"])) if "fresh" in noted else state


def _state(noted: Mapping[str, Any]) -> FromState:
    """A state as a description notes it."""
    kept = noted.get("optimizer") == "kept"
    return FromState(Known(noted["trajectory"]), int(noted["step"]), keeps_optimizer=kept)
