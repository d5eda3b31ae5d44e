"""`lth tag`, `lth rm` and `lth mv`: what a person does with finished runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lth_cli.cli.listing import RunsDir

if TYPE_CHECKING:
    from lth_cli.store.dependents import Dependent
    from lth_cli.store.runs import Run

AlthoughUsed = Annotated[
    bool,
    typer.Option(
        "--although-used", help="Also one that finished runs, analyses or sweeps were made from or name."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "tag",
        help="Give runs tags and a note, which lth ls shows and filters by (tags=NAME); also while they are at work.",
        epilog="Example: lth tag imp-seed_0 imp-seed_1 --add paper,figure2 --note 'lr of the paper'",
    )(_tag)
    app.command(
        "rm",
        help="Delete runs: none that is at work, none that others build upon. Asks first.",
        epilog="Example: lth rm old-seed_0 old-seed_1; then lth gc frees what the shared store has of them",
    )(_rm)
    app.command(
        "mv",
        help="Give a run another name: none that is at work, none that others build upon.",
        epilog="Example: lth mv prune-lr_0.1 baseline",
    )(_mv)


def _tag(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or paths of runs.")],
    add: Annotated[list[str] | None, typer.Option("--add", "-a", help="Tags to give: one, or a,b.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", "-r", help="Tags to take away.")] = None,
    note: Annotated[str | None, typer.Option("--note", "-n", help="A line of text; '' removes it.")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    from lth_cli.config.errors import RequestError
    from lth_cli.store.runs import find_run
    from lth_cli.store.tags import change_tags, check_note, check_tag, read_tags

    found = [find_run(runs_dir, name) for name in runs]
    given, taken = ([check_tag(tag) for tag in _parts(words)] for words in (add, remove))
    both = sorted({*given} & {*taken})
    if both:
        raise RequestError(f"{both[0]!r} is to be added and removed; say one")
    if note is not None:
        check_note(note)
    for run in found:
        gone = [tag for tag in taken if tag not in read_tags(run.path).tags]
        if gone:
            there = ", ".join(read_tags(run.path).tags) or "none"
            raise RequestError(f"{run.name} has no tag {gone[0]!r}; it has {there}; nothing was changed")
    for run in found:
        changed = given or taken or note is not None
        now = change_tags(run.path, given, taken, note) if changed else read_tags(run.path)
        told = [" ".join(now.tags) or "no tags", *([now.note] if now.note else [])]
        typer.echo(f"{run.name}: {'; '.join(told)}")


def _parts(words: list[str] | None) -> list[str]:
    return [part.strip() for word in words or [] for part in word.split(",") if part.strip()]


def _rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or paths of runs.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    although_used: AlthoughUsed = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    from lth_cli.report.show import steps
    from lth_cli.store.removal import in_place, remove_run, sweep_removed
    from lth_cli.store.runs import find_run

    found = {run.path: run for run in (in_place(find_run(runs_dir, name)) for name in runs)}
    used = _refuse(list(found.values()), although_used)
    for run in found.values():
        rounds = len(run.results())
        trained = sum(steps(run))
        typer.echo(
            f"{run.name}: {run.effective_state}, {rounds} round{'s' * (rounds != 1)}, {trained:,} steps"
            + "".join(f"; {one.told}" for one in used[run.name])
        )
    several = f"these {len(found)} runs" if len(found) > 1 else "this run"
    if not yes:
        if not sys.stdin.isatty():
            typer.echo(f"Nothing was deleted: lth rm --yes deletes {several}")
            raise typer.Exit(1)
        typer.confirm(f"Delete {several}?", abort=True)
    for folder in {run.path.parent for run in found.values()}:
        sweep_removed(folder)
    for run in found.values():
        remove_run(run)
    typer.echo(
        f"Deleted {len(found)} run{'s' * (len(found) > 1)}; lth gc frees what the shared store has of them alone."
    )


def _mv(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name.")],
    although_used: AlthoughUsed = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    from lth_cli.store.removal import in_place, rename_run
    from lth_cli.store.runs import RunExists, check_name, find_run

    found = in_place(find_run(runs_dir, run))
    target = found.path.with_name(check_name(name))
    if target.exists():
        raise RunExists(target)
    _refuse([found], although_used)
    rename_run(found, name)
    typer.echo(f"{found.name} is now {name}; a command that goes on with it says name={name}")


def _refuse(runs: list[Run], although_used: bool) -> dict[str, list[Dependent]]:
    """What finished work uses each run, where that may be; all reasons against it in one error otherwise.

    Raises:
        RequestError: one of them is at work or needed, or used and that was not said to be right.
    """
    from lth_cli.config.errors import RequestError
    from lth_cli.store.dependents import busy, dependents

    reasons: list[str] = []
    used: dict[str, list[Dependent]] = {}
    for run in runs:
        if (told := busy(run)) is not None:
            reasons.append(f"{run.name}: {told}")
            continue
        used[run.name] = dependents(run, run.path.parent, runs)
        needed = [one for one in used[run.name] if one.needs]
        reasons += [f"{run.name}: {one.told}, and is not finished" for one in needed]
        if not although_used:
            rest = [one for one in used[run.name] if not one.needs]
            reasons += [
                f"{run.name}: {one.told} (finished: --although-used passes over that)" for one in rest
            ]
    if reasons:
        raise RequestError("\n".join([*reasons, "nothing was changed"]))
    return used
