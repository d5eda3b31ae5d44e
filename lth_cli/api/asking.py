"""`lth train`, `prune`, `rewind` and `analyze` for Python programs: the same keys, checks and folders."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lth_cli.api.opened import Run
from lth_cli.config.errors import RequestError

if TYPE_CHECKING:
    from lth_cli.store.runs import Run as StoredRun

Keys: TypeAlias = str | Mapping[str, Any]
"""An override as typed in a shell (`pruning.rounds=3`), or several as a mapping, nested or with dotted keys."""


def train(*keys: Keys, config_dir: Path | None = None, quiet: bool = True) -> Run:
    """Train one dense network; see `prune`."""
    return _work("train", keys, config_dir, quiet)


def prune(*keys: Keys, config_dir: Path | None = None, quiet: bool = True) -> Run:
    """Find a winning ticket, go on with it, or open it where it is finished already.

    Args:
        keys: overrides, as `lth prune` takes them.
        config_dir: a config folder of one's own.
        quiet: print warnings alone.

    Raises:
        RequestError: before anything is created.
        LthError: it fails; Interrupted on Ctrl-C, and the same call goes on.
    """
    return _work("prune", keys, config_dir, quiet)


def rewind(
    run: Run | str | Path,
    *keys: Keys,
    trust: bool = False,
    config_dir: Path | None = None,
    quiet: bool = True,
) -> Run:
    """Retrain the masks of a run; see `prune`."""
    from lth_cli.experiments.trust import check_trust

    source = _opened(run)
    if not (trust or source.trust):
        check_trust(source.stored, "trust=True")
    return _work("rewind", keys, config_dir, quiet, source.stored)


def analyze(
    runs: Run | str | Path | Sequence[Run | str | Path],
    *keys: Keys,
    trust: bool = False,
    config_dir: Path | None = None,
    quiet: bool = True,
) -> Run:
    """Ask about runs; the answer lies in the first, which is returned: `run.analysis(NAME)` reads it.

    Args:
        runs: one or several.
        keys: overrides as `lth analyze` takes them, `analysis=NAME` among them.
        trust: whether stored configs may name code from outside lth.
        config_dir: a config folder of one's own.
        quiet: print warnings alone.

    Raises:
        LthError: as `prune`.
    """
    from lth_cli.analyses.catalogue import prepare
    from lth_cli.analyses.request import Request
    from lth_cli.cli.analyze import answered, points
    from lth_cli.cli.signals import Signals

    opened = [_opened(run) for run in ([runs] if isinstance(runs, Run | str | Path) else runs)]
    if not opened:
        raise RequestError("name a run to ask about")
    (_, config), *_ = points(overrides(keys), config_dir, multirun=False)
    trusted = trust or all(run.trust for run in opened)
    study = prepare(Request.of(config, [str(run.path) for run in opened], trusted))
    with Signals() as signals:
        answered(study, config, signals, quiet)
    return opened[0]


def _opened(run: Run | str | Path) -> Run:
    from lth_cli.api.opened import run as open_run

    return run if isinstance(run, Run) else open_run(run)


def _work(
    kind: str, keys: Sequence[Keys], config_dir: Path | None, quiet: bool, source: StoredRun | None = None
) -> Run:
    from lth_cli.cli.launch import make_points, names_of, refuse_unused
    from lth_cli.cli.point import run_point
    from lth_cli.cli.signals import Signals
    from lth_cli.config.compose import quote_rounds

    typed = quote_rounds(overrides(keys))
    refuse_unused(kind, typed)
    points = make_points(kind, typed, config_dir, False, source)
    config = points[0].config
    if config.launcher.kind != "serial":
        raise RequestError(
            f"launcher.kind={config.launcher.kind} is for sweeps from the shell; from Python: serial"
        )
    (name,) = names_of(kind if source is None else f"{kind}-{source.name}", points)
    with _noted_as([kind, *([] if source is None else [source.name]), *typed]), Signals() as signals:
        return Run(run_point(kind, config, name, source, signals, quiet), trust=True)


@contextlib.contextmanager
def _noted_as(words: Sequence[str]) -> Iterator[None]:
    """A run notes how it was asked for: here the command that would make it, not the one of this Python process."""
    before = sys.argv
    sys.argv = ["lth", *words]
    try:
        yield
    finally:
        sys.argv = before


def overrides(keys: Sequence[Keys]) -> list[str]:
    """Keys as a person would type them.

    Raises:
        RequestError: a value has no such form.
    """
    return [text for one in keys for text in ([one] if isinstance(one, str) else _typed(one, ""))]


def _typed(values: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from _typed(value, name)
        else:
            yield f"{name}={_written(value, name)}"


def _written(value: Any, name: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z0-9_./+-]+", value):
            return value
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(item, name) for item in value)}]"
    raise RequestError(f"{name}: {value!r} is no text, number, list or mapping")
