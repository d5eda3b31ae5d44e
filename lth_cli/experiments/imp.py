"""Iterative magnitude pruning with rewinding (Frankle & Carbin 2019; Frankle et al. 2020, algorithm 2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lth_cli.config import schema
from lth_cli.config.distilling import RELATIVE
from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.config.steps import parse_rounds
from lth_cli.config.values import exact
from lth_cli.experiments.plan import Plan, make_plan
from lth_cli.experiments.session import Session, Task
from lth_cli.experiments.teachers import keep_teachers, with_teachers
from lth_cli.experiments.weights import with_weights
from lth_cli.models.blocks import repeated_blocks
from lth_cli.pruning.controls import control_masks
from lth_cli.pruning.mask import Masks, count, everything
from lth_cli.pruning.round import finished, next_masks, try_score
from lth_cli.store.runs import Run
from lth_cli.training.loop import initial_state
from lth_cli.training.probe import BriefProbe, TrainingProbe
from lth_cli.training.trajectory import (
    Carried,
    FromState,
    Initial,
    KeptSigns,
    Permuted,
    Start,
    Teacher,
    Trajectory,
)


def train_task(config: schema.Config, run: Run | None = None) -> Task:
    """Train one dense network; `run` is the one that is gone on with."""
    relative = [name for name in config.distillation.teachers if name in RELATIVE]
    if relative:
        raise ConfigError(
            (
                "distillation.teachers",
                f"{relative[0]} is for the rounds of lth prune and lth rewind; name a run",
            )
        )
    return Task("train", with_teachers(with_weights(make_plan(config), run), run), train, trainings=1)


def prune_task(config: schema.Config, run: Run | None = None) -> Task:
    """Find a ticket. A target density may end it before all of its trainings; `run` is the one that is gone on with."""
    refuse_sparse_training(config, "lth prune prunes between trainings")
    refuse_goal(
        config,
        (config.pruning.at is None, "pruning.at=null scores"),
        (config.rewind.technique != "weights", f"rewind.technique={config.rewind.technique} starts from"),
        (bool(config.rewind.carry), "rewind.carry goes on from"),
    )
    refuse_other_masks(
        config, [kind for kind in config.controls.kinds if schema.CONTROLS[kind].mask != "ticket"]
    )
    controlled = [n for n in parse_rounds(config.controls.rounds, config.pruning.rounds) if n > 0]
    for kind in config.controls.kinds:
        if goes_on_by_itself(config.rewind, schema.CONTROLS[kind]):
            check_own_rounds(f"the control {kind}", config.rewind, controlled, "controls.rounds")
    trainings = 1 + config.pruning.rounds + len(config.controls.kinds) * len(controlled)
    plan = with_teachers(with_weights(make_plan(config), run), run)
    if "permuted" in config.controls.kinds:
        check_blocks(plan, plan.prunable, "controls.kinds")
    size = sum(math.prod(shape) for shape in plan.prunable_shapes.values())
    told = [
        text for text in (_short_of_density(config.pruning, size), _idle_allocation(config.pruning)) if text
    ]
    plan = dataclasses.replace(plan, warnings=(*plan.warnings, *told))
    own = "." in config.pruning.score
    if own and config.pruning.rounds and run is None:
        # Rather than after a training. Scores written here return what they must.
        state = initial_state(plan.dense, config.resolved_seeds["init"])
        try_score(
            config.pruning, state.weights, everything(plan.prunable_shapes), BriefProbe(plan.dense, state)
        )
    return Task("prune", plan, prune, trainings)


def _short_of_density(config: schema.Pruning, size: int) -> str | None:
    """What to say where rounds that prune a fraction of what remains end above a target density."""
    if (
        config.density is None
        or not config.rounds
        or config.schedule != "geometric"
        or config.layer_fractions
    ):
        return None
    wanted, left, number = math.ceil(exact(config.density) * size), size, 0
    ends = size
    while left > wanted:
        number += 1
        left -= math.ceil(exact(config.fraction) * left)
        if number == config.rounds:
            ends = left
    if number <= config.rounds:
        return None
    return (
        f"pruning.density={config.density:g} is not reached: {config.rounds} rounds of {config.fraction:g} leave "
        f"{100 * ends / size:.4g} % of the weights; pruning.rounds={number} reaches it, and "
        "pruning.schedule=exponential in any number of rounds"
    )


def _idle_allocation(config: schema.Pruning) -> str | None:
    """What to say where an allocation is asked for beside a pattern that leaves it nothing to do."""
    if ":" not in config.pattern or config.allocation == "global":
        return None
    return (
        f"pruning.allocation={config.allocation} has no effect: pruning.pattern={config.pattern} is the density of "
        "every layer; pruning.exclude leaves layers dense"
    )


def refuse_other_masks(config: schema.Config, kinds: Sequence[str], key: str = "controls.kinds") -> None:
    """Refuse controls that would choose weights one by one in the place of a pattern.

    Raises:
        ConfigError: at `key`.
    """
    if kinds and config.pruning.pattern != "unstructured":
        raise ConfigError(
            (
                key,
                f"{', '.join(kinds)} choose weights one by one, against pruning.pattern={config.pruning.pattern}; "
                "reinit and keep_signs keep the masks, and pruning.score=random draws some of that pattern",
            )
        )


def check_blocks(plan: Plan, names: Sequence[str], key: str) -> None:
    """Refuse to exchange tensors of repeated blocks where there are none.

    Raises:
        ConfigError: at `key`.
    """
    if not repeated_blocks({name: plan.shapes[name] for name in names}):
        raise ConfigError(
            (
                key,
                f"permuted exchanges tensors of blocks that are alike, and {plan.config.model.target} has none",
            )
        )


def refuse_goal(config: schema.Config, *builds: tuple[bool, str]) -> None:
    """Refuse a goal, which ends each training at a step of its own, where a round builds on the end of another.

    Args:
        config: of the command.
        builds: whether it does, and what does so in words, beside networks of the rounds as teachers.

    Raises:
        ConfigError: at `until`.
    """
    relative = [name for name in config.distillation.teachers if name in RELATIVE]
    for there, what in (*builds, (bool(relative), f"the teacher {', '.join(relative)} is")):
        if config.until is not None and there:
            raise ConfigError(
                (
                    "until",
                    f"ends each training at a step of its own, and {what} the end of another; lth train takes it, and "
                    "lth prune with rewind=weights and pruning.at=0it, as pruning=snip has it",
                )
            )


def refuse_sparse_training(config: schema.Config, why: str) -> None:
    """Refuse masks that change within a training for rounds that have a mask each.

    Raises:
        ConfigError: saying why, and which command takes them.
    """
    if config.sparse_training != schema.SparseTraining():
        raise ConfigError(
            (
                "sparse_training",
                f"{why}, this changes masks within one; lth train takes it, or sparse_training=none",
            )
        )


def train(session: Session) -> None:
    """Train the dense network: a run of one round."""
    keep_teachers(session.plan, session.run, session.engine)
    train_dense(session)


@dataclass(frozen=True)
class Ticket:
    """A round of pruning.

    Attributes:
        number: of the round, from 1.
        masks: True = kept.
        start: where its weights come from, those that are carried on from the round before aside.
        networks: the dense one and that of the round before, trained.
        trajectory: its training.
    """

    number: int
    masks: Masks
    start: FromState
    networks: Mapping[str, Teacher]
    trajectory: Trajectory


def prune(session: Session) -> None:
    """Train, prune, rewind, until the rounds are done or the density is reached; then train the controls."""
    plan = session.plan
    config = plan.config
    keep_teachers(plan, session.run, session.engine)
    train_dense(session, plan.rewind_to, plan.scored_at(plan.dense), as_far_as=plan.dense_round)
    for ticket in tickets(session):
        scored = plan.scored(ticket.trajectory)
        keep = (scored.step,) if scored.parent is ticket.trajectory else ()
        session.train_round(ticket.number, ticket.trajectory, ticket.masks, keep=keep, until=plan.goal)
    if not config.controls.kinds:
        return
    controlled = parse_rounds(config.controls.rounds, config.pruning.rounds)
    dense = FromState(plan.dense, plan.scored_at(plan.dense))
    own = dict.fromkeys(config.controls.kinds, FromState(plan.dense, plan.dense.end))
    for ticket in tickets(session):
        for kind in config.controls.kinds if ticket.number in controlled else ():
            control = schema.CONTROLS[kind]
            trained = train_control(
                session,
                control,
                ticket.number,
                ticket.masks,
                own[kind] if goes_on_by_itself(config.rewind, control) else ticket.start,
                dense,
                branch=kind,
                networks=ticket.networks,
            )
            own[kind] = FromState(trained, trained.end)


def tickets(session: Session) -> Iterator[Ticket]:
    """The tickets of a run one after another, each pruned from the trained one before it.

    Found again from stored states when asked again: keeping the masks of all rounds would take more memory with every
    round, and reading them back would trust files that may be damaged.
    """
    plan = session.plan
    config, trajectory, number = plan.config, plan.dense, 0
    masks = everything(plan.prunable_shapes)
    while not finished(config.pruning, masks, number):
        at = plan.scored(trajectory)
        assert isinstance(at.parent, Trajectory)
        scored = session.engine.state(at.parent, at.step)
        number += 1
        masks = next_masks(
            config.pruning,
            scored.weights,
            masks,
            round_number=number,
            output=plan.output,
            seed=config.resolved_seeds["mask"],
            left_out=plan.left_out,
            attached=plan.attached,
            probe=TrainingProbe(trajectory, scored),
        )
        del scored
        before = FromState(trajectory, trajectory.end)
        start = rewound(plan, FromState(plan.dense, plan.rewind_to), before)
        states = {"dense": FromState(plan.dense, plan.dense.end), "previous": before}
        networks: dict[str, Teacher] = {
            name: plan.own_teacher(states[name]) for name in RELATIVE if name in config.distillation.teachers
        }
        trajectory = plan.retraining(
            masks, Carried(start, plan.carried, before) if plan.carried else start, networks
        )
        yield Ticket(number, masks, start, networks, trajectory)


def train_dense(session: Session, *keep: int, as_far_as: Trajectory | None = None) -> None:
    """Train round 0 of this config, to its end or that of `as_far_as`, and before it what it starts from."""
    plan = session.plan
    session.train_start(plan.dense)
    masks = plan.dense.masks or everything(plan.prunable_shapes)
    trained = as_far_as or plan.dense
    until = plan.goal if trained.end == plan.dense.end else None
    session.train_round(0, trained, masks, keep=(*keep, *plan.keep), until=until)


def rewound(plan: Plan, dense: FromState, before: FromState) -> FromState:
    """Where the weights of a round come from: the dense training, or the end of the round before."""
    return dense if plan.config.rewind.technique == "weights" else before


def goes_on_by_itself(rewind: schema.Rewind, control: schema.Control) -> bool:
    """Whether a control's rounds start from the end of its own round before, and its masks are nested.

    Learning-rate rewinding and fine-tuning go on from trained weights. The ticket's are zero wherever its masks prune,
    which is most of what another mask keeps. So a control with masks of its own has rounds of its own too, as the
    random pruning of Renda et al. 2020 (arXiv:2003.02389) has in their code.
    """
    rewound = control.start in ("rewind", "keep_signs", "permuted")
    return rewind.technique != "weights" and control.mask != "ticket" and rewound


def check_own_rounds(what: str, rewind: schema.Rewind, numbers: list[int], key: str) -> None:
    """Refuse rounds of a control that goes on by itself where one before them is not asked for.

    Raises:
        ConfigError: at `key`.
    """
    numbers = [number for number in numbers if number > 0]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ConfigError(
            (
                key,
                f"{what} goes on from its own round before with rewind.technique={rewind.technique}; "
                f"ask for its rounds from the first, {key}=1-{max(numbers)}",
            )
        )


def train_control(
    session: Session,
    control: schema.Control,
    number: int,
    masks: Masks,
    start: FromState,
    dense: FromState,
    *,
    branch: str | None = None,
    nested: bool = True,
    networks: Mapping[str, Teacher] | None = None,
) -> Trajectory:
    """Train a round with the masks and start that a control chooses; `schema.Control()` is the ticket itself.

    Args:
        session: the run.
        control: the choices.
        number: of the round.
        masks: those of the ticket, in the order of the model's parameters.
        start: where the rewound weights come from: those of the ticket, or the control's own round before; with
            `start: end` the end of the ticket's own round.
        dense: the trained dense state, for inverted scores.
        branch: kind of control beside the run's own rounds; None trains the round itself.
        nested: whether the masks of the ticket are nested.
        networks: what the teachers `dense` and `previous` stand for.

    Returns:
        Its training.
    """
    plan = session.plan
    by_itself = goes_on_by_itself(plan.config.rewind, control)
    seeds = plan.config.resolved_seeds
    chosen = control_masks(
        control.mask,
        masks,
        lambda: session.engine.state(dense.parent, dense.step).weights,
        seed=seeds["mask"],
        round_number=1 if by_itself else number,  # one draw for all rounds is nested from round to round
    )
    if control.start == "end" and control.mask != "ticket":
        shared = count({name: mask & masks[name] for name, mask in chosen.items()})
        session.observer.message(
            f"round {number}: {1 - shared / max(count(chosen), 1):.0%} of the weights that control.mask={control.mask} "
            "keeps start at zero, since the ticket pruned them"
        )
    # One draw for both, so that they differ in nothing but the signs.
    drawn = derive_seed(seeds["init"], "control.reinit", number)
    starts: dict[str, Start] = {
        "rewind": start,
        "end": start,
        "own": start,
        "reinit": Initial(drawn),
        "keep_signs": KeptSigns(start, drawn),
        "permuted": Permuted(start, tuple(chosen), derive_seed(seeds["mask"], "control.permuted", number)),
    }
    trajectory = plan.retraining(chosen, starts[control.start], networks)
    nested = nested and (control.mask == "ticket" or by_itself)
    session.train_round(number, trajectory, chosen, branch, nested=nested, until=plan.goal)
    return trajectory
