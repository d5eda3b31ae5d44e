"""Running one point or every point of a sweep, once everything typed has been checked."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lth_cli.cli.point import run_point
from lth_cli.cli.signals import Signals
from lth_cli.config import compose
from lth_cli.config.compose import Point
from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.named import SURROUNDINGS
from lth_cli.config.points import load_all
from lth_cli.experiments.session import stored_config
from lth_cli.report import show
from lth_cli.store.runs import Run

# Keys that a command does not use; naming one is a misunderstanding worth stopping for.
_UNUSED = {
    "train": ("pruning", "rewind", "controls", "control", "rounds"),
    "prune": ("control", "rounds"),
    "rewind": ("pruning", "controls", "pretrain"),
}
_INSTEAD = {
    "train": "lth prune uses it",
    "prune": "write controls.kinds= and controls.rounds=, or pruning.rounds= for how many there are",
    "rewind": "it belongs to the run whose masks are retrained; write control= and rounds=",
}
# What a run was asked for beside its training, which one that goes on from it is asked for, too.
_GOES_ON = ("controls", "checkpoint")
# Keys that say where or how, not what: they make no part of a run's name.
_UNNAMED = ("name", "device", "threads", "evaluation", *SURROUNDINGS)


def launch(
    kind: str,
    primary: str,
    overrides: Sequence[str],
    *,
    source: Run | None = None,
    like: Run | None = None,
    config_dir: Path | None = None,
    multirun: bool = False,
    trials: int | None = None,
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Run what was asked and show the result.

    Args:
        kind: the command.
        primary: name of its primary config.
        overrides: what the person typed.
        source: the run whose config and masks are taken, by `lth rewind`.
        like: the run whose config is gone on from, by `--from`.
        config_dir: the person's own config folder.
        multirun: run every combination of the swept values.
        trials: of a sweep, how many values of ranges are tried.
        quiet: show only the result.
        as_json: show it as JSON.

    Raises:
        RequestError: before anything is created, when any point is wrong.
        LthError: when a run fails; in a sweep, after all the other points.
    """
    overrides = compose.quote_rounds(overrides)
    refuse_unused(kind, overrides)
    points = make_points(primary, overrides, config_dir, multirun, source, like, trials)
    prefix = like.name if like else f"{kind}-{source.name}" if source else kind
    refuse_swept_places(points)
    names = names_of(prefix, points)
    if multirun or points[0].config.launcher.kind != "serial":
        from lth_cli.cli.sweep import run_sweep

        given = {point.config.name for point in points}
        name = sweep_name(prefix, given.pop() if len(given) == 1 else None, overrides)
        run_sweep(kind, name, points, names, source, quiet=quiet, as_json=as_json)
        return
    with Signals() as signals:
        run = run_point(kind, points[0].config, names[0], source, signals, quiet or as_json)
    if as_json:
        sys.stdout.write(json.dumps(show.as_json(run), indent=2) + "\n")
    else:
        show.print_result([run])
    if signals.received:  # too late to stop anything, and still what ended a script around this command
        sys.exit(signals.exit_code)


def make_points(
    primary: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    multirun: bool,
    source: Run | None = None,
    like: Run | None = None,
    trials: int | None = None,
) -> list[Point]:
    """Every point composed and validated; all mistakes of all points in one error.

    Over the config of `source`, whose masks are retrained, or of `like`, which keeps what it was asked for, too.
    """
    combinations = compose.expand(overrides, trials) if multirun else [tuple(overrides)]
    points: list[Point] = []
    problems: list[tuple[str, str]] = []
    base = source or like
    stored = None if base is None else stored_config(base).model_dump(mode="json")
    kept = () if like is None else _GOES_ON
    for found in load_all(primary, combinations, config_dir, stored, kept):
        if isinstance(found, ConfigError):
            problems += [problem for problem in found.problems if problem not in problems]
        else:
            points.append(found)
    if problems:
        raise ConfigError(*problems)
    return points


def refuse_unused(kind: str, overrides: Sequence[str]) -> None:
    """Refuse keys that a command does not use. Raises ConfigError."""
    unused = _UNUSED[kind]
    wrong = [text for text in overrides if re.split(r"[.=@]", text.lstrip("+~"), maxsplit=1)[0] in unused]
    if wrong:
        raise ConfigError(*((text, f"has no effect on lth {kind}; {_INSTEAD[kind]}") for text in wrong))


def refuse_swept_places(points: Sequence[Point]) -> None:
    """A sweep has one launcher and one folder of runs."""
    first = points[0].config
    swept = [
        key
        for key in ("launcher", "runs_dir")
        if any(getattr(point.config, key) != getattr(first, key) for point in points)
    ]
    if swept:
        raise ConfigError(*((key, "must be the same for every point of a sweep") for key in swept))


def names_of(kind: str, points: Sequence[Point]) -> list[str]:
    """A folder name for every point: the one given, extended by what differs between points, or one made up."""
    shared = set.intersection(*(set(point.overrides) for point in points))
    names = []
    for point in points:
        given = point.config.name
        swept = [o for o in point.overrides if o not in shared]
        parts = [given, *map(_slug, swept)] if given else [kind, *map(_slug, _named(point.overrides))]
        names.append(_shortened("-".join(part for part in parts if part)))
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise RequestError(
            f"several points would be the run {twice[0]!r}: they differ in nothing that names them"
        )
    return names


def sweep_name(kind: str, given: str | None, overrides: Sequence[str]) -> str:
    """A name for a sweep: the one given, or one made from what was typed, so that the same command finds it again."""
    return _shortened(given or "-".join([kind, *map(_slug, _named(overrides))]))


def _shortened(name: str) -> str:
    if len(name) <= 100:
        return name
    return f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _named(overrides: Sequence[str]) -> list[str]:
    return [o for o in overrides if re.split(r"[.=@]", o.lstrip("+~"), maxsplit=1)[0] not in _UNNAMED]


def _slug(override: str) -> str:
    """`rewind.to=500it` becomes `to_500it`; `experiment=frankle_lenet` becomes `frankle_lenet`."""
    key, _, value = override.lstrip("+~").partition("=")
    short = key.split("@")[0].replace("/", ".").split(".")[-1]
    text = value if short == "experiment" else f"{short}_{value}"
    return re.sub(r"[^A-Za-z0-9.+]+", "_", text).strip("_")
