"""What a round cost, in parameters and multiply-adds (`models.cost` says what is counted)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from lth_cli.models.cost import Cost, cost
from lth_cli.pruning.mask import Masks, layer_counts
from lth_cli.training.trajectory import Trajectory


def ledger(
    trajectory: Trajectory, masks: Masks, end: int, spans: Sequence[tuple[int, int]]
) -> dict[str, int]:
    """The cost of a round: parameters, and multiply-adds as integers.

    Args:
        trajectory: its training.
        masks: True = kept; of its end, where they change within the training.
        end: the step up to which it was trained.
        spans: (first, last + 1) of the steps that the run trained itself.

    Returns:
        `parameters` that remain and `madds` of a forward pass of one example, in which pruned weights cost nothing;
        `dense_parameters` and `dense_madds` of the network without masks, which is what is kept in memory and
        computed here, as a mask saves no work; `training_madds` of the steps that this run trained and
        `reused_madds` of the others, in which pruned weights cost nothing either.
    """
    found = cost(trajectory.recipe.model, trajectory.recipe.interface)
    kept = layer_counts(masks)
    steps = list(_steps(trajectory, found, masks, end))
    trained = sum(
        sum(steps[first - trajectory.first_step : last - trajectory.first_step]) for first, last in spans
    )
    return {
        "parameters": found.parameters(kept),
        "dense_parameters": found.dense_parameters,
        "madds": found.madds(kept),
        "dense_madds": found.dense_madds,
        "training_madds": trained,
        "reused_madds": sum(steps) - trained,
    }


def _steps(trajectory: Trajectory, found: Cost, masks: Masks, end: int) -> Iterator[int]:
    """Multiply-adds of each step: a forward pass of its examples, and a backward pass that counts as two.

    Gradients of pruned weights are computed where masks change by them, in a step without an update, and in every step
    where masks are straight-through: 2 f_S + f_D, as RigL counts (Evci et al. 2020, arXiv:1911.11134, appendix). Where
    the number of weights changes, the share that the policy tells is taken of each tensor, and from the last change
    on the masks of the end.
    """
    policy, batches, passes = trajectory.recipe.policy, trajectory.batches, trajectory.recipe.update.passes
    dense = found.dense_madds
    sparse = at_end = found.madds(layer_counts(masks))
    share = last = None if policy is None else policy.share(end)
    if last is not None:  # such a policy starts dense
        sparse, share = dense, Fraction(1)
    for step in range(trajectory.first_step, end):
        each = 3 * passes * sparse
        if policy is not None and policy.due(step):
            if (now := policy.share(step)) is not None and now != share:
                kept = {name: math.ceil(now * mask.numel()) for name, mask in masks.items()}
                share, sparse = now, at_end if now == last else found.madds(kept)
            each = 3 * passes * sparse
            if policy.needs_gradients or policy.straight_through:
                each = (2 * sparse + dense) * (passes if policy.straight_through else 1)
        yield batches.examples(step) * each
