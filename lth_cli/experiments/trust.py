"""Whose code a stored config may run: lth's, and that of the libraries it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lth_cli.config.errors import RequestError
from lth_cli.store.runs import Run

# Where the code that a stored config names may come from without a person's word for it.
_TRUSTED = {
    "model": ("lth_cli.models.", "torchvision.models."),
    "dataset": ("lth_cli.data.",),
    "objective": ("lth_cli.objectives.",),
    "evaluation.metrics": ("lth_cli.objectives.text_metrics.",),
    "optimizer": ("torch.optim.", "lth_cli.training.decoupled_sgd."),
    "update": ("lth_cli.training.updates.",),
    "sparse_training": ("lth_cli.pruning.policies.", "lth_cli.pruning.straight_through."),
    "schedule": ("lth_cli.training.schedules.",),
    "distillation.model": ("lth_cli.models.", "torchvision.models."),
}


TRUST = "--trust"


def check_trust(run: Run, remedy: str = TRUST) -> None:
    """Refuse a run whose stored config, or that of a teacher, names code from outside: using it would run that code.

    Args:
        run: to be used.
        remedy: what a person types to allow it.

    Raises:
        RequestError: naming each such config path.
    """
    stored = [run.config, run.info.get("source", {}).get("config", {}), *_teachers(run)]
    foreign = list(dict.fromkeys(found for values in stored for found in _foreign(values)))
    if foreign:
        raise RequestError(
            f"the stored config of {run.name} names code outside lth: {', '.join(foreign)}. "
            f"If you trust where the run comes from, say so with {remedy}"
        )


def _teachers(run: Run) -> Iterator[dict[str, Any]]:
    """Architectures of teachers as the run notes them, which are built to repeat its trainings."""
    for notes in run.info.get("teachers", {}).values():
        yield from ({"distillation": {"model": note["teacher"]["model"]}} for note in notes)
    for branch in (None, *run.branches()):
        for round_ in run.rounds(branch):
            objective = round_.summary["description"]["objective"] if round_.finished else {}
            for teacher in objective.get("distillation", {}).get("teachers", ()):
                yield {"distillation": {"model": teacher["model"]}}


def _foreign(values: Any, path: str = "") -> list[str]:
    if isinstance(values, Mapping):
        return [
            found for key, value in values.items() for found in _foreign(value, f"{path}.{key}".strip("."))
        ]
    section, _, key = path.rpartition(".")
    if key == "_target_":
        trusted = _TRUSTED.get(section.removeprefix("pretrain."), ())
        return (
            [] if isinstance(values, str) and values.startswith(trusted or ("\0",)) else [f"{path}={values}"]
        )
    if path == "pruning.score" and isinstance(values, str) and "." in values:
        return [] if values.startswith("lth_cli.pruning.scores.") else [f"{path}={values}"]
    if isinstance(values, list):
        return [found for item in values for found in _foreign(item, path)]
    return []
