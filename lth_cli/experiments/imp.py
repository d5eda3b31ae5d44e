"""Iterative magnitude pruning with rewinding (Frankle & Carbin 2019; Frankle et al. 2020, algorithm 2)."""

from __future__ import annotations

from lth_cli.config.seeds import derive_seed
from lth_cli.config.steps import parse_rounds
from lth_cli.experiments.session import Session
from lth_cli.pruning.mask import Masks, ones, shuffle_layerwise
from lth_cli.pruning.round import finished, next_masks
from lth_cli.training.trajectory import Initial, Trajectory


def train(session: Session) -> None:
    """Train the dense network: a run of one round."""
    dense = session.plan.dense
    session.train_round(0, dense, _dense_masks(session))


def prune(session: Session) -> None:
    """Train, prune, rewind, until the rounds are done or the density is reached; then train the controls."""
    plan = session.plan
    config, dense = plan.config, plan.dense
    masks = _dense_masks(session)
    trajectory = dense
    found = [masks]
    while True:
        number = len(found) - 1
        session.train_round(number, trajectory, masks, keep=(plan.rewind_to, plan.scored_at))
        if finished(config.pruning, masks, number):
            break
        scored = session.engine.state(trajectory, plan.scored_at)
        masks = next_masks(
            config.pruning,
            scored.weights,
            masks,
            round_number=number + 1,
            output=plan.output,
            seed=config.resolved_seeds["mask"],
        )
        trajectory = dense.ticket(masks, plan.rewind_to)
        found.append(masks)
    for number in parse_rounds(config.controls.rounds, config.pruning.rounds):
        if 0 < number < len(found):
            for kind in config.controls.kinds:
                train_control(session, kind, number, found[number])


def train_control(session: Session, kind: str, number: int, masks: Masks) -> None:
    """Train a control of one round: `reinit` (same masks, new weights) or `random` (masks shuffled in each layer)."""
    plan = session.plan
    seeds = plan.config.resolved_seeds
    control: Trajectory
    if kind == "reinit":
        control = plan.dense.ticket(
            masks, plan.rewind_to, Initial(derive_seed(seeds["init"], "control.reinit", number))
        )
    else:
        masks = shuffle_layerwise(masks, derive_seed(seeds["mask"], "control.random", number))
        control = plan.dense.ticket(masks, plan.rewind_to)
    session.train_round(number, control, masks, branch=kind)


def _dense_masks(session: Session) -> Masks:
    plan = session.plan
    weights = session.engine.state(plan.dense, 0).weights
    return ones({name: weights[name] for name in plan.prunable})
