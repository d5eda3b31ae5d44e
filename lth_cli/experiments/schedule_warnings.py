"""Learning rates and masks that a config leads to and that a person may not have meant."""

from __future__ import annotations

from lth_cli.config import schema
from lth_cli.pruning.policies import Static
from lth_cli.training import schedules
from lth_cli.training.trajectory import Trajectory

# Share of optimizer.lr under which a rate that is still falling counts as none.
_ABOUT_ZERO = 0.01


def schedule_warnings(config: schema.Config, dense: Trajectory) -> tuple[str, ...]:
    """What to tell a person about the rates of a dense training, its pre-training and its retrainings, and its masks.

    Args:
        config: what was asked.
        dense: the dense training, started from its pre-training where there is one.
    """
    found = (_held_at_nothing(config, dense), _pretrained_otherwise(config, dense), _never_changed(dense))
    return tuple(text for text in found if text)


def _held_at_nothing(config: schema.Config, dense: Trajectory) -> str | None:
    """Fine-tuning holds the last rate of the schedule, which is about 0 where the schedule falls until the end."""
    if config.rewind.technique != "fine_tune":
        return None
    last = dense.horizon - 1
    rate, before = dense.learning_rate(last), dense.learning_rate(max(last - 1, 0))
    if rate >= before or rate >= _ABOUT_ZERO * config.optimizer.lr:
        return None
    return (
        f"rewind.technique=fine_tune holds the last rate of the schedule, here {rate:.3g} (optimizer.lr is "
        f"{config.optimizer.lr:.3g}), so rounds hardly train; give the schedule a last rate "
        "(schedule.final=0.01, or schedule=multi_step), or use rewind.technique=learning_rate"
    )


def _pretrained_otherwise(config: schema.Config, dense: Trajectory) -> str | None:
    """The training's schedule counts in epochs of the pre-training, whose length a subset changes."""
    if not config.pretrain.length or config.pretrain.schedule is not None:
        return None
    assert dense.origin is not None and isinstance(dense.origin.parent, Trajectory)
    before = dense.origin.parent
    theirs, ours = (
        schedules.build(config.schedule, steps_per_epoch=epoch, horizon=before.horizon)[0]
        for epoch in (before.steps_per_epoch, dense.steps_per_epoch)
    )
    step = next((step for step in range(before.horizon) if theirs(step) != ours(step)), None)
    if step is None:
        return None
    return (
        f"schedule: its epochs are {before.steps_per_epoch} steps in the pre-training and {dense.steps_per_epoch} in "
        f"the training, so from step {step} on the pre-training has {theirs(step):.3g} of the rate, not "
        f"{ours(step):.3g}; write the schedule in steps (500it), or give pretrain.schedule its own"
    )


def _never_changed(dense: Trajectory) -> str | None:
    """An interval may be longer than the training, and a pre-training may last beyond the end of all changes."""
    policy = dense.recipe.policy
    if (
        policy is None
        or type(policy) is Static
        or any(policy.due(step) for step in range(dense.first_step, dense.horizon))
    ):
        return None
    return (
        f"sparse_training: masks change at no step of the training, which goes from step {dense.first_step} to "
        f"{dense.horizon}; see begin, end and every"
    )
