"""`--dev`: everything that a command would do, in a few steps, in a folder that goes afterwards."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lth_cli.cli.point import run_point
from lth_cli.cli.signals import Signals
from lth_cli.config.compose import validate
from lth_cli.config.schema import Config
from lth_cli.config.steps import Duration
from lth_cli.report.show import steps
from lth_cli.store.runs import list_runs

_LENGTH, _EXAMPLES, _ROUNDS = 8, 256, 2
_LATE = {"end": 6}  # of what begins and ends within a training


def try_out(kind: str, config: Config, quiet: bool) -> None:
    """Run a shortened config where nothing is kept, and say that it went through. Raises as `run_point`."""
    with _elsewhere(Path(config.runs_dir)) as folder, Signals() as signals:
        short = shortened(config).model_copy(update={"runs_dir": str(folder)})
        run = run_point(kind, short, _free_name(folder), None, signals, quiet)
        trained, reused = steps(run)
        trainings = sum(1 for round_ in run.every_round() if round_.finished)
    sys.stdout.write(
        f"Went through: {trainings} trainings of up to {_LENGTH} steps ({trained} trained, {reused} reused), "
        f"evaluated on up to {_EXAMPLES} examples. Nothing was kept; without --dev it is run in full.\n"
    )


def shortened(config: Config) -> Config:
    """A config of a few steps that does everything that the other does. Raises ConfigError."""
    plain: dict[str, Any] = config.model_dump(mode="json")
    plain["loggers"] = []  # which may lie elsewhere
    plain["training"]["length"] = f"{_LENGTH}it"
    plain["rewind"]["to"] = _cut(plain["rewind"]["to"], 2)
    plain["rewind"]["isometry"] = min(plain["rewind"]["isometry"], 10)
    plain["pretrain"]["length"] = _cut(plain["pretrain"]["length"], 4)
    evaluation, checkpoint, pruning = plain["evaluation"], plain["checkpoint"], plain["pruning"]
    evaluation |= {"every": "4it", "subset": min(evaluation["subset"] or _EXAMPLES, _EXAMPLES)}
    checkpoint |= {"every": "4it", "keep": ["3it"] if checkpoint["keep"] else []}
    pruning["rounds"] = min(pruning["rounds"], _ROUNDS)
    if pruning["at"] is not None:
        pruning["at"] = _cut(pruning["at"], 4)
    if plain["controls"]["kinds"] and pruning["rounds"]:
        plain["controls"]["rounds"] = f"1-{pruning['rounds']}"
    for section in (plain["schedule"], plain["sparse_training"], plain["pretrain"]["schedule"] or {}):
        for key, value in section.items():
            section[key] = _cut_all(value, _LATE.get(key, 2))
    return validate(plain)


def _cut(value: Any, most: int) -> str:
    """A number of steps, shortened; none stay none."""
    return f"{most}it" if Duration.parse(value) else "0it"


def _cut_all(value: Any, most: int) -> Any:
    """The same of a setting that may be anything; milestones one after the other."""
    if isinstance(value, list):
        return [_cut_all(one, 4 + number) for number, one in enumerate(value)]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return _cut(value, most)
    return value


@contextmanager
def _elsewhere(runs_dir: Path) -> Iterator[Path]:
    """A folder of runs of its own, in which those of the other are found by name but nothing lands in it."""
    with tempfile.TemporaryDirectory(prefix="lth-dev-") as name:
        folder = Path(name) / "runs"
        folder.mkdir()
        for run in list_runs(runs_dir)[0]:
            (folder / run.name).symlink_to(run.path.resolve())
        if (runs_dir / ".sweeps").is_dir():
            (folder / ".sweeps").symlink_to((runs_dir / ".sweeps").resolve())
        yield folder


def _free_name(folder: Path) -> str:
    """A name that none of the runs found there has, which would be written into."""
    return next(name for number in range(10**6) if not (folder / (name := f"dev-{number}")).exists())
