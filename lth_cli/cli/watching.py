"""`lth watch`: how far the runs at work are, until none is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lth_cli.cli.listing import RunsDir


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "watch",
        help="Watch runs at work, all or those named, until none is; in a pipe a line a change.",
        epilog="Example: lth watch; lth watch imp-seed_0 --every 10",
    )(_watch)


def _watch(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Names or paths of runs; without, all at work."),
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between looks.")] = 2.0,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    from lth_cli.config.errors import LthError
    from lth_cli.report.watching import watch
    from lth_cli.store.runs import Run, find_run

    named: list[Run] = []
    for name in runs or []:
        try:
            named.append(find_run(runs_dir, name))
        except LthError as error:
            typer.echo(f"lth: {error}", err=True)
    if runs and not named:
        raise typer.Exit(1)
    watch(runs_dir, named, every)
