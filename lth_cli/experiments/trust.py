"""Whose code a stored config may run: lth's, that of the libraries it is made of, and what this user ran here before.

What somebody ran is remembered in a file of theirs, apart from all runs: a digest of the section that names the
code, with all of its arguments, and of the source it stands for now. So a run says nothing of its own trust, a folder
that was copied in is asked about as ever, and so is code that has been edited since.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lth_cli.config.errors import RequestError
from lth_cli.config.sources import digests
from lth_cli.store.files import digest
from lth_cli.store.runs import Run

# Where the code that a stored config names may come from without a person's word for it.
_TRUSTED = {
    "model": ("lth_cli.models.", "torchvision.models."),
    "model.network": ("lth_cli.models.", "torchvision.models."),
    "dataset": ("lth_cli.data.",),
    "objective": ("lth_cli.objectives.",),
    "evaluation.metrics": ("lth_cli.objectives.text_metrics.",),
    "optimizer": ("torch.optim.", "lth_cli.training.decoupled_sgd."),
    "update": tuple(f"lth_cli.training.{name}." for name in ("updates", "spreme", "condensing")),
    "sparse_training": ("lth_cli.pruning.policies.", "lth_cli.pruning.straight_through."),
    "schedule": ("lth_cli.training.schedules.",),
    "distillation.model": ("lth_cli.models.", "torchvision.models."),
}


TRUST = "--trust"
_Section = tuple[str, Mapping[str, Any]]


def check_trust(run: Run, remedy: str = TRUST) -> None:
    """Refuse a run whose stored config, or that of a teacher, names code from outside: using it would run that code.

    Args:
        run: to be used.
        remedy: what a person types to allow it.

    Raises:
        RequestError: naming each such config path.
    """
    stored = [run.config, run.info.get("source", {}).get("config", {}), *_teachers(run)]
    sections = [found for values in stored for found in _foreign(values)]
    known = _known() if sections else set()
    foreign = list(dict.fromkeys(_told(one) for one in sections if _digest(one) not in known))
    if foreign:
        raise RequestError(
            f"the stored config of {run.name} names code outside lth: {', '.join(foreign)}. "
            f"If you trust where the run comes from, say so with {remedy}"
        )


def remember(configs: Iterable[Mapping[str, Any]]) -> None:
    """Remember the code that plain configs name, since this user runs it now."""
    fresh = {_digest(found) for values in configs for found in _foreign(values)} - _known()
    path = _memory()
    if fresh and path is not None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One short write to the end, so that processes at once cannot mix theirs.
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, "".join(f"{one}\n" for one in sorted(fresh)).encode())
            finally:
                os.close(file)
        except OSError:
            return  # a home that cannot be written: it is asked again


def _memory() -> Path | None:
    """The user's file; None where there is no home."""
    given = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".local" / "state") / "lth" / "own_code"
    except RuntimeError:
        return None


def _known() -> set[str]:
    """What is remembered; nothing of a file that others could have written."""
    path = _memory()
    try:
        if path is None or path.stat().st_uid != os.geteuid() or path.stat().st_mode & 0o022:
            return set()
        return set(path.read_text(encoding="ascii").split())
    except (OSError, UnicodeDecodeError):
        return set()


def _digest(section: _Section) -> str:
    path, values = section
    target = str(values["_target_"] if "_target_" in values else values["score"])
    return digest({"at": path.removeprefix("pretrain."), "section": dict(values), "sources": digests(target)})


def _told(section: _Section) -> str:
    path, values = section
    return (
        f"{path}._target_={values['_target_']}" if "_target_" in values else f"{path}.score={values['score']}"
    )


def _teachers(run: Run) -> Iterator[dict[str, Any]]:
    """Architectures of teachers as the run notes them, which are built to repeat its trainings."""
    for notes in run.info.get("teachers", {}).values():
        yield from ({"model": note["teacher"]["model"]} for note in notes)
    for branch in (None, *run.branches()):
        for round_ in run.rounds(branch):
            objective = round_.summary["description"].get("objective", {}) if round_.finished else {}
            for teacher in objective.get("distillation", {}).get("teachers", ()):
                yield {"model": teacher["model"]}


def _foreign(values: Any, path: str = "") -> Iterator[_Section]:
    """Sections that name code from outside, with the place of each in the config."""
    if isinstance(values, list):
        for item in values:
            yield from _foreign(item, path)
    if not isinstance(values, Mapping):
        return
    if "_target_" in values:
        target, trusted = values["_target_"], _TRUSTED.get(path.removeprefix("pretrain."), ())
        if not isinstance(target, str) or not target.startswith(trusted or ("\0",)):
            yield path, values
    score = values.get("score") if path == "pruning" else None
    if isinstance(score, str) and "." in score and not score.startswith("lth_cli.pruning.scores."):
        yield path, {"score": score}
    for key, value in values.items():
        yield from _foreign(value, f"{path}.{key}".strip("."))
