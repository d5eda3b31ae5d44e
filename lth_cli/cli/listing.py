"""`lth ls`, `lth show`, `lth compare` and `lth diff`: what is there, and how it differs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from lth_cli.report.figures import Look
    from lth_cli.store.runs import Run

RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="LTH_RUNS_DIR", help="Folder of runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Axis = Annotated[
    Literal["density", "parameters", "madds"],
    typer.Option("--axis", help="Of the figure: weights remaining in %, parameters or multiply-adds left."),
]
MetricName = Annotated[
    str | None, typer.Option("--metric", help="What is drawn: accuracy, loss, ...; the headline by default.")
]
Size = Annotated[str, typer.Option("--size", help="Of a figure: WIDTHxHEIGHT in inches.")]
FontSize = Annotated[float, typer.Option("--font-size", min=2, max=72, help="In a figure, in points.")]


def register(app: typer.Typer) -> None:
    """Add the commands that only read."""
    app.command(
        "ls",
        help="List runs, all or those that fulfil filters; with --sweep, the points of a sweep. Filters and columns "
        "are keys of the config (optimizer.lr, or the end of one: lr), what was typed (model, dataset), results of the "
        "last round (test_accuracy, density), and state, tags, note, rounds, created.",
        epilog="Example: lth ls model=resnet20 state=finished 'test_accuracy>0.9' --sort test_accuracy",
    )(_list)
    app.command(
        "show",
        help="Show one run: state, rounds, metrics, where it lies.",
        epilog="Example: lth show imp-seed_0 --json",
    )(_show)
    app.command(
        "compare",
        help="Put runs side by side: those that differ by seed become mean and spread; then what else differs.",
        epilog="Example: lth compare imp-seed_0 imp-seed_1 late-seed_0 late-seed_1 --csv",
    )(_compare)
    app.command(
        "diff",
        help="What differs between two runs: every key of the config, versions, machine, commits, code of your own.",
        epilog="Example: lth diff imp late",
    )(_diff)


def _list(
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILTER]...",
            help="KEY=VALUE, 'KEY>VALUE', <, <=, >=, !=; a list seed=0,1 or a pattern name='imp-*'. "
            "With --sweep: name of a sweep.",
        ),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Show the points of SWEEP, or of the one launched last.")
    ] = False,
    sort: Annotated[str | None, typer.Option("--sort", help="Column to sort by; -COLUMN descends.")] = None,
    descending: Annotated[bool, typer.Option("--descending", help="With --sort: the highest first.")] = False,
    columns: Annotated[str | None, typer.Option("--columns", help="Columns to show: run,seed,lr,...")] = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    csv: Csv = False,
) -> None:
    _refuse_both(json, csv)
    if sweep:
        wrong = [flag for flag, given in (("--sort", sort), ("--columns", columns)) if given]
        if wrong:
            raise typer.BadParameter(f"{wrong[0]} is not for --sweep")
        if len(filters or ()) > 1:
            raise typer.BadParameter("--sweep takes the name of one sweep")
        _list_sweep(runs_dir, filters[0] if filters else None, json, csv)
        return
    _list_runs(runs_dir, filters or [], sort, descending, columns, json, csv)


def _list_runs(
    runs_dir: Path,
    filters: list[str],
    sort: str | None,
    descending: bool,
    columns: str | None,
    json: bool,
    csv: bool,
) -> None:
    from lth_cli.config.errors import LthError
    from lth_cli.report import listing
    from lth_cli.report.facts import Key
    from lth_cli.report.finding import Filter, find

    wanted = [Filter(text) for text in filters]
    keys = [Key(name.strip()) for name in (columns or "").split(",") if name.strip()]
    if columns is not None and not keys:
        raise typer.BadParameter("--columns takes names, run,test_accuracy")
    descends = descending or (sort or "").startswith("-")
    sorting = listing.Sorting(Key(sort.removeprefix("-")), descends) if sort else None
    faults: list[LthError] = []
    runs = find(runs_dir, wanted, faults.append, [*keys, *([sorting.key] if sorting else [])])
    if json:
        # A key that no run has is known after the last run, but where it fulfils nothing there is nothing before it.
        at_once = not keys and not any(one.negative for one in wanted)
        shown = listing.write_json(runs, keys, sorting, sys.stdout, at_once=at_once)
    elif csv:
        shown = listing.write_csv(runs, keys, sorting, sys.stdout)
    else:
        shown = listing.print_runs(runs, keys, sorting)
    for fault in faults:
        typer.echo(f"lth: {fault}", err=True)
    if faults and not shown:
        raise typer.Exit(1)
    if shown or json or csv:
        return
    if wanted and runs_dir.is_dir():
        typer.echo(f"lth: no run in {runs_dir} is so", err=True)
    else:
        typer.echo(f"No runs in {runs_dir} yet. Try: lth prune")


def _list_sweep(runs_dir: Path, name: str | None, json: bool, csv: bool) -> None:
    import json as json_library

    from lth_cli.config.errors import LthError
    from lth_cli.launchers.slurm import job_states
    from lth_cli.report.sweeps import as_json, headlines, print_sweep, status
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
    if csv:
        from lth_cli.report.layout import write_csv

        write_csv([one.row(headlines(known)) for one in known], sys.stdout)
        return
    print_sweep(found, known)
    if others:
        typer.echo("Other sweeps: " + ", ".join(others))


def _show(
    run: Annotated[str, typer.Argument(help="Name or path of a run.")],
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    csv: Csv = False,
) -> None:
    import json as json_library

    from lth_cli.report.comparing import tidy
    from lth_cli.report.layout import write_csv
    from lth_cli.report.show import as_json, print_run
    from lth_cli.store.runs import find_run

    _refuse_both(json, csv)
    found = find_run(runs_dir, run)
    if csv:
        write_csv(tidy([[found]]), sys.stdout)
    elif json:
        typer.echo(json_library.dumps(as_json(found), indent=2))
    else:
        print_run(found)


def _compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or paths of runs.")],
    runs_dir: RunsDir = Path("runs"),
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="Also draw a metric by density: FILE.png, .svg or .pdf."),
    ] = None,
    axis: Axis = "density",
    metric: MetricName = None,
    size: Size = "6.4x4.2",
    font_size: FontSize = 10.0,
    json: Json = False,
    csv: Csv = False,
) -> None:
    import json as json_library

    from lth_cli.report.comparing import tidy
    from lth_cli.report.layout import write_csv, write_json
    from lth_cli.report.series import group_runs
    from lth_cli.report.show import compare

    _refuse_both(json, csv)
    if figure is None and (axis, metric) != ("density", None):
        asked = f"--axis {axis}" if metric is None else f"--metric {metric}"
        raise typer.BadParameter(f"{asked} is that of a figure; add --figure FILE.png")
    look = look_of(size, font_size)
    if figure is not None and (json or csv):
        raise typer.BadParameter("--figure is drawn beside the table; leave --json and --csv out")
    found, _ = with_results(runs, runs_dir)
    if not json and not csv:
        compare(found, figure, axis, metric, look)
        return
    rows = tidy(group_runs(found))
    if json:
        write_json((json_library.dumps(row) for row in rows), sys.stdout)
    else:
        write_csv(rows, sys.stdout)


def look_of(size: str, font_size: float) -> Look:
    """How large a figure is. Raises BadParameter."""
    from lth_cli.report.figures import Look

    sides = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", size)
    width, height = map(float, sides.groups()) if sides else (0.0, 0.0)
    if not (1 <= width <= 100 and 1 <= height <= 100):
        raise typer.BadParameter(
            f"{size!r}; accepted: WIDTHxHEIGHT in inches, 1 to 100, as 3.3x2.4", param_hint="--size"
        )
    return Look((width, height), font_size)


def with_results(names: list[str], runs_dir: Path) -> tuple[list[Run], list[str]]:
    """The runs named that have a finished round, and why the others are left out, which is said on standard error.

    Exit code 1 where none has.
    """
    from lth_cli.config.errors import LthError
    from lth_cli.store.index import read_run
    from lth_cli.store.runs import find_run

    found: list[Run] = []
    skipped: list[str] = []
    for name in dict.fromkeys(names):
        try:
            run = find_run(runs_dir, name)
            entry = read_run(run)
        except LthError as error:
            skipped.append(str(error))
            continue
        if not entry.rounds:
            skipped.append(f"{run.name} has no finished round yet ({entry.state})")
        elif run.path.resolve() not in [other.path.resolve() for other in found]:
            found.append(run)
    for reason in skipped:
        typer.echo(f"lth: {reason}", err=True)
    if not found:
        raise typer.Exit(1)
    return found, skipped


def _refuse_both(json: bool, csv: bool) -> None:
    if json and csv:
        raise typer.BadParameter("--json and --csv are two ways to print the same; give one")


def _diff(
    one: Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run.")],
    other: Annotated[str, typer.Argument(metavar="RUN", help="Another.")],
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    csv: Csv = False,
) -> None:
    from lth_cli.report import differences
    from lth_cli.report.layout import write_csv
    from lth_cli.store.runs import find_run

    _refuse_both(json, csv)
    ours, theirs = find_run(runs_dir, one), find_run(runs_dir, other)
    if json:
        import json as json_library

        typer.echo(json_library.dumps(differences.as_json(ours, theirs), indent=2))
    elif csv:
        names = ("one", "other")
        rows = [
            {"section": row.section, "key": row.key, **dict(zip(names, row.values, strict=True))}
            for row in differences.differences([ours, theirs])
        ]
        write_csv(rows, sys.stdout, ("section", "key", *names))
    else:
        differences.print_diff(ours, theirs)
