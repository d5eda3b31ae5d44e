"""`lth sequence`: related trainings one after another, each learning from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lth_cli.cli.running import ConfigDir, Json, Overrides, Quiet

if TYPE_CHECKING:
    from lth_cli.config.compose import Point

_EXAMPLES = (
    "Examples: lth sequence optimizer.lr=1e-3,2e-3,4e-3 distillation.every=10   "
    "lth sequence dataset.subset.fraction=0.25,0.5,1.0 distillation.end=0.2 --from all"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "sequence",
        help="Train every combination of a=1,2 in order, each with the ones before it as teachers, and each without "
        "teachers beside it; report accuracy against total cost. Keys of distillation= say how they teach.",
        epilog=_EXAMPLES,
    )(_sequence)


def _sequence(
    overrides: Overrides = None,
    learn_from: Annotated[
        Literal["previous", "all"],
        typer.Option("--from", help="Teachers of a run: the one before it, or all before it."),
    ] = "previous",
    prune: Annotated[
        bool, typer.Option("--prune", help="Each run is one of lth prune; its last ticket teaches.")
    ] = False,
    baseline: Annotated[bool, typer.Option(help="Train each also without teachers, to compare with.")] = True,
    config_dir: ConfigDir = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    import dataclasses
    import json as json_library

    from lth_cli.cli.launch import make_points, names_of, sweep_name
    from lth_cli.cli.point import make_task, run_point
    from lth_cli.cli.signals import Signals
    from lth_cli.config.compose import quote_rounds
    from lth_cli.experiments.teachers import refuse_as_student
    from lth_cli.report.sequences import Member, print_sequence, rows_of, write_sequence

    typed, kind = quote_rounds(overrides or []), "prune" if prune else "train"
    points = _plain_points(kind, typed, config_dir)
    how = _how(typed)
    plain_names = [f"{name}-plain" for name in names_of("sequence", points)]
    told = [*how, *(["from=all"] if learn_from == "all" else [])]  # what names of runs say of their teachers
    named = [dataclasses.replace(point, overrides=(*point.overrides, *told)) for point in points]
    names = [plain_names[0], *names_of("sequence", named)[1:]]
    teachers = [
        names[:number] if learn_from == "all" else names[:number][-1:] for number in range(len(points))
    ]
    taught = [
        make_points(
            kind, [*point.overrides, *how, f"distillation.teachers=[{','.join(found)}]"], config_dir, False
        )[0]
        for point, found in zip(points[1:], teachers[1:], strict=True)
    ]
    taught = [_with_enough(point, len(found)) for point, found in zip(taught, teachers[1:], strict=True)]
    for point in points:
        make_task(kind, point.config, None)
        refuse_as_student(point.config)
    members: list[Member] = []
    with Signals() as signals:
        for number, point in enumerate(points):
            plain = learned = None
            if baseline or number == 0:
                plain = run_point(kind, point.config, plain_names[number], None, signals, quiet or json)
            if number > 0:
                config = taught[number - 1].config
                learned = run_point(kind, config, names[number], None, signals, quiet or json)
            members.append(Member(_swept(point, points), plain, learned, tuple(teachers[number])))
    rows = rows_of(members)
    given = points[0].config.name
    name = sweep_name("sequence", given, [*typed, *told])
    folder = write_sequence(Path(points[0].config.runs_dir), name, rows)
    if json:
        typer.echo(json_library.dumps(rows, indent=2))
    else:
        print_sequence(rows, folder, baseline)
    if signals.received:
        raise typer.Exit(signals.exit_code)


def _plain_points(kind: str, typed: Sequence[str], config_dir: Path | None) -> list[Point]:
    """Every point without teachers. Raises ConfigError, RequestError."""
    from lth_cli.cli.launch import make_points, refuse_swept_places, refuse_unused
    from lth_cli.config.errors import ConfigError, RequestError

    refuse_unused(kind, typed)
    ours = ("distillation.teachers=", "distillation=none", "launcher")
    wrong = [text for text in typed if text.lstrip("+~").startswith(ours)]
    if wrong:
        raise ConfigError(
            *((text, "lth sequence sets it: each run learns from those before it, here") for text in wrong)
        )
    own = [text for text in typed if not _of_teachers(text)]
    points = make_points(kind, own, config_dir, multirun=True)
    refuse_swept_places(points)
    if len(points) < 2:
        raise RequestError(
            "a sequence takes two runs at least: give a key several values, optimizer.lr=1e-3,2e-3"
        )
    return points


def _how(typed: Sequence[str]) -> list[str]:
    """How teachers are used: what was typed of distillation, which `kd` is the default of here."""
    chosen = [text for text in typed if _of_teachers(text)]
    return (
        chosen if any(text.startswith("distillation=") for text in chosen) else ["distillation=kd", *chosen]
    )


def _of_teachers(text: str) -> bool:
    return text.lstrip("+~").startswith("distillation")


def _with_enough(point: Point, teachers: int) -> Point:
    """The point, drawing no more teachers in a step than it has; the second run has one."""
    import dataclasses

    section = point.config.distillation
    if section.sample is None or section.sample <= teachers:
        return point
    fewer = section.model_copy(update={"sample": teachers})
    return dataclasses.replace(point, config=point.config.model_copy(update={"distillation": fewer}))


def _swept(point: Point, points: Sequence[Point]) -> str:
    """What this point has and others do not."""
    return " ".join(text for text in point.overrides if not all(text in other.overrides for other in points))
