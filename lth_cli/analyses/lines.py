"""Error and loss on the line between two states: what several analyses measure, and remember when killed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from lth_cli.analyses.line import Line, along, barrier, positions, recompute_batch_norm
from lth_cli.analyses.settings import Measured, MeasuredOnLine
from lth_cli.analyses.work import Work
from lth_cli.experiments.recorded import Recorded
from lth_cli.store.analyses import Row
from lth_cli.store.states import State


@dataclass(frozen=True)
class Curve:
    """Error and loss along a line by split, at evenly spaced points; a loss that is not finite is None.

    Attributes:
        errors: of objectives that know an error; empty of others.
        losses: of all.
    """

    errors: dict[str, list[float]]
    losses: dict[str, list[float | None]]

    def barrier(self, split: str) -> float | None:
        """Barrier of the error as a fraction; of objectives that know none, of the loss, None where not finite."""
        return barrier(self.errors[split]) if self.errors else self.loss_barrier(split)

    def loss_barrier(self, split: str) -> float | None:
        """Barrier of the loss; None where a loss is not finite."""
        losses = [loss for loss in self.losses[split] if loss is not None]
        return barrier(losses) if len(losses) == len(self.losses[split]) else None

    def barriers(self) -> Row:
        """Columns of a table: both barriers of every split."""
        row: Row = {}
        for split in self.losses:
            if self.errors:
                row[f"{split}_barrier"] = barrier(self.errors[split])
            row[f"{split}_loss_barrier"] = self.loss_barrier(split)
        return row

    def ends(self, split: str) -> tuple[float | None, float | None]:
        """Errors of the two ends, or losses."""
        values = (self.errors or self.losses)[split]
        return values[0], values[-1]

    def rows(self, **about: str | int | None) -> Iterator[Row]:
        """A row a point, for the table `curves`."""
        points = len(next(iter(self.losses.values())))
        for index, position in enumerate(positions(points)):
            row: Row = {**about, "position": position}
            for split in self.losses:
                if self.errors:
                    row[f"{split}_error"] = self.errors[split][index]
                row[f"{split}_loss"] = self.losses[split][index]
            yield row


def curve(
    work: Work,
    recorded: Recorded,
    model: nn.Module,
    ends: tuple[State, State],
    key: Any,
    settings: MeasuredOnLine,
) -> Curve:
    """Measure a line, unless that was done before.

    Args:
        work: at hand.
        recorded: whose data and arithmetic are used.
        model: moved along the line.
        ends: at 0 and 1.
        key: plain values that tell this line from others of the same question.
        settings: points, splits, batch norm.
    """
    points = work.once(
        ["line", key],
        lambda: along(Line(model, *ends), settings.points, lambda: measure(work, recorded, model, settings)),
    )
    knows_error = points[0][settings.splits[0]][0] is not None
    return Curve(
        {split: [float(point[split][0]) for point in points] for split in settings.splits}
        if knows_error
        else {},
        {split: [point[split][1] for point in points] for split in settings.splits},
    )


def measure(
    work: Work, recorded: Recorded, model: nn.Module, settings: Measured
) -> dict[str, list[float | None]]:
    """Error and loss by split of a model where it is now. Raises Stopped.

    An error of an objective that knows none is None, and so is a loss that is not finite.
    """
    if settings.batch_norm == "recomputed":
        # Mixed: of data stored by class, batches in stored order would have the statistics of one class each.
        batches = work.examples(recorded, "train", mixed=True)
        dense = recorded.plan.dense
        recompute_batch_norm(model, dense.recipe.objective, batches, dense.execution)
    found = {split: work.evaluate(model, recorded, split) for split in settings.splits}
    objective = recorded.plan.dense.recipe.objective
    return {
        split: [objective.error(metrics), metrics["loss"] if math.isfinite(metrics["loss"]) else None]
        for split, metrics in found.items()
    }
