"""Retraining the masks of a finished run from any point of its dense training, in any way, beside any control.

A sparse training counts as a run with one round: the masks that it ends with, retrained as they are. Its dense training
is the same one without masks.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from lth_cli.config import schema
from lth_cli.config.compose import validate
from lth_cli.config.errors import ConfigError, LthError, RequestError
from lth_cli.config.steps import parse_rounds
from lth_cli.config.values import MOST_ROUNDS
from lth_cli.experiments.imp import (
    check_blocks,
    check_own_rounds,
    goes_on_by_itself,
    refuse_goal,
    refuse_other_masks,
    refuse_sparse_training,
    rewound,
    train_control,
    train_dense,
)
from lth_cli.experiments.kept_data import with_kept_data
from lth_cli.experiments.plan import Plan, differences, make_plan, plan_of_stored
from lth_cli.experiments.recorded import noted_teachers
from lth_cli.experiments.session import Session, Task, stored_config
from lth_cli.experiments.teachers import fitted, keep_teachers, with_teachers
from lth_cli.experiments.weights import with_weights
from lth_cli.pruning.mask import Masks, is_nested
from lth_cli.store.files import Damaged
from lth_cli.store.formats import NewerFormat
from lth_cli.store.own_code import check_own_code
from lth_cli.store.rounds import Round
from lth_cli.store.runs import Run
from lth_cli.store.states import read_header
from lth_cli.training.trajectory import NOT_HERE, FromState, Known, Teacher, Trajectory


@dataclass(frozen=True)
class SourceRun:
    """A finished run whose masks are retrained.

    Attributes:
        run: where it lies.
        plan: of the dense training behind its masks: its own, or that of its own source.
        dense: that training; only known by identity where it cannot be repeated here.
        masks: by round number.
    """

    run: Run
    plan: Plan
    dense: Trajectory | Known
    masks: dict[int, Masks]

    @property
    def scored_at(self) -> int:
        """Step of the dense training whose weights were scored first."""
        return self.plan.scored_at(self.plan.dense)

    @property
    def note(self) -> dict[str, Any]:
        """What a run notes about its source, enough to be rewound when that is gone."""
        return {
            "name": self.run.name,
            "path": str(self.run.path.resolve()),
            "id": self.run.info["id"],
            "dense": self.dense.identity,
            "config": self.plan.config.model_dump(mode="json"),
        }


def rewind_task(config: schema.Config, run: Run, own: Run | None = None) -> Task:
    """Check everything that can be checked before any work.

    Args:
        config: that of the run with what the person overrode.
        run: whose masks are retrained.
        own: the run that is gone on with.

    Raises:
        RequestError: rounds that are not there, a run of another architecture, a point beyond the horizon,
            weights that can neither be read nor trained again.
    """
    if config.sparse_training == stored_config(run).sparse_training:
        config = config.model_copy(update={"sparse_training": schema.SparseTraining()})
    refuse_sparse_training(config, "lth rewind retrains masks as they are")
    by_itself = goes_on_by_itself(config.rewind, config.control)
    refuse_goal(config, (by_itself, f"control.mask={config.control.mask} goes on from"))
    if _is_sparse(run) and config.control.mask == "inverted":
        message = (
            "inverted is about the scores of a round, which masks that change within a training do not have"
        )
        raise ConfigError(("control.mask", message))
    other = [] if config.control.mask == "ticket" else [config.control.mask]
    refuse_other_masks(config, other, "control.mask")
    if config.rewind.carry:
        raise ConfigError(
            (
                "rewind.carry",
                "goes on from round to round of lth prune; lth rewind takes each by itself: write rewind.carry=[]",
            )
        )
    if config.control.start == "own" and config.rewind.technique != "weights":
        raise ConfigError(
            ("control.start", "own rewinds to weights of its own; it needs rewind.technique=weights")
        )
    plan = with_teachers(with_weights(make_plan(config), own, run), own, run)
    numbers = _rounds(run, config.rounds)
    if goes_on_by_itself(config.rewind, config.control):
        check_own_rounds(f"control.mask={config.control.mask}", config.rewind, numbers, "rounds")
    source = _open_source(run, plan, numbers)
    _check_nested(source, plan)
    networks = {number: _networks(source, plan, number) for number in numbers if number > 0}
    starts = {number: _start(source, plan, number) for number in numbers if number > 0}
    _check_fit(source, plan)
    if config.control.start == "permuted":
        for masks in source.masks.values():
            check_blocks(plan, list(masks), "control.start")
    if config.control.start == "own" and _dense_steps(source, plan):
        raise ConfigError(
            (
                "control.start",
                "own uses no state of the source; control.mask=inverted and the teacher dense do",
            )
        )
    _check_dense(source, plan, any(numbers))
    _check_optimizer(source, plan)
    program = functools.partial(_retrain, source=source, numbers=numbers, starts=starts, networks=networks)
    return Task("rewind", plan, program, len(numbers), source.note)


def _is_sparse(run: Run) -> bool:
    return stored_config(run).sparse_training != schema.SparseTraining()


def _round(run: Run, number: int) -> Round:
    """The round of a run that has the masks of a number."""
    return run.round(0 if _is_sparse(run) else number)


def _rounds(run: Run, text: str) -> list[int]:
    """The rounds asked for, each of them finished."""
    there = [round_.number for round_ in run.rounds() if round_.finished]
    there += [1] if there and _is_sparse(run) else []
    pruned = [number for number in there if number > 0]
    if not pruned:
        raise RequestError(f"{run.name} has no pruned round to retrain; lth prune finds tickets")
    if text == "all" and run.effective_state != "finished":
        raise RequestError(
            f"{run.name} is {run.effective_state}, not finished; go on with it first, "
            f"or name some of its rounds: rounds={','.join(map(str, pruned))}"
        )
    if text in ("all", "last"):
        return pruned if text == "all" else pruned[-1:]
    try:
        asked = parse_rounds(text, MOST_ROUNDS)
    except ValueError as error:
        raise ConfigError(("rounds", str(error))) from None
    missing = [number for number in asked if number != 0 and number not in pruned]
    if missing:
        raise ConfigError(
            (
                "rounds",
                f"{run.name} has no finished round {', '.join(map(str, missing))}; "
                f"it has {', '.join(map(str, there))}",
            )
        )
    return asked


def _open_source(run: Run, plan: Plan, numbers: list[int]) -> SourceRun:
    check_own_code(
        run,
        "Its weights and masks belong to the former code: put that back, or name the new by another import path",
    )
    note = run.info.get("source", {})
    stored = with_kept_data(validate(note.get("config") or run.config), run)
    # Places are this person's; where to rewind to is what is asked now.
    here = {name: getattr(plan.config, name) for name in ("data", "rewind", "checkpoint", "sparse_training")}
    stored = stored.model_copy(update=here)
    ours = with_weights(plan_of_stored(stored, plan.config), run, kept_only=True)
    first = run.round(0)
    recorded = note.get("dense") or (first.summary["trajectory"] if first.finished else None)
    if recorded is None and "imported" in run.info:  # nothing of the training before its masks came along
        recorded = run.info["imported"]["dense"]
    # Of what the source notes; its own teachers are none of ours.
    noted = first.summary["description"] if first.finished else None
    repeated = dataclasses.replace(ours.dense, distilled=None if noted is None else noted_teachers(noted))
    dense = next(
        (training for training in (ours.dense, repeated) if recorded in (None, training.identity)),
        Known(str(recorded)),
    )
    if _is_sparse(run):  # what it recorded is not dense
        dense = repeated
    masks = {number: plan.ordered(_round(run, number).masks()) for number in numbers if number > 0}
    return SourceRun(run, ours, dense, masks)


def _check_fit(source: SourceRun, plan: Plan) -> None:
    """Masks and weights of another architecture, or of data of another shape, cannot be used."""
    for number, masks in source.masks.items():
        for name, mask in masks.items():
            shape = tuple(mask.shape)
            if plan.shapes.get(name) != shape:
                here = f"is {list(plan.shapes[name])}" if name in plan.shapes else "does not exist"
                raise ConfigError(
                    (
                        "model",
                        f"the masks of {source.run.name} do not fit: {name} {here}, its mask of round "
                        f"{number} is {list(shape)}. A ticket can only be retrained with the same architecture, "
                        "on data of the same shape",
                    )
                )
    if plan.config.control.start not in ("reinit", "own"):
        for name in {**plan.shapes, **source.plan.shapes}:
            ours, theirs = plan.shapes.get(name), source.plan.shapes.get(name)
            if ours != theirs:
                raise ConfigError(
                    (
                        "model",
                        f"the weights of {source.run.name} do not fit: {name} is {theirs} there and {ours} here; "
                        "control.start=own takes those of a dense training of this config, and reinit new ones",
                    )
                )


def _check_nested(source: SourceRun, plan: Plan) -> None:
    """Going on from trained weights needs nested masks: what the round before prunes is zero at its end.

    Raises:
        RequestError: a mask keeps what the one of the source's round before prunes.
    """
    if plan.config.rewind.technique == "weights" or plan.config.control.start in ("end", "own", "reinit"):
        return
    for number, masks in source.masks.items():
        before = source.run.round(number - 1)
        if number > 1 and before.finished and not is_nested(masks, plan.ordered(before.masks())):
            raise RequestError(
                f"the masks of {source.run.name} are drawn anew each round: round {number} keeps weights that round "
                f"{number - 1} prunes, and rewind.technique={plan.config.rewind.technique} goes on from its end, where "
                "they are zero; use rewind=weights, or control.start=reinit"
            )


def _start(source: SourceRun, plan: Plan, number: int) -> FromState:
    """Where the rewound weights of a round come from; of a control that goes on by itself, those of its first round."""
    if plan.config.control.start == "end":
        round_ = _round(source.run, number)
        if round_.summary["end_step"] not in round_.checkpoints():
            raise RequestError(
                f"control.start=end: {source.run.name} does not have the end of round {number}"
            )
        return FromState(Known(round_.summary["trajectory"]), int(round_.summary["end_step"]))
    if plan.config.control.start == "own":
        return FromState(plan.dense, plan.rewind_to)
    dense = FromState(source.dense, source.plan.rewind_to)
    if goes_on_by_itself(plan.config.rewind, plan.config.control):
        return FromState(source.dense, source.plan.dense.end)
    if plan.config.rewind.technique == "weights":
        return dense
    wish = f"rewind.technique={plan.config.rewind.technique} starts round {number} from"
    return rewound(plan, dense, _before(source, number, wish))


def _before(source: SourceRun, number: int, wish: str) -> FromState:
    """The end of the source's round before. Raises RequestError, which tells of the wish for it."""
    before = source.run.round(number - 1)
    if not before.finished or before.summary["end_step"] not in before.checkpoints():
        raise RequestError(f"{wish} the end of round {number - 1}, which {source.run.name} does not have")
    return FromState(Known(before.summary["trajectory"]), int(before.summary["end_step"]))


def _networks(source: SourceRun, plan: Plan, number: int) -> dict[str, Teacher]:
    """What the teachers `dense` and `previous` of a round stand for: networks of the source, trained."""
    names, found = plan.config.distillation.teachers, {}
    label = f"{source.run.name}, the teacher"
    if "dense" in names:
        state = FromState(source.dense, source.plan.dense.end)
        found["dense"] = fitted(f"{label} dense", state, source.plan, plan)
    if "previous" in names:
        state = _before(source, number, f"the teacher previous of round {number} is")
        # The rounds of a run that was rewound itself may have other data than the dense training behind them.
        rounds = source.plan
        if "source" in source.run.info:
            rounds = plan_of_stored(stored_config(source.run), plan.config)
        found["previous"] = fitted(f"{label} previous", state, rounds, plan)
    return found


def _dense_steps(source: SourceRun, plan: Plan) -> list[int]:
    """Steps of the source's dense training whose states the retraining needs."""
    control = plan.config.control
    by_itself = goes_on_by_itself(plan.config.rewind, control)
    weights = plan.config.rewind.technique == "weights" and control.start in (
        "rewind",
        "keep_signs",
        "permuted",
    )
    return [
        *([source.plan.rewind_to] if weights else []),
        *([source.scored_at] if control.mask == "inverted" else []),
        *([source.plan.dense.end] if by_itself or "dense" in plan.config.distillation.teachers else []),
    ]


def _check_dense(source: SourceRun, plan: Plan, pruned: bool) -> None:
    """States of a training that cannot be repeated here must be among those the run keeps."""
    if isinstance(source.dense, Known) and pruned:
        kept = [step for step, _, _ in _kept_states(source, {source.dense.identity})]
        for step in _dense_steps(source, plan):
            if step not in kept:
                raise RequestError(
                    f"the dense training of {source.run.name} {NOT_HERE}, "
                    f"and step {step} of it is not among the states the run keeps: "
                    f"{', '.join(map(str, sorted(kept))) or 'none'}"
                )


def _check_optimizer(source: SourceRun, plan: Plan) -> None:
    """The state of one optimizer is nothing to another. Raises ConfigError."""
    rewind, control = plan.config.rewind, plan.config.control
    if rewind.optimizer == "fresh" or control.start not in ("rewind", "end"):
        return
    of_dense = control.start == "rewind" and (
        rewind.technique == "weights" or goes_on_by_itself(rewind, control)
    )
    theirs = (source.plan.config if of_dense else stored_config(source.run)).optimizer
    ours = plan.config.optimizer.model_dump(mode="json", exclude={"lr"})
    if differing := differences(ours, theirs.model_dump(mode="json", exclude={"lr"}), "optimizer"):
        raise ConfigError(
            ("rewind.optimizer", f"kept needs the optimizer of {source.run.name}: {differing[0]}")
        )


def _kept_states(source: SourceRun, identities: set[str]) -> list[tuple[int, Any, Round]]:
    """The (step, path, round) of every state of some trajectories that the source run keeps."""
    found = []
    for round_ in (*source.run.origins(), *source.run.teachers(), *source.run.rounds()):
        if round_.finished and round_.summary["trajectory"] in identities:
            found += [(step, path, round_) for step, path in round_.checkpoints().items()]
    return found


def _retrain(
    session: Session,
    *,
    source: SourceRun,
    numbers: list[int],
    starts: dict[int, FromState],
    networks: dict[int, dict[str, Teacher]],
) -> None:
    """Train the rounds, after what they start from."""
    plan = session.plan
    needed = [*starts.values(), *(teacher.of for found in networks.values() for teacher in found.values())]
    _adopt(session, source, needed)
    keep_teachers(plan, session.run, session.engine)
    steps = _dense_steps(source, plan) if source.masks else []
    if steps and isinstance(source.dense, Trajectory):
        keep = source.plan.keep if source.plan.rewind_to in steps else ()
        session.train_origin(source.dense, *steps, *keep)
    if plan.config.control.start == "own" and source.masks:
        session.train_origin(plan.dense, plan.rewind_to)
    own: FromState | None = None
    for number in numbers:
        if number == 0:
            train_dense(session)
        else:
            trained = train_control(
                session,
                plan.config.control,
                number,
                source.masks[number],
                own or starts[number],
                FromState(source.dense, source.scored_at),
                networks=networks[number],
                nested=bool(_round(source.run, number).summary.get("nested", True)),
            )
            if goes_on_by_itself(plan.config.rewind, plan.config.control):
                own = FromState(trained, trained.end)


def _adopt(session: Session, source: SourceRun, needed: list[FromState]) -> None:
    """Let the shared store have the states of the source that are needed, should they come from elsewhere."""
    wanted: set[str] = {state.parent.identity for state in needed} | {source.dense.identity}
    if isinstance(source.dense, Trajectory):
        if source.dense.origin is not None:
            wanted.add(source.dense.origin.parent.identity)
        if source.dense.distilled is not None:
            wanted |= {teacher.of.parent.identity for teacher in source.dense.distilled.teachers}
    for _, path, round_ in _kept_states(source, wanted):
        try:
            identity = read_header(path).trajectory
            session.engine.uses(identity)
            session.engine.adopt(identity, path, round_.summary["description"])
        except (Damaged, ValueError) as error:
            session.observer.message(f"not used: {error}")
        except NewerFormat:
            raise
        except LthError as error:
            session.observer.message(f"{error}; the steps before it are trained again")
