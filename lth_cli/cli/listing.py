"""`lth ls`, `lth show` and `lth compare`: what is there. They read, and write nothing but a figure asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="LTH_RUNS_DIR", help="Folder of runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands that only read."""
    app.command("ls", help="List runs; with --sweep, the points of a sweep.")(_list)
    app.command("show", help="Show one run: state, rounds, metrics, where it lies.")(_show)
    app.command("compare", help="Put runs side by side; those that differ by seed become mean and spread.")(
        _compare
    )


def _list(
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Show the points of SWEEP, or of the one launched last.")
    ] = False,
    name: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="With --sweep: its name.")] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    import json as json_library

    if sweep:
        _list_sweep(runs_dir, name, json)
        return
    if name is not None:
        raise typer.BadParameter(f"{name!r}; write lth ls --sweep {name} or lth show {name}")

    from rich.console import Console

    from lth_cli.report.show import as_json
    from lth_cli.report.tables import runs_table
    from lth_cli.store.runs import list_runs

    runs, faults = list_runs(runs_dir)
    for fault in faults:
        typer.echo(f"lth: {fault}", err=True)
    if json:
        typer.echo(json_library.dumps([as_json(run) for run in runs], indent=2))
    elif runs:
        Console().print(runs_table(runs))
    else:
        typer.echo(f"No runs in {runs_dir} yet. Try: lth prune")


def _list_sweep(runs_dir: Path, name: str | None, json: bool) -> None:
    import json as json_library

    from lth_cli.config.errors import LthError
    from lth_cli.launchers.slurm import job_states
    from lth_cli.report.sweeps import as_json, print_sweep, status
    from lth_cli.store.sweeps import find_sweep, list_sweeps

    others: list[str] = []
    if name is None:
        sweeps, faults = list_sweeps(runs_dir)
        for fault in faults:
            typer.echo(f"lth: {fault}", err=True)
        if not sweeps:
            if faults:
                raise LthError(f"no sweep in {runs_dir} can be read")
            typer.echo(f"No sweeps in {runs_dir} yet. Try: lth prune -m seed=0,1,2")
            return
        found, *rest = sweeps
        others = [other.name for other in rest]
    else:
        found = find_sweep(runs_dir, name)
    jobs = job_states(point.job for point in found.points())
    if jobs is None:
        typer.echo("lth: Slurm does not answer; states are those that the runs last noted", err=True)
    known = status(found, jobs)
    if json:
        typer.echo(json_library.dumps(as_json(found, known), indent=2))
        return
    print_sweep(found, known)
    if others:
        typer.echo("Other sweeps: " + ", ".join(others))


def _show(
    run: Annotated[str, typer.Argument(help="Name or path of a run.")],
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    import json as json_library

    from lth_cli.report.show import as_json, print_run
    from lth_cli.store.runs import find_run

    found = find_run(runs_dir, run)
    if json:
        typer.echo(json_library.dumps(as_json(found), indent=2))
    else:
        print_run(found)


def _compare(
    runs: Annotated[list[str], typer.Argument(help="Names or paths of runs.")],
    runs_dir: RunsDir = Path("runs"),
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="Also draw the headline metric by density, as PNG and SVG."),
    ] = None,
    axis: Annotated[
        Literal["density", "parameters", "madds"],
        typer.Option(
            "--axis", help="Of the figure: weights remaining in %, parameters or multiply-adds left."
        ),
    ] = "density",
) -> None:
    from lth_cli.report.show import compare
    from lth_cli.store.runs import find_run

    if axis != "density" and figure is None:
        raise typer.BadParameter(f"--axis {axis} is that of a figure; add --figure FILE.png")
    compare([find_run(runs_dir, run) for run in runs], figure, axis)
