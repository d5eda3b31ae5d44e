"""How much does the gradient change over an update, by distance? (Lee et al. 2021, arXiv:2003.11316)

The gradient of the mean training loss over all training examples, in inference mode and without augmentation, by all
parameters that training moves and masks keep.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lth_cli.analyses.lipschitz.mathematics import local_lipschitz, norm
from lth_cli.analyses.lipschitz.settings import Settings
from lth_cli.analyses.request import Answer, Request, Study, circumstances, settings
from lth_cli.analyses.work import Work
from lth_cli.config.errors import LthError, RequestError
from lth_cli.data.batches import Batch
from lth_cli.experiments.recorded import Recorded
from lth_cli.pruning.mask import Tensors
from lth_cli.store.analyses import Row
from lth_cli.training.freezing import frozen
from lth_cli.training.probe import TrainingProbe


@dataclass(frozen=True)
class Path:
    """The training of a round, and the steps at which updates end that are looked at."""

    recorded: Recorded
    steps: tuple[int, ...]

    @property
    def density(self) -> float:
        """Share of the prunable weights that are kept."""
        return float(self.recorded.round.summary["density"])


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    paths = [_path(request.round(name, run), asked) for run in request.runs for name in asked.rounds]
    return Study(
        "lipschitz",
        request.runs[0],
        {
            **settings(asked, "rounds"),
            "rounds": [
                {
                    "trajectory": path.recorded.trajectory.identity,
                    "steps": list(path.steps),
                    **circumstances(path.recorded),
                }
                for path in paths
            ],
        },
        {"rounds": [path.recorded.label for path in paths]},
        functools.partial(_answer, asked=asked, paths=paths),
        parts=len(paths),
        not_shown=("path",),
    )


def _path(recorded: Recorded, asked: Settings) -> Path:
    every = asked.every.steps(recorded.plan.dense.steps_per_epoch)
    steps = range((recorded.start // every + 1) * every, recorded.end + 1, every)
    if not steps:
        raise RequestError(
            f"analysis.every: {asked.every} is {every} steps, and the training of {recorded.label} goes from step "
            f"{recorded.start} to {recorded.end}; write fewer"
        )
    for step in steps:
        recorded.check(step - 1)
        recorded.check(step)
    return Path(recorded, tuple(steps))


def _answer(work: Work, *, asked: Settings, paths: Sequence[Path]) -> Answer:
    rows: list[Row] = []
    rounds: list[Row] = []
    headline = []
    shares = [(number + 1) / (asked.points + 1) for number in range(asked.points)]
    for path in paths:
        recorded = path.recorded
        work.observer.part_started(recorded.label)
        where = {"run": recorded.run.name, "round": recorded.label.removeprefix(f"{recorded.run.name}:")}
        found = []
        for step in path.steps:
            key = [recorded.trajectory.identity, step]
            one = work.once(key, functools.partial(_measure, work, recorded, step, shares))
            rows.append({**where, "density": path.density, "step": step, **one})
            found += [one["lipschitz"]] if one["lipschitz"] is not None else []
        if not found:
            raise LthError(f"no update of {recorded.label} that was looked at moves a weight")
        mean, most = statistics.fmean(found), max(found)
        rounds.append({**where, "density": path.density, "updates": len(found), "mean": mean, "max": most})
        headline.append(
            f"{recorded.label}: Lipschitz constant of the gradient {mean:.4g} on average over {len(found)} updates, at "
            f"most {most:.4g}, at a density of {100 * path.density:.4g} %"
        )
        work.observer.part_finished(f"mean {mean:.4g}")
    summary = {"means": {f"{row['run']}:{row['round']}": row["mean"] for row in rounds}}
    return Answer({"rounds": rounds, "path": rows}, summary, headline)


def _measure(work: Work, recorded: Recorded, step: int, shares: Sequence[float]) -> dict[str, Any]:
    """Of the update that ends at a step: the constant, and how far it moved the weights.

    Raises:
        LthError: a gradient is not finite, or a state can be neither read nor trained.
    """
    before, after = work.state(recorded, step - 1), work.state(recorded, step)
    still = frozen(work.network(recorded), recorded.plan.dense.recipe.freeze)
    moving = [name for name in after.weights if name not in still]
    probe = TrainingProbe(recorded.plan.dense, after)
    masks = recorded.masks_of(after)

    def gradient(weights: Tensors) -> Tensors:
        found = probe.gradients(weights, _examples(work, recorded), mode="inference")
        return {
            name: torch.where(masks[name], slope, 0.0) if name in masks else slope
            for name, slope in found.items()
        }

    first, last = ({name: state.weights[name] for name in moving} for state in (before, after))
    return {
        "lipschitz": local_lipschitz(gradient, first, last, shares),
        "distance": norm({name: last[name].double() - weight.double() for name, weight in first.items()}),
    }


def _examples(work: Work, recorded: Recorded) -> Iterator[Batch]:
    objective = recorded.plan.dense.recipe.objective
    for batch in work.examples(recorded, "train"):
        yield objective.view(batch, None, 0)
